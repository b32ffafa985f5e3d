"""`headcount device trace` and `headcount device command`: what became of it, and what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from headcount.access.audit_log import AuditLog, AuditValue
from headcount.cli.core import at_the_core, core_and_site_options, core_options
from headcount.devices.commands import OPEN_STATES, CommandStore
from headcount.devices.pseudonym_keys import PseudonymKeys, daily_pseudonym
from headcount.devices.registry import Registry
from headcount.devices.trace import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    DeviceTrace,
    DeviceTracer,
    TraceEntry,
    is_unknown,
    kinds_in_log,
)
from headcount.errors import DeviceError
from headcount.messages.commands import CommandKind
from headcount.messages.records import DeviceCommand
from headcount.messages.times import iso
from headcount.messages.topics import ID, KINDS, Kind
from headcount.messaging.connection import Connection
from headcount.messaging.device_messages import partitions_of_log
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import COMMAND_BUCKET, DEVICE_BUCKET
from headcount.roles.secret import secret_of
from headcount.roles.site import site_of
from headcount.settings.deployment import Settings

#: The actor in the audit log.
COMMAND_LINE = "command line"
POLL_S = 0.2


def seconds(_: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """`30`, `30s`, `5m`, `1h`, `2d` as seconds."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|d)?", text)
    if match is None or float(match[1]) <= 0:
        raise click.BadParameter(f"{text!r} is no duration such as 30s, 5m or 1h", param=parameter)
    return float(match[1]) * {"s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}[match[2]]


@dataclass(frozen=True, slots=True)
class _Core:
    """What commands here work with."""

    client: Connection
    settings: Settings
    secret: str

    @property
    def registry(self) -> Registry:
        return Registry(self._bucket(DEVICE_BUCKET), self.secret)

    @property
    def commands(self) -> CommandStore:
        return CommandStore(self._bucket(COMMAND_BUCKET))

    def _bucket(self, name: str) -> KvBucket:
        return KvBucket(self.client, name)

    async def record(self, action: str, kind: Kind, device: str, detail: dict[str, AuditValue]) -> None:
        """Write it down, with the device's name of today."""
        audit = AuditLog(self.client, self.secret)
        await audit.record(action, COMMAND_LINE, await daily_pseudonym(self.client, kind, device), detail)


@contextlib.asynccontextmanager
async def _core(settings: Settings) -> AsyncIterator[_Core]:
    async with at_the_core(settings) as client:
        yield _Core(client, settings, secret_of(settings))


# --- trace ---------------------------------------------------------------------------------------
@click.command()
@click.argument("device")
@click.option(
    "--reason", prompt="Why do you look at this device's positions", help="Goes into the audit log."
)
@click.option("--kind", type=click.Choice(KINDS), help="Of a device that isn't registered.")
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_LIMIT),
    default=DEFAULT_LIMIT,
    show_default=True,
    help="Messages at most.",
)
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON document.")
@core_and_site_options
def trace(device: str, reason: str, kind: Kind | None, limit: int, as_json: bool, settings: Settings) -> None:
    """Why is it (not) counted: its last messages, each with the rule that decided.

    \b
    headcount device trace k3vq2hbw5yxam7p4n6ts --reason "ticket 12: phone isn't counted"

    The messages of the log's last hour are judged once more, from nothing; what the counting worker
    knows stands beside. The look is written into the audit log.
    """
    if len(reason.split()) < 1 or len(reason.strip()) < 3:
        raise click.BadParameter("say why, in some words", param_hint="--reason")
    found = asyncio.run(_trace(settings, device, reason.strip(), kind, limit))
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    for line in shown(found):
        click.echo(line)


async def _trace(settings: Settings, device: str, reason: str, kind: Kind | None, limit: int) -> DeviceTrace:
    site = site_of(settings)
    async with _core(settings) as core:
        partitions = await partitions_of_log(core.client)
        registered = await core.registry.get(device)
        if registered is not None:
            kind = registered.kind
        elif kind is None and ID.fullmatch(device):
            kind = next(iter(await kinds_in_log(core.client, site.id, device, partitions)), None)
        if kind is None:
            raise _unknown(device)
        keys = PseudonymKeys(core.client)
        names = await keys.pseudonyms_of(kind, device)
        found = await DeviceTracer(site, partitions).trace(
            core.client, kind, device, limit=limit, names=names
        )
        if registered is None and is_unknown(found):
            raise _unknown(device)
        detail: dict[str, AuditValue] = {"reason": reason, "site": site.id, "rows": len(found.lines)}
        await core.record("positions.trace", kind, device, detail)
        return found


def _unknown(device: str) -> DeviceError:
    return DeviceError(
        f"device {device[:64]!r}",
        "isn't registered, and nothing was heard of it within the hour",
        "`headcount device list` has all that are registered",
    )


def shown(found: DeviceTrace) -> list[str]:
    """A trace as text."""
    since = f"from {found.since[11:19]}, with nothing known before"
    lines = [f"{found.kind} {found.device} on {found.site}: {found.messages} messages, judged {since}"]
    if found.truncated:
        lines.append("  (there were more within the hour than are read)")
    for line in found.lines:
        lines += _shown(line)
    lines += [f"{'':14}{_changed(change)}" for change in found.left]
    lines.append(f"now            in {_zones(found.zones)}")
    if found.live is None:
        lines.append("worker         doesn't answer")
    elif found.agrees:
        lines.append("worker         says the same")
    else:
        lines.append(f"worker         in {_zones(found.live.get('zones', []))}: it knows what was before")
    return lines


def _shown(line: TraceEntry) -> list[str]:
    what = line.verdict or line.what
    text = [f"{line.received[11:23]}  {what:<13}{line.rule:<6}{line.why}"]
    return text + [f"{'':14}{_changed(change)}" for change in line.changes]


