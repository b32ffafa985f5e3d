"""`headcount ban`: whom the deployment keeps out for a while, on the server's machine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headcount.access.audit_log import AuditValue
from headcount.cli.core import core_options
from headcount.cli.device import Desk, open_desk
from headcount.cli.device_data import COMMAND_LINE, seconds
from headcount.devices.bans import ActiveBan, BanList, ban_key, banned_address
from headcount.errors import SettingsError
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import BAN_BUCKET
from headcount.settings.deployment import Settings

T = TypeVar("T")
_device = click.option("--device", metavar="ID", help="A device, by its id.")
_address = click.option("--address", metavar="ADDRESS", help="An IPv4 or IPv6 address.")


@click.group("ban")
def ban() -> None:
    """Keep devices or addresses out for a while: add, list, remove.

    \b
    headcount ban add --address 192.0.2.7 --for 1h --reason "tries passwords"
    headcount ban add --device k3vq2hbw5yxak3vq2hbw --for 1d
    headcount ban list
    headcount ban remove --address 192.0.2.7

    Who is banned is cut off within 2 s. A ban ends by itself; to shut a device out for good use
    `headcount device disable`.
    """


@ban.command()
@_device
@_address
@click.option("--for", "for_s", default="1h", show_default=True, callback=seconds, help="Such as 5m, 1h, 2d.")
@click.option("--reason", default="", metavar="TEXT", help="For whoever lists the bans.")
@core_options
def add(device: str | None, address: str | None, for_s: float, reason: str, settings: Settings) -> None:
    """Keep a device or an address out, in place of what was set for it before."""
    who = _one(device, address)

    async def work(desk: Desk, bans: BanList) -> ActiveBan:
        if device is not None:
            await desk.known(device)
        made = await bans.add(who, for_s, reason)
        await _note(desk, "ban.add", device, who, {"seconds": for_s, "reason": reason})
        return made

    made = asyncio.run(_with_bans(settings, work))
    click.echo(f"{made.device or made.address} is kept out until {_moment(made.until)}.")


@ban.command("list")
@core_options
def list_(settings: Settings) -> None:
    """Who is kept out now, until when and why."""

    async def work(_: Desk, bans: BanList) -> list[ActiveBan]:
        return await bans.all()

    table = Table("kind", "who", "until", "reason", box=None)
    for each in asyncio.run(_with_bans(settings, work)):
        kind = "address" if each.address else "device"
        table.add_row(kind, each.address or each.device, _moment(each.until), escape(each.reason))
    Console(soft_wrap=True).print(table)


@ban.command()
@_device
@_address
@core_options
def remove(device: str | None, address: str | None, settings: Settings) -> None:
    """Let a device or an address in again."""
    who = _one(device, address)

    async def work(desk: Desk, bans: BanList) -> bool:
        lifted = await bans.lift(who)
        if lifted:
            await _note(desk, "ban.remove", device, who, {})
        return lifted

    lifted = asyncio.run(_with_bans(settings, work))
    click.echo(f"{who} may come in again." if lifted else f"{who} wasn't kept out.")


def _one(device: str | None, address: str | None) -> str:
    """Whom it is about."""
    if (device is None) == (address is None):
        raise SettingsError("--device, --address", "name one of both")
    who = device or address or ""
    if (banned_address(ban_key(who)) is None) != (address is None):
        raise SettingsError("--device" if device else "--address", f"{who!r} is none")
    return who


async def _note(desk: Desk, action: str, device: str | None, who: str, detail: dict[str, AuditValue]) -> None:
    """Write it down: an address as it is, a device by its pseudonym."""
    known = await desk.registry.get(device) if device else None
    if known is not None:
        await desk.note(action, known, **detail)
    else:  # an address, or a device that has been removed since
        await desk.audit.record(action, COMMAND_LINE, "" if device else f"address {who}", detail)


async def _with_bans(settings: Settings, work: Callable[[Desk, BanList], Awaitable[T]]) -> T:
    async with open_desk(settings) as desk:
        return await work(desk, BanList(KvBucket(desk.client, BAN_BUCKET)))


def _moment(t_s: float) -> str:
    return datetime.fromtimestamp(t_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
