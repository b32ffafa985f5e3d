"""`headcount device`: the registry of devices, on the server's machine."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from headcount.access.audit_log import AuditLog, AuditValue
from headcount.cli.core import at_the_core, core_and_site_options, core_options
from headcount.cli.device_data import COMMAND_LINE, seconds
from headcount.cli.lazy import Entry, LazyGroup
from headcount.devices.device_filter import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, DeviceFilter, DevicePage
from headcount.devices.one_time_links import OneTimeLinks
from headcount.devices.pseudonym_keys import daily_pseudonym
from headcount.devices.registry import Registry, unknown_device
from headcount.messages.records import Device, DeviceStatus
from headcount.messages.times import iso
from headcount.messages.topics import KINDS, Kind
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET, SEEN_BUCKET
from headcount.roles.secret import secret_of
from headcount.roles.site import site_of
from headcount.services.devices import device_as_json, page_as_json
from headcount.settings.deployment import Settings

#: What doesn't go to a terminal isn't cut to a terminal's width.
_WIDTH = 200
as_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@dataclass(frozen=True, slots=True)
class Desk:
    """What the commands of `headcount device` work with."""

    client: Connection
    registry: Registry
    links: OneTimeLinks
    audit: AuditLog

    async def known(self, id_: str) -> Device:
        """The device with this id.

        Raises:
            UnknownDeviceError: there is none.
        """
        device = await self.registry.get(id_)
        if device is None:
            raise unknown_device(id_)
        return device

    async def note(self, action: str, device: Device, **detail: AuditValue) -> None:
        """Write down what is done to a device, before it is done."""
        subject = await daily_pseudonym(self.client, device.kind, device.id)
        await self.audit.record(action, COMMAND_LINE, subject, {"site": device.site, **detail})


@contextlib.asynccontextmanager
async def open_desk(settings: Settings) -> AsyncIterator[Desk]:
    """The registry of a running deployment.

    Raises:
        LogUnavailableError: it doesn't answer.
    """
    async with at_the_core(settings) as client:
        secret = secret_of(settings)
        bucket = KvBucket(client, DEVICE_BUCKET)
        registry = Registry(bucket, secret, KvBucket(client, SEEN_BUCKET))
        yield Desk(client, registry, OneTimeLinks(bucket, registry, secret), AuditLog(client, secret))


_MANY, _DATA = "headcount.cli.device_many", "headcount.cli.device_data"
_MORE = {
    "Many devices, and what their owners receive": {
        "import": Entry(f"{_MANY}:import_", "Register the devices of a CSV table."),
        "export": Entry(f"{_MANY}:export", "Write all devices as CSV, without secrets."),
        "link": Entry(f"{_MANY}:link", "Create a one-time link that sets up a phone."),
        "claim": Entry(f"{_MANY}:claim", "Create codes that register one new device each."),
    },
    "Positions and commands": {
        "trace": Entry(f"{_DATA}:trace", "Explain why a device is counted or not."),
        "command": Entry(f"{_DATA}:command", "Send a command to a device."),
    },
}


@click.group(cls=LazyGroup, sections=_MORE)
def device() -> None:
    """The registry: which devices may send, and which person or car each is.

    \b
    headcount device add --kind person --label "Ada" --group staff
    headcount device list --kind person --text ada
    headcount device link k3qv7m2xw5yd4hbt6zra --public-url https://count.example.org:8443
    headcount device import people.csv --output secrets.csv
    headcount device disable k3qv7m2xw5yd4hbt6zra

    A device's id is random and given here; with its secret it is the device's MQTT user and password. All
    commands work on the machine of a running headcount, with the secret in its data folder.
    """


def described(function: Callable[..., None]) -> Callable[..., None]:
    """The options that describe a device."""
    for option in (
        click.option("--app", help="Which app it runs."),
        click.option("--firmware", help="Which firmware it has."),
        click.option(
            "--gateway/--no-gateway",
            default=None,
            help="Whether it may publish the older flows' topics for others.",
        ),
        click.option(
            "--alias",
            "aliases",
            multiple=True,
            help="Its name in another format: owntracks/ada/phone, iotp/42.",
        ),
        click.option("--group", "groups", multiple=True, help="A group that it is in."),
        click.option(
            "--label", help="By what people know it; personal, so it is kept in the registry alone."
        ),
    ):
        function = option(function)
    return function


@device.command()
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What it is.")
@described
@as_json
@core_and_site_options
def add(kind: Kind, as_json: bool, settings: Settings, **fields: Any) -> None:
    """Register a device; its secret is told here and never again.

    \b
    headcount device add --kind person --label "Ada" --group staff
    headcount device add --kind vehicle --alias iotp/42 --json
    """
    site = site_of(settings).id

    async def work() -> tuple[Device, str]:
        async with open_desk(settings) as desk:
            made, secret = await desk.registry.add(site, kind, **_given(fields))
            try:
                await desk.note("device.add", made)
            except BaseException:
                await desk.registry.forget(made.id)
                raise
            return made, secret

    _tell_secret(*asyncio.run(work()), as_json=as_json)


@device.command("list")
@click.option("--kind", type=click.Choice(KINDS), help="Only this kind.")
@click.option(
    "--status", type=click.Choice(["active", "paused", "disabled", "erasing"]), help="Only with this status."
)
@click.option("--group", help="Only those in this group.")
@click.option("--text", help="Only with this in the label, whatever its case.")
@click.option("--after", default="", help="Those after this id: the next page.")
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_PAGE_SIZE),
    default=DEFAULT_PAGE_SIZE,
    show_default=True,
    help="Devices at most.",
)
@as_json
@core_and_site_options
def list_(
    kind: Kind | None,
    status: DeviceStatus | None,
    group: str | None,
    text: str | None,
    after: str,
    limit: int,
    as_json: bool,
    settings: Settings,
) -> None:
    """Devices of the site in the order of their ids, a page at a time.

    \b
    headcount device list
    headcount device list --kind vehicle --group fleet --limit 500
    headcount device list --text ada --json
    """
    site = site_of(settings).id

    async def work() -> DevicePage:
        async with open_desk(settings) as desk:
            return await desk.registry.list(DeviceFilter(site, kind, status, group, text, after, limit))

    page = asyncio.run(work())
    if as_json:
        _print_json(page_as_json(site, page))
        return
    table = Table("id", "kind", "status", "label", "groups", "last seen")
    for each in page.devices:
        seen = page.seen.get(each.id)
        shown = "" if seen is None else "now" if seen.connected else iso(seen.at)[:19]
        table.add_row(each.id, each.kind, each.status, each.label, " ".join(each.groups), shown)
    _console().print(table)
    if page.after:
        click.echo(f"There are more: --after {page.after}")


@device.command()
@click.argument("id_", metavar="ID")
@as_json
@core_options
def show(id_: str, as_json: bool, settings: Settings) -> None:
    """One device, as it is registered.

    \b
    headcount device show k3qv7m2xw5yd4hbt6zra
    """

    async def work() -> dict[str, Any]:
        async with open_desk(settings) as desk:
            found = await desk.known(id_)
            return device_as_json(found, (await desk.registry.seen()).get(id_))

    shown = asyncio.run(work())
    if as_json:
        _print_json(shown)
        return
    for name, value in shown.items():
        click.echo(f"{name.replace('_', ' '):<12}{_text(value)}")


@device.command()
@click.argument("id_", metavar="ID")
@described
@as_json
@core_options
def change(id_: str, as_json: bool, settings: Settings, **fields: Any) -> None:
    """Change what is named of a device; groups and aliases are replaced as a whole.

    \b
    headcount device change k3qv7m2xw5yd4hbt6zra --label "Ada L." --group staff --group night
    headcount device change k3qv7m2xw5yd4hbt6zra --alias ""
    """
    _changed(settings, id_, "device.change", as_json=as_json, **_given(fields))


@device.command()
@click.argument("id_", metavar="ID")
@as_json
@core_options
def rotate(id_: str, as_json: bool, settings: Settings) -> None:
    """A new secret; the old one, signed tokens and links are refused from now on.

    \b
    headcount device rotate k3qv7m2xw5yd4hbt6zra
    """

    async def work() -> tuple[Device, str]:
        async with open_desk(settings) as desk:
            await desk.note("device.rotate", await desk.known(id_))
            return await desk.registry.rotate(id_)

    _tell_secret(*asyncio.run(work()), as_json=as_json)


@device.command()
@click.argument("id_", metavar="ID")
@as_json
@core_options
def disable(id_: str, as_json: bool, settings: Settings) -> None:
    """Let it in no more: its connection is cut within 2 s, and links to it end.

    \b
    headcount device disable k3qv7m2xw5yd4hbt6zra
    """
    _changed(settings, id_, "device.change", as_json=as_json, status="disabled", resume=None)


@device.command()
@click.argument("id_", metavar="ID")
@as_json
@core_options
def enable(id_: str, as_json: bool, settings: Settings) -> None:
    """Let it in and count it again, after it was disabled or paused.

    \b
    headcount device enable k3qv7m2xw5yd4hbt6zra
    """
    _changed(settings, id_, "device.change", as_json=as_json, status="active", resume=None)


@device.command()
@click.argument("id_", metavar="ID")
@click.option(
    "--for", "pause_s", callback=seconds, help="So long: 30m, 8h, 2d. Default: until it is enabled."
)
@as_json
@core_options
def pause(id_: str, pause_s: float | None, as_json: bool, settings: Settings) -> None:
    """Count it no more for a while: what is known of it is forgotten, and its fixes are refused.

    \b
    headcount device pause k3qv7m2xw5yd4hbt6zra --for 8h
    """
    until = None if pause_s is None else time.time() + pause_s
    _changed(settings, id_, "device.change", as_json=as_json, status="paused", resume=until)


@device.command()
@click.argument("id_", metavar="ID")
@click.option("--yes", is_flag=True, help="Don't ask.")
@core_options
def remove(id_: str, yes: bool, settings: Settings) -> None:
    """Let it in no more, and erase all that is kept of it: names at once, history and log within minutes.

    \b
    headcount device remove k3qv7m2xw5yd4hbt6zra
    """
    if not yes:
        click.confirm("All that is kept of this device is erased for good. Go on?", abort=True, err=True)

    async def work() -> None:
        async with open_desk(settings) as desk:
            await desk.note("device.remove", await desk.known(id_))
            await desk.registry.remove(id_)

    asyncio.run(work())
    click.echo("It is let in no more. What is kept of it is being erased.")


def _changed(settings: Settings, id_: str, action: str, *, as_json: bool, **fields: Any) -> None:
    async def work() -> Device:
        async with open_desk(settings) as desk:
            found = await desk.known(id_)
            status = fields.get("status", found.status)
            await desk.note(action, found, fields=" ".join(sorted(fields)), status=status)
            return await desk.registry.change(id_, **fields)

    after = asyncio.run(work())
    if as_json:
        _print_json(device_as_json(after))
    else:
        ends = "" if after.resume is None else f" until {iso(after.resume)}"
        click.echo(f"{after.id}  {after.kind}  {after.status}{ends}  {after.label}".rstrip())


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """Those fields that the command line names; an empty group or alias means none at all."""
    given = {name: value for name, value in fields.items() if value is not None and value != ()}
    return {
        name: [each for each in value if each] if isinstance(value, tuple) else value
        for name, value in given.items()
    }


def _tell_secret(made: Device, secret: str, *, as_json: bool) -> None:
    if as_json:
        _print_json({**device_as_json(made), "secret": secret})
        return
    click.echo(f"id      {made.id}")
    click.echo(f"secret  {secret}")
    click.echo(f"topic   headcount/{made.site}/{made.kind}/{made.id}/fix")
    click.echo("The secret is told this once: id and secret are the MQTT user and password.", err=True)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, dict):
        return f"{value['at']}{', connected' if value['connected'] else ''}"
    return "" if value is None else str(value)


def _print_json(content: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(content)).decode())


def _console() -> Console:
    wide = None if sys.stdout.isatty() else _WIDTH
    return Console(width=wide, highlight=False, markup=False, emoji=False)