def _changed(change: dict[str, Any]) -> str:
    sign = "enters" if change["type"] == "enter" else "leaves"
    return f"{sign} {change['zone']} at {str(change['t'])[11:23]} ({change['reason']})"


def _zones(zones: list[str]) -> str:
    return ", ".join(zones) or "no zone"


# --- commands --------------------------------------------------------------------------------------
@click.group("command")
@click.argument("device")
@click.pass_context
def command(ctx: click.Context, /, device: str) -> None:
    """Tell a device something: it is sent until it answers, or its time is over.

    \b
    headcount device command k3vq2hbw5yxam7p4n6ts interval --seconds 30
    headcount device command k3vq2hbw5yxam7p4n6ts report --wait
    headcount device command k3vq2hbw5yxam7p4n6ts pause --for 1h
    headcount device command k3vq2hbw5yxam7p4n6ts message "Please charge me"
    headcount device command k3vq2hbw5yxam7p4n6ts list
    """
    ctx.obj = device


@dataclass(frozen=True, slots=True)
class _Target:
    settings: Settings
    device: str
    kind: Kind | None = None

    async def give(
        self, command: CommandKind, expires_s: float, *, wait: bool, **fields: Any
    ) -> DeviceCommand:
        """Queue a command, and wait for its end where that is wanted."""
        async with _core(self.settings) as core:
            site, kind = await self._whose(core)
            made = await core.commands.add(
                site, kind, self.device, command, now_s=time.time(), expires_s=expires_s, **fields
            )
            await core.record(
                "command.add", kind, self.device, {"site": site, "command": command, "id": made.id}
            )
            while wait and made.state in OPEN_STATES:
                await asyncio.sleep(POLL_S)
                found = await core.commands.get(self.device, made.id)
                if found is None:
                    break
                made = found
            return made

    async def kept(self) -> list[DeviceCommand]:
        """All commands of the device."""
        async with _core(self.settings) as core:
            return await core.commands.of(self.device)

    async def withdraw(self, command: str) -> None:
        """Send a command no more."""
        async with _core(self.settings) as core:
            found = await core.commands.get(self.device, command)
            if found is None:
                raise DeviceError(f"command {command[:64]!r}", "isn't there", "`… command ID list` has all")
            await core.commands.withdraw(self.device, command)
            detail: dict[str, AuditValue] = {"site": found.site, "command": found.command, "id": found.id}
            await core.record("command.withdraw", found.kind, self.device, detail)

    async def _whose(self, core: _Core) -> tuple[str, Kind]:
        registered = await core.registry.get(self.device)
        if registered is not None:
            return registered.site, registered.kind
        if self.kind is None:
            raise DeviceError(
                f"device {self.device[:64]!r}",
                "isn't registered",
                "`headcount device list` has all; where devices need no account, add --kind",
            )
        return site_of(self.settings).id, self.kind


def _given(function: Callable[..., None]) -> Callable[..., None]:
    """The options of everything that is commanded; `settings` among them."""
    for option in (
        core_and_site_options,
        click.option("--kind", type=click.Choice(KINDS), help="Of a device that isn't registered."),
        click.option(
            "--expires",
            "expires_s",
            callback=seconds,
            default="1d",
            show_default=True,
            help="It is tried for so long.",
        ),
        click.option("--wait", is_flag=True, help="Until the device answers, or the command expires."),
    ):
        function = option(function)
    return function


def _give(
    device: str,
    command: CommandKind,
    fields: dict[str, Any],
    *,
    settings: Settings,
    kind: Kind | None,
    expires_s: float,
    wait: bool,
) -> None:
    target = _Target(settings, device, kind)
    made = asyncio.run(target.give(command, expires_s, wait=wait, **fields))
    click.echo(_told(made))
    if wait and made.state != "acknowledged":
        raise click.exceptions.Exit(1)


def _told(made: DeviceCommand) -> str:
    answer = f": {made.answer}" if made.answer else ""
    until = f" until {iso(made.expires)}" if made.state in OPEN_STATES else ""
    return f"{made.id}  {made.command:<9}{made.state}{until}{answer}"


@command.command()
@click.option(
    "--seconds", "interval_s", type=click.FloatRange(1, 86_400), required=True, help="From fix to fix."
)
@_given
@click.pass_obj
def interval(device: str, /, interval_s: float, **given: Any) -> None:
    """Send a fix every so many seconds."""
    _give(device, "interval", {"interval_s": interval_s}, **given)


@command.command()
@_given
@click.pass_obj
def report(device: str, /, **given: Any) -> None:
    """Send a fix now."""
    _give(device, "report", {}, **given)


@command.command()
@click.option("--for", "pause_s", callback=seconds, required=True, help="So long: 30s, 5m, 1h.")
@_given
@click.pass_obj
def pause(device: str, /, pause_s: float, **given: Any) -> None:
    """Send nothing for a while. Whoever is to be counted no more is paused in the registry instead."""
    _give(device, "pause", {"until": time.time() + pause_s}, **given)


@command.command()
@click.argument("text")
@_given
@click.pass_obj
def message(device: str, /, text: str, **given: Any) -> None:
    """Show a text, of 256 characters at most."""
    _give(device, "message", {"text": text}, **given)


@command.command("list")
@core_options
@click.pass_obj
def list_(device: str, settings: Settings) -> None:
    """What waits, and what was finished within a day, newest first."""
    for each in asyncio.run(_Target(settings, device).kept()):
        click.echo(_told(each))


@command.command()
@click.argument("id_", metavar="COMMAND")
@core_options
@click.pass_obj
def withdraw(device: str, id_: str, settings: Settings) -> None:
    """Send it no more, and erase it."""
    asyncio.run(_Target(settings, device).withdraw(id_))
