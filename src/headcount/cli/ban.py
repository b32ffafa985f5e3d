"""`headcount ban`: devices and addresses that may not connect for a while."""

from __future__ import annotations

import click

from headcount.cli.client import RunningDeployment, on_deployment
from headcount.cli.options import Command
from headcount.cli.output import moment, print_table
from headcount.cli.parameters import duration
from headcount.errors import SettingsError


@click.group()
def ban() -> None:
    """Block devices or addresses for a while.

    A ban closes connections within 2 s and ends by itself. To reject a device for good, use
    `headcount device disable`.

    \b
    Examples:
      headcount ban add --address 192.0.2.7 --for 1h --reason "tries passwords"
      headcount ban add --device k3vq2hbw5yxak3vq2hbw --for 1d
      headcount ban list
      headcount ban remove --address 192.0.2.7
    """


def _target_options(function: Command) -> Command:
    function = click.option("--address", metavar="ADDRESS", help="IPv4 or IPv6 address.")(function)
    return click.option("--device", metavar="ID", help="Id of a device.")(function)


@ban.command()
@_target_options
@click.option("--for", "for_s", type=duration, default="1h", help="Duration: 5m, 1h, 2d.")
@click.option(
    "--reason", default="", show_default=False, metavar="TEXT", help="Reason, shown in the list of bans."
)
@on_deployment()
async def add(
    running: RunningDeployment, device: str | None, address: str | None, for_s: float, reason: str
) -> None:
    """Ban a device or an address.

    Replaces an earlier ban of it. Prints when it ends.

    \b
    Example:
      headcount ban add --address 192.0.2.7 --for 1h --reason "tries passwords"
    """
    made = await running.services.bans.add(running.actor, _target(device, address), for_s, reason)
    click.echo(f"{made.device or made.address} is banned until {moment(made.until)}.")


@ban.command("list")
@on_deployment()
async def list_(running: RunningDeployment) -> None:
    """List the bans in force.

    Prints those that end first at the top.
    """
    rows = [
        (
            "address" if each.address else "device",
            each.address or each.device or "",
            moment(each.until),
            each.reason,
        )
        for each in await running.services.bans.all()
    ]
    print_table(("kind", "target", "until", "reason"), rows)


@ban.command()
@_target_options
@on_deployment()
async def remove(running: RunningDeployment, device: str | None, address: str | None) -> None:
    """Lift a ban.

    \b
    Example:
      headcount ban remove --address 192.0.2.7
    """
    target = _target(device, address)
    lifted = await running.services.bans.remove(running.actor, target)
    click.echo(f"The ban of {target} is lifted." if lifted else f"{target} was not banned.")


def _target(device: str | None, address: str | None) -> str:
    """The one of both that is given.

    Raises:
        SettingsError: both or none are given, or one in place of the other.
    """
    from headcount.devices.bans import ban_key, banned_address

    if (device is None) == (address is None):
        raise SettingsError("--device, --address", "give one of them")
    target = device or address or ""
    if (banned_address(ban_key(target)) is None) != (address is None):
        expected = "device id" if device else "IP address"
        raise SettingsError("--device" if device else "--address", f"{target!r} is not a valid {expected}")
    return target
