"""`headcount device`: the device registry."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from headcount.cli.client import RunningDeployment, in_site, on_deployment
from headcount.cli.lazy import Entry, LazyGroup
from headcount.cli.options import Command
from headcount.cli.output import as_json, print_json, print_table
from headcount.cli.parameters import duration
from headcount.messages.topics import KINDS, Kind

if TYPE_CHECKING:  # loaded when a command runs, so that --help is fast
    from headcount.messages.records import Device

_MORE = {
    "Many devices, and hand-over": {
        "import": Entry("device_table:import_", "Register the devices of a CSV table."),
        "export": Entry("device_table:export", "Write all devices of a site as CSV."),
        "link": Entry("device_link:link", "Create a one-time link that sets up a phone."),
        "ingest-key": Entry(
            "device_link:ingest_key",
            "Create the key with which Traccar Client or OsmAnd sends a phone's fixes.",
        ),
        "claim": Entry("device_link:claim", "Create codes that register one new device each."),
        "mosquitto": Entry(
            "device_mosquitto:mosquitto", "Write the accounts of devices for a Mosquitto in front."
        ),
    },
    "Positions and commands": {
        "run": Entry("device_run:run", "Report the positions of this machine as a device."),
        "trace": Entry("device_trace:trace", "Explain why a device is counted or not."),
        "command": Entry("device_command:command", "Send a command to a device."),
    },
}


@click.group(cls=LazyGroup, sections=_MORE)
def device() -> None:
    """Manage devices: register, list, change, erase.

    A registered device has a random id and a secret: its MQTT user and password. These commands connect to the core of
    a running deployment, with the secret in its data folder. All changes are recorded in the audit log.

    \b
    Examples:
      headcount device add --kind person --label "Ada" --group staff
      headcount device list --kind person --text ada
      headcount device link k3qv7m2xw5yd4hbt6zra --public-url https://count.example.org:8443
      headcount device import people.csv --output secrets.csv
      headcount device disable k3qv7m2xw5yd4hbt6zra
    """


device_id = click.argument("id_", metavar="ID")


def _fields(function: Command) -> Command:
    """The options that describe a device."""
    for option in (
        click.option("--app", help="Name of the app that the device runs."),
        click.option("--firmware", help="Version of the device's firmware."),
        click.option(
            "--gateway/--no-gateway",
            default=None,
            help="Whether the device may publish other formats' topics for other devices.",
        ),
        click.option(
            "--alias",
            "aliases",
            multiple=True,
            help="Name of the device in another format: owntracks/ada/phone, iotp/42. Repeatable.",
        ),
        click.option("--group", "groups", multiple=True, help="Group of the device. Repeatable."),
        click.option("--label", help="Name for people. It is personal data and stored in the registry only."),
    ):
        function = option(function)
    return function


@device.command()
@click.option("--kind", type=click.Choice(KINDS), required=True, help="Kind of the device.")
@in_site
@_fields
@as_json
@on_deployment()
async def add(
    running: RunningDeployment, kind: Kind, site_id: str | None, as_json: bool, **fields: Any
) -> None:
    """Register a device.

    Prints its id, its secret and the topic of its fixes. The secret is shown only here.

    \b
    Examples:
      headcount device add --kind person --label "Ada" --group staff
      headcount device add --kind vehicle --site harbour --alias iotp/42 --json
    """
    site = await running.site(site_id)
    registered = await running.services.devices.add(running.actor, site, kind, **_given(fields))
    _print_with_secret(*registered, as_json=as_json)


@device.command("list")
@in_site
@click.option("--kind", type=click.Choice(KINDS), help="Only devices of this kind.")
@click.option(
    "--status",
    type=click.Choice(["active", "paused", "disabled", "erasing"]),
    help="Only devices with this status.",
)
@click.option("--group", help="Only devices in this group.")
@click.option("--text", help="Only devices with this text in their label, in any case.")
@click.option("--after", default="", show_default=False, help="Start after this id: the next page.")
@click.option("--limit", type=click.IntRange(1, 500), default=100, help="Maximum number of devices.")
@as_json
@on_deployment()
async def list_(running: RunningDeployment, site_id: str | None, as_json: bool, **wanted: Any) -> None:
    """List the devices of a site.

    Prints one page, ordered by id. The devices of a removed site are listed, too.

    \b
    Examples:
      headcount device list
      headcount device list --kind vehicle --group fleet --limit 500
      headcount device list --text ada --json
    """
    from headcount.devices.device_filter import DeviceFilter
    from headcount.messages.times import iso
    from headcount.services.devices import page_as_json

    site = await running.site(site_id, or_removed=True)
    page = await running.services.devices.list(DeviceFilter(site, **wanted))
    banned = await running.services.bans.of_devices()
    if as_json:
        print_json(page_as_json(site, page, banned))
        return
    rows = []
    for each in page.devices:
        seen = page.seen.get(each.id)
        last_seen = "" if seen is None else "now" if seen.connected else iso(seen.at)[:19]
        status = f"banned until {iso(banned[each.id])[:19]}" if each.id in banned else each.status
        rows.append((each.id, each.kind, status, each.label, " ".join(each.groups), last_seen))
    print_table(("id", "kind", "status", "label", "groups", "last seen"), rows)
    if page.after:
        click.echo(f"There are more: --after {page.after}")


@device.command()
@device_id
@as_json
@on_deployment()
async def show(running: RunningDeployment, id_: str, as_json: bool) -> None:
    """Show a device.

    Prints all its fields, without its secret.

    \b
    Example:
      headcount device show k3qv7m2xw5yd4hbt6zra
    """
    from headcount.services.devices import device_as_json

    devices = running.services.devices
    banned_until = (await running.services.bans.of_devices()).get(id_)
    found = await devices.get(id_, include_erasing=True)
    shown = device_as_json(found, await devices.last_seen(id_), banned_until)
    if as_json:
        print_json(shown)
        return
    for name, value in shown.items():
        click.echo(f"{name.replace('_', ' '):<12}{_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, dict):
        return f"{value['at']}{', connected' if value['connected'] else ''}"
    return "" if value is None else str(value)


@device.command()
@device_id
@_fields
@as_json
@on_deployment()
async def change(running: RunningDeployment, id_: str, as_json: bool, **fields: Any) -> None:
    """Change fields of a device.

    Groups and aliases are replaced as a whole; an empty text removes them.

    \b
    Examples:
      headcount device change k3qv7m2xw5yd4hbt6zra --label "Ada L." --group staff --group night
      headcount device change k3qv7m2xw5yd4hbt6zra --alias ""
    """
    await _change(running, id_, as_json=as_json, **_given(fields))


@device.command()
@device_id
@as_json
@on_deployment()
async def rotate(running: RunningDeployment, id_: str, as_json: bool) -> None:
    """Replace the secret of a device.

    Prints the new one. The old secret, the ingest key, signed tokens and one-time links are rejected from now on.

    \b
    Example:
      headcount device rotate k3qv7m2xw5yd4hbt6zra
    """
    devices = running.services.devices
    _print_with_secret(*await devices.rotate(running.actor, await devices.get(id_)), as_json=as_json)


@device.command()
@device_id
@click.option("--remove", is_flag=True, help="Remove the key: messages are not encrypted any more.")
@on_deployment()
async def key(running: RunningDeployment, id_: str, remove: bool) -> None:
    """Create the key with which a device encrypts its messages.

    Prints the key, which is shown only here: in OwnTracks, it is the setting `encryptionKey`. From now on, messages
    that are not encrypted with it are rejected.

    \b
    Examples:
      headcount device key k3qv7m2xw5yd4hbt6zra
      headcount device key k3qv7m2xw5yd4hbt6zra --remove
    """
    devices = running.services.devices
    found = await devices.get(id_)
    if remove:
        await devices.remove_payload_key(running.actor, found)
        return
    click.echo(await devices.create_payload_key(running.actor, found))


@device.command()
@device_id
@as_json
@on_deployment()
async def disable(running: RunningDeployment, id_: str, as_json: bool) -> None:
    """Reject a device until it is enabled again.

    Its connection is closed within 2 s, and its one-time links become invalid.

    \b
    Example:
      headcount device disable k3qv7m2xw5yd4hbt6zra
    """
    await _change(running, id_, as_json=as_json, status="disabled", resume=None)


@device.command()
@device_id
@as_json
@on_deployment()
async def enable(running: RunningDeployment, id_: str, as_json: bool) -> None:
    """Accept and count a device again that was disabled or paused.

    \b
    Example:
      headcount device enable k3qv7m2xw5yd4hbt6zra
    """
    await _change(running, id_, as_json=as_json, status="active", resume=None)


@device.command()
@device_id
@click.option(
    "--for", "pause_s", type=duration, help="Duration: 30m, 8h, 2d.  [default: until the device is enabled]"
)
@as_json
@on_deployment()
async def pause(running: RunningDeployment, id_: str, pause_s: float | None, as_json: bool) -> None:
    """Stop counting a device for a while.

    Its state is deleted immediately, and its fixes are rejected.

    \b
    Example:
      headcount device pause k3qv7m2xw5yd4hbt6zra --for 8h
    """
    until = None if pause_s is None else time.time() + pause_s
    await _change(running, id_, as_json=as_json, status="paused", resume=until)


@device.command()
@device_id
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@on_deployment()
async def remove(running: RunningDeployment, id_: str, yes: bool) -> None:
    """Reject a device from now on, and erase everything about it.

    Its registry entry goes first; its data in the log and the history is erased within minutes.

    \b
    Example:
      headcount device remove k3qv7m2xw5yd4hbt6zra
    """
    found = await running.services.devices.get(id_)
    if not yes:
        click.confirm("Everything about this device will be erased for good. Continue?", abort=True, err=True)
    await running.services.devices.remove(running.actor, found)
    click.echo("The device is rejected from now on. Its data is being erased.")


async def _change(running: RunningDeployment, id_: str, *, as_json: bool, **fields: Any) -> None:
    from headcount.messages.times import iso
    from headcount.services.devices import device_as_json

    devices = running.services.devices
    after = await devices.change(running.actor, await devices.get(id_), **fields)
    if as_json:
        print_json(device_as_json(after))
        return
    until = "" if after.resume is None else f" until {iso(after.resume)}"
    click.echo(f"{after.id}  {after.kind}  {after.status}{until}  {after.label}".rstrip())


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that the command line sets; an empty group or alias stands for none."""
    given = {name: value for name, value in fields.items() if value is not None and value != ()}
    return {
        name: [each for each in value if each] if isinstance(value, tuple) else value
        for name, value in given.items()
    }


def _print_with_secret(made: Device, secret: str, *, as_json: bool) -> None:
    from headcount.services.devices import device_as_json

    if as_json:
        print_json({**device_as_json(made), "secret": secret})
        return
    click.echo(f"id      {made.id}")
    click.echo(f"secret  {secret}")
    click.echo(f"topic   headcount/{made.site}/{made.kind}/{made.id}/fix")
    click.echo("The secret is shown only here. Id and secret are the MQTT user and password.", err=True)
