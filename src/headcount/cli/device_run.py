"""`headcount device run`: this machine as a device."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("run")
@click.option("--from", "source", required=True, metavar="SOURCE", help="Source of positions, see above.")
@click.option(
    "--credentials",
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
    from headcount.cli.progress import ProgressBar
    from headcount.device import DeviceCertificates, DeviceClient
    from headcount.device.position_sources import positions_from
    from headcount.device.run import account, report_all
    from headcount.runtime.logs import configure_logging
    from headcount.settings.environment import DEVICE_CREDENTIALS, variable

    credentials = credentials or variable(DEVICE_CREDENTIALS)
    if not credentials:
        raise click.UsageError("--credentials is missing: a file with the device's credentials")
    configure_logging("device")
    ca = values["ca"]
    certificates = DeviceCertificates(ca, values["certificate"], values["key"])
    found = account(credentials, link, url, certificates)
    changed = {name: values[name] for name in ("host", "port", "tls") if values[name] is not None}
    if ca and values["tls"] is None:
        changed["tls"] = True
    client = DeviceClient(
        replace(found, **changed, url=url or found.url),
        transport=values["transport"],
        certificates=certificates,
        buffer=values["buffer"],
        silent_off_site=not everywhere,
        on_command=lambda order: click.echo(f"{order.name} {order.text}".rstrip()),
    )
    stop = threading.Event()

    def work() -> None:
        with ProgressBar(quiet=quiet) as bar:
            end = report_all(client, positions_from(source, stop, values["pace"]), stop, bar.show)
        if not quiet:
            click.echo(end, err=True)

    asyncio.run(_until_signal(work, stop))


async def _until_signal(work: Callable[[], None], stop: threading.Event) -> None:
    """Run blocking work, which ends soon after `stop`; Ctrl-C and SIGTERM set it."""
    from headcount.runtime.signals import stop_on_signals

    signalled = asyncio.Event()
    stop_on_signals(signalled)
    task = asyncio.create_task(asyncio.to_thread(work))
    waiting = asyncio.create_task(signalled.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    stop.set()
    await task
