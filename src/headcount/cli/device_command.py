"""`headcount device command`: commands to devices."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from headcount.cli.client import RunningDeployment, in_site, on_deployment
from headcount.cli.options import Command
from headcount.cli.parameters import duration
from headcount.devices.commands import OPEN_STATES
from headcount.errors import DeviceError, UnknownDeviceError
from headcount.messages.commands import CommandKind
from headcount.messages.records import DeviceCommand
from headcount.messages.times import iso
from headcount.messages.topics import KINDS, Kind

POLL_INTERVAL_S = 0.2


@click.group("command")
@click.argument("device")
@click.pass_context
def command(ctx: click.Context, /, device: str) -> None:
    """Send a command to a device.

    A command is sent until the device answers or the command expires. Prints its id and its state.

    \b
    Examples:
      headcount device command k3vq2hbw5yxam7p4n6ts interval --seconds 30
      headcount device command k3vq2hbw5yxam7p4n6ts report --wait
      headcount device command k3vq2hbw5yxam7p4n6ts pause --for 1h
      headcount device command k3vq2hbw5yxam7p4n6ts message "Please charge me"
      headcount device command k3vq2hbw5yxam7p4n6ts zones
      headcount device command k3vq2hbw5yxam7p4n6ts list
    """
    ctx.obj = device


def _queue_options(function: Command) -> Command:
    for option in (
        click.pass_obj,
        click.option("--kind", type=click.Choice(KINDS), help="Kind of a device that is not registered."),
        in_site,
        click.option(
            "--expires", "expires_s", type=duration, default="1d", help="Time until the command expires."
        ),
        click.option("--wait", is_flag=True, help="Wait until the device answers or the command expires."),
    ):
        function = option(function)
    return function


@command.command()
@click.option(
    "--seconds",
    "interval_s",
    type=click.FloatRange(1, 86_400),
    required=True,
    help="Seconds between two fixes.",
)
@_queue_options
@on_deployment()
async def interval(running: RunningDeployment, device: str, **values: Any) -> None:
    """Set the time between two fixes."""
    await _queue(running, device, "interval", **values)


@command.command()
@_queue_options
@on_deployment()
async def report(running: RunningDeployment, device: str, **values: Any) -> None:
    """Request a fix now."""
    await _queue(running, device, "report", **values)


@command.command()
@click.option("--for", "pause_s", type=duration, required=True, help="Duration: 30s, 5m, 1h.")
@_queue_options
@on_deployment()
async def pause(running: RunningDeployment, device: str, **values: Any) -> None:
    """Ask the device to send nothing for a while.

    To stop counting a device that may go on sending, use `headcount device pause`.
    """
    await _queue(running, device, "pause", **values)


@command.command()
@click.argument("text")
@_queue_options
@on_deployment()
async def message(running: RunningDeployment, device: str, **values: Any) -> None:
    """Show a text of up to 256 characters."""
    await _queue(running, device, "message", **values)


@command.command()
@_queue_options
@on_deployment()
async def zones(running: RunningDeployment, device: str, **values: Any) -> None:
    """Send the zones of the site to a phone with OwnTracks, as regions."""
    await _queue(running, device, "zones", **values)


@command.command()
@_queue_options
@on_deployment()
async def clear_zones(running: RunningDeployment, device: str, **values: Any) -> None:
    """Remove all regions of a phone with OwnTracks, also its owner's."""
    await _queue(running, device, "clear_zones", **values)


async def _queue(
    running: RunningDeployment,
    device: str,
    name: CommandKind,
    *,
    kind: Kind | None,
    site_id: str | None,
    expires_s: float,
    wait: bool,
    **fields: Any,
) -> None:
    commands = running.services.commands
    site, kind = await _target(running, device, kind, site_id)
    made = await commands.add(running.actor, site, kind, device, name, expires_s=expires_s, **fields)
    while wait and made.state in OPEN_STATES:
        await asyncio.sleep(POLL_INTERVAL_S)
        found = await commands.get(device, made.id)
        if found is None:
            break
        made = found
    click.echo(_as_text(made))
    if wait and made.state != "acknowledged":
        raise click.exceptions.Exit(1)


async def _target(
    running: RunningDeployment, id_: str, kind: Kind | None, site_id: str | None
) -> tuple[str, Kind]:
    """The site and the kind of a device, registered or not."""
    try:
        device = await running.services.devices.get(id_)
    except UnknownDeviceError:
        if kind is None:
            raise DeviceError(
                f"device {id_[:64]!r}",
                "is not registered",
                "`headcount device list` shows all devices; where devices need no account, add --kind",
            ) from None
        return await running.site(site_id), kind
    return device.site, device.kind


def _as_text(made: DeviceCommand) -> str:
    answer = f": {made.answer}" if made.answer else ""
    until = f" until {iso(made.expires)}" if made.state in OPEN_STATES else ""
    return f"{made.id}  {made.command:<12}{made.state}{until}{answer}"


@command.command("list")
@click.pass_obj
@on_deployment()
async def list_(running: RunningDeployment, device: str) -> None:
    """List the commands that wait, and those that ended within a day.

    Prints the newest first.
    """
    for each in await running.services.commands.of(device):
        click.echo(_as_text(each))


@command.command()
@click.argument("id_", metavar="COMMAND")
@click.pass_obj
@on_deployment()
async def withdraw(running: RunningDeployment, device: str, id_: str) -> None:
    """Stop sending a command, and erase it."""
    found = await running.services.commands.get(device, id_)
    if found is None:
        raise DeviceError(f"command {id_[:64]!r}", "does not exist", "`… command ID list` shows all commands")
    await running.services.commands.withdraw(running.actor, found)
