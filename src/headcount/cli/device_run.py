"""`headcount device run`: this machine as a device."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headcount.errors import DeviceLibraryError

if TYPE_CHECKING:  # loaded when a command runs, so that --help is fast
    from headcount.device import (
        ClientStatus,
        DeviceCertificates,
        DeviceClient,
        DeviceCredentials,
        DevicePosition,
    )

_FILE = click.Path(path_type=Path, dir_okay=False)
#: Seconds for which waiting fixes are sent at the end of a recording, and after a signal.
_FLUSH_END_S, _FLUSH_SIGNAL_S = 30.0, 3.0
_SHOW_INTERVAL_S = 1.0


@click.command("run")
@click.option("--from", "source", required=True, metavar="SOURCE", help="Source of positions, see above.")
@click.option(
    "--credentials",
    envvar="HEADCOUNT_DEVICE_CREDENTIALS",
    help="File with the device's credentials; --link writes it. The variable may also have their JSON.  "
    "[HEADCOUNT_DEVICE_CREDENTIALS]",
)
@click.option(
    "--link", help="One-time link or claim code to exchange for credentials, if the file does not exist."
)
@click.option("--url", default="", show_default=False, help="URL of the API, for a claim code and for HTTP.")
@click.option(
    "--transport",
    type=click.Choice(["mqtt", "websocket", "http"]),
    default="mqtt",
    help="Protocol; HTTP has no commands.",
)
@click.option("--host", help="MQTT host.  [default: from the credentials, else 127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="MQTT port.  [default: from the credentials, else 1883]"
)
@click.option("--tls/--no-tls", default=None, help="Connect over TLS.  [default: from the credentials]")
@click.option(
    "--ca", type=_FILE, show_default="the system's", help="Certificates to trust (PEM); implies --tls."
)
@click.option("--certificate", type=_FILE, help="Certificate of the device (PEM).")
@click.option("--key", type=_FILE, help="Its key (PEM).")
@click.option("--buffer", type=_FILE, help="File for fixes that are not delivered yet.  [default: memory]")
@click.option(
    "--pace",
    type=click.Choice(["real", "fast"]),
    default="real",
    help="Pace of a recording: from now on at its own pace, or all of it immediately, until now.",
)
@click.option("--everywhere", is_flag=True, help="Report off site, too.")
@click.option("--quiet", is_flag=True, help="Show no status.")
def run(
    source: str,
    credentials: str | None,
    link: str | None,
    url: str,
    quiet: bool,
    everywhere: bool,
    **values: Any,
) -> None:
    """Report the positions of this machine as a device.

    SOURCE is gpsd, gpsd:HOST:PORT, serial:PATH, serial:PATH@BAUD, nmea:FILE, gpx:FILE, or - for lines of NMEA or JSON
    from standard input. Sends what changes counts, and nothing off site. Stops at SIGTERM, and at the end of the
    source; with --buffer, the next run delivers what is left.

    \b
    Examples:
      headcount device run --credentials device.json --from gpsd --buffer fixes.db
      headcount device run --link https://count.example.org:8443/me#join=CODE --credentials device.json --from serial:/dev/ttyUSB0
      headcount device run --credentials device.json --from gpx:walk.gpx --pace fast
    """
    from headcount.device import DeviceCertificates, DeviceClient
    from headcount.device.position_sources import positions_from
    from headcount.runtime.logs import configure_logging

    configure_logging("device")
    ca = values["ca"]
    certificates = DeviceCertificates(ca, values["certificate"], values["key"])
    account = _account(credentials, link, url, certificates)
    changed = {name: values[name] for name in ("host", "port", "tls") if values[name] is not None}
    if ca and values["tls"] is None:
        changed["tls"] = True
    client = DeviceClient(
        replace(account, **changed, url=url or account.url),
        transport=values["transport"],
        certificates=certificates,
        buffer=values["buffer"],
        silent_off_site=not everywhere,
        on_command=lambda order: click.echo(f"{order.name} {order.text}".rstrip()),
    )
    stop = threading.Event()
    positions = positions_from(source, stop, values["pace"])
    asyncio.run(_until_signal(lambda: _report(client, positions, stop, quiet=quiet), stop))


def _account(
    credentials: str | None, link: str | None, url: str, certificates: DeviceCertificates
) -> DeviceCredentials:
    """The credentials in the file, else those that the link is exchanged for."""
    from headcount.device import credentials_of, read_credentials, redeem, write_credentials

    if credentials is None:
        raise click.UsageError("--credentials is missing: a file with the device's credentials")
    if credentials.lstrip().startswith("{"):
        try:
            return credentials_of(json.loads(credentials), "HEADCOUNT_DEVICE_CREDENTIALS")
        except ValueError as error:
            raise DeviceLibraryError("HEADCOUNT_DEVICE_CREDENTIALS", "is not JSON", "Correct it") from error
    path = Path(credentials)
    if link is None or path.exists():
        return read_credentials(path)
    path.touch(mode=0o600)  # an exchange uses the link up: find out before whether the file can be written
    try:
        account = redeem(link, url, certificates)
    except DeviceLibraryError:
        path.unlink()
        raise
    write_credentials(path, account)
    return account


async def _until_signal(work: Any, stop: threading.Event) -> None:
    from headcount.runtime.signals import stop_on_signals

    signalled = asyncio.Event()
    stop_on_signals(signalled)
    task = asyncio.create_task(asyncio.to_thread(work))
    waiting = asyncio.create_task(signalled.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    stop.set()
    await task


def _report(
    client: DeviceClient, positions: Iterator[DevicePosition], stop: threading.Event, *, quiet: bool
) -> None:
    """Report positions until their end, or until `stop`."""
    from headcount.cli.progress import ProgressBar

    taken, reported = 0, 0
    client.start()
    try:
        with ProgressBar(quiet=quiet) as bar:
            shown_s = 0.0
            for position in positions:
                taken += 1
                reported += client.report(position) is not None
                if time.monotonic() >= shown_s:
                    bar.show(_text(client.status, reported))
                    shown_s = time.monotonic() + _SHOW_INTERVAL_S
                if stop.is_set():
                    break
    finally:
        client.close(_FLUSH_SIGNAL_S if stop.is_set() else _FLUSH_END_S)
    if not quiet:
        click.echo(f"{taken} positions, {_text(client.status, reported)}", err=True)


def _text(status: ClientStatus, reported: int) -> str:
    place = "site unknown" if not status.knows_site else "off site" if status.is_off_site else "on site"
    refused = f", {status.refused} refused" if status.refused else ""
    problem = f", {status.problem}" if status.problem else ""
    return f"{place}, {reported} reported, {status.acknowledged} delivered{refused}, {status.waiting} waiting{problem}"
