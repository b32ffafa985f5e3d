"""`headcount device import, export, link, claim`: many devices, and what their owners are handed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import click
import msgspec
from rich.console import Console
from rich.progress import Progress

from headcount.cli.core import CORE, core_and_site_options
from headcount.cli.device import Desk, as_json, open_desk
from headcount.cli.device_data import COMMAND_LINE, seconds
from headcount.cli.options import takes_settings
from headcount.devices import csv_table
from headcount.devices.one_time_links import CLAIM_CODE_LIFETIME_S, LINK_LIFETIME_S, MAX_CLAIM_CODES
from headcount.devices.provisioning import provisioning_links, public_host, qr_file, qr_text
from headcount.errors import DeviceError, SettingsError
from headcount.messages.records import Device
from headcount.messages.times import iso
from headcount.messages.topics import KINDS, Kind
from headcount.roles.site import site_of
from headcount.settings.deployment import Settings

#: What takes longer shows how far it is.
_SHOWN_S = 2.0
_FILE = click.Path(path_type=Path, dir_okay=False)
_OUTPUT = click.option(
    "-o",
    "--output",
    type=_FILE,
    help="A new file for it, which nobody else may read. Default: standard output.",
)


def _within(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--within",
        "within_s",
        callback=seconds,
        default=default,
        show_default=True,
        help="It works for so long.",
    )


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True))
@_OUTPUT
@core_and_site_options
def import_(file: Path, output: Path | None, settings: Settings) -> None:
    """Register the devices of a table: all of them, or none if a line is wrong.

    FILE is CSV with a header: a column `kind` (person or vehicle), and any of label, groups, aliases,
    gateway, firmware, app. Several groups or aliases in one cell have semicolons between. What comes out is
    CSV with id, secret and label of each: the secrets are told this once.

    \b
    headcount device import people.csv --output secrets.csv
    """
    site = site_of(settings).id
    rows = csv_table.parse_devices(_read(file), site)

    async def work(shown: Callable[[int], None]) -> list[tuple[Device, str]]:
        async with open_desk(settings) as desk:
            detail: dict[str, Any] = {"site": site, "devices": len(rows)}
            await desk.audit.record("device.import", COMMAND_LINE, "", detail)
            return await csv_table.import_devices(desk.registry, site, rows, shown)

    # the file first: what can't be written afterwards would be lost
    with _opened(output) as out:
        with _progress("registering", len(rows)) as shown:
            made = asyncio.run(work(shown))
        out.write(csv_table.csv_line(csv_table.SECRET_COLUMNS))
        for each, secret in made:
            out.write(csv_table.csv_line((each.id, secret, each.label)))
    click.echo(f"{len(made)} devices are registered.", err=True)


@click.command()
@_OUTPUT
@core_and_site_options
def export(output: Path | None, settings: Settings) -> None:
    """All devices of the site as CSV, without secrets.

    A cell that a spreadsheet would take for a formula has an apostrophe before it.

    \b
    headcount device export --output devices.csv
    """
    site = site_of(settings).id

    async def work() -> list[str]:
        async with open_desk(settings) as desk:
            devices = [each for each in (await desk.registry.all()).values() if each.site == site]
            detail: dict[str, Any] = {"site": site, "devices": len(devices)}
            await desk.audit.record("device.export", COMMAND_LINE, "", detail)
            return list(csv_table.export_devices(devices, await desk.registry.seen()))

    lines = asyncio.run(work())
    with _opened(output) as out:
        out.writelines(lines)


@click.command()
@click.argument("id_", metavar="ID")
@_within(f"{LINK_LIFETIME_S // 3600}h")
@click.option(
    "--for", "app", type=click.Choice(["owntracks", "page"]), default="owntracks", show_default=True,
    help="For which app the QR code is.",
)  # fmt: skip
@click.option("--qr", type=_FILE, help="Write the QR code to this file: .svg or .png.")
@as_json
@takes_settings("public_url", *CORE)
def link(id_: str, within_s: float, app: str, qr: Path | None, as_json: bool, settings: Settings) -> None:
    """A one-time link for a device: whoever opens it first gets a new secret for it.

    \b
    headcount device link k3qv7m2xw5yd4hbt6zra --public-url https://count.example.org:8443
    headcount device link k3qv7m2xw5yd4hbt6zra --public-url https://count.example.org:8443 --qr ada.svg
    headcount device link k3qv7m2xw5yd4hbt6zra --public-url https://count.example.org:8443 --for page

    The QR code is for the phone's camera: it opens the app OwnTracks, or the page /me in the browser.
    """
    base = _base(settings)

    async def work() -> str:
        async with open_desk(settings) as desk:
            found = await desk.known(id_)
            await desk.note("device.link", found, within_s=int(within_s))
            return (await desk.links.create_link(id_, int(within_s)))[0]

    code = asyncio.run(work())
    links, expires = provisioning_links(base, code), iso(time.time() + within_s)
    chosen = links.owntracks if app == "owntracks" else links.page
    if qr is not None:
        qr_file(chosen, str(qr))
    if as_json:
        told = {"device": id_, "code": code, "expires": expires}
        click.echo(msgspec.json.encode(told | {"owntracks": links.owntracks, "page": links.page}))
        return
    if qr is None:
        click.echo(qr_text(chosen))
    click.echo(f"OwnTracks  {links.owntracks}\nbrowser    {links.page}\nworks once, until {expires}")


@click.command()
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What the new devices are.")
@click.option("--count", type=click.IntRange(1, MAX_CLAIM_CODES), required=True, help="How many codes.")
@click.option("--group", "groups", multiple=True, help="A group that they will be in.")
@_within(f"{CLAIM_CODE_LIFETIME_S // 86_400}d")
@_OUTPUT
@takes_settings("public_url", "site", *CORE)
def claim(
    kind: Kind,
    count: int,
    groups: tuple[str, ...],
    within_s: float,
    output: Path | None,
    settings: Settings,
) -> None:
    """Claim codes: each registers one new device, once, for whoever shows it.

    What comes out is CSV with code, end, and the links for OwnTracks and for the browser.

    \b
    headcount device claim --kind person --count 200 --group students \\
        --public-url https://count.example.org:8443 --output codes.csv
    """
    site, base = site_of(settings).id, _base(settings)

    async def work() -> list[str]:
        async with open_desk(settings) as desk:
            return await _claims(desk, site, kind, count, groups, int(within_s))

    with _opened(output) as out:
        out.write(csv_table.claim_codes_csv(asyncio.run(work()), base, time.time() + within_s))


async def _claims(
    desk: Desk, site: str, kind: Kind, count: int, groups: tuple[str, ...], within_s: int
) -> list[str]:
    detail: dict[str, Any] = {"site": site, "kind": kind, "codes": count, "groups": " ".join(groups)}
    await desk.audit.record("device.claims", COMMAND_LINE, "", detail)
    return await desk.links.create_claim_codes(site, kind, count, groups, within_s)


def _base(settings: Settings) -> str:
    if not settings.public_url:
        raise SettingsError("public_url", "is required here; use https://HOST or http://HOST:PORT")
    base = settings.public_url.rstrip("/")
    try:
        public_host(base)
    except SettingsError as error:
        raise SettingsError("public_url", error.problem) from error
    return base


def _read(file: Path) -> str:
    try:
        raw = sys.stdin.buffer.read(csv_table.MAX_CHARACTERS + 1) if str(file) == "-" else file.read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise DeviceError(
            str(file), f"can't be read: {error.strerror or error}", "Choose another file"
        ) from error
    except UnicodeDecodeError as error:
        raise DeviceError(
            str(file), f"is no UTF-8: {error.reason} at byte {error.start}", "Save it so"
        ) from error


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a new file that only its owner may read; none is left of a failure."""
    if output is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        opened = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise SettingsError("--output", f"{output} can't be made: {error.strerror or error}") from error
    try:
        with os.fdopen(opened, "w", encoding="utf-8", newline="") as out:
            yield out
    except BaseException:
        output.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error for what takes longer than 2 s."""
    bar = Progress(console=Console(stderr=True), transient=True)
    task, start_s = bar.add_task(what, total=total), time.monotonic()
    started = False

    def shown(done: int) -> None:
        nonlocal started
        bar.update(task, completed=done)
        if not started and time.monotonic() - start_s > _SHOWN_S:
            started = True
            bar.start()

    try:
        yield shown
    finally:
        if started:
            bar.stop()
