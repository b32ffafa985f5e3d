"""Commands to devices: kept until they are answered or over, and a day longer; see `delivery` for sending.

    queued ──▶ sent ──▶ acknowledged | refused      what the device says on …/ack
       └────────┴─────▶ expired                     nobody said anything in time

`sent` says that the broker has it; that it arrived is only known when the device answers.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from headcount.errors import DeviceError
from headcount.messages.commands import Ack, CommandKind, CommandSent
from headcount.messages.records import Command
from headcount.messages.topics import ID, Kind
from headcount.messaging.kv import Bucket

#: Of one device: that wait for an answer, and that are kept at all.
MAX_OPEN, MAX_STORED = 20, 200
MAX_TEXT_CHARS = 256
DEFAULT_EXPIRES_S, MAX_EXPIRES_S = 86_400.0, 7 * 86_400.0
INTERVAL_RANGE_S = (1.0, 86_400.0)
#: How long a finished command can still be looked at.
RETENTION_S = 86_400.0
OPEN_STATES = frozenset({"queued", "sent"})
#: What an answer may have; longer ones are none.
MAX_ACK_BYTES = 4096
COMMAND_ID = re.compile(r"[0-9a-f]{16}")
_ATTEMPTS = 8


class CommandStore:
    """The commands of all devices, in the bucket COMMAND. Every call raises LogError if the log doesn't answer."""

    def __init__(self, bucket: Bucket) -> None:
        """Work on the bucket COMMAND."""
        self._bucket = bucket

    # --- for those who command -------------------------------------------------------------------
    async def prepare(
        self,
        site: str,
        kind: Kind,
        device: str,
        command: CommandKind,
        *,
        now_s: float,
        expires_s: float = DEFAULT_EXPIRES_S,
        interval_s: float | None = None,
        until: float | None = None,
        text: str | None = None,
    ) -> Command:
        """Make a command that `queue` can queue.

        Args:
            site: of the device.
            kind: of the device.
            device: its id.
            command: `interval` (with interval_s), `report`, `pause` (with until, Unix seconds) or `command_message` (with text).
            now_s: Unix seconds.
            expires_s: for so many seconds it is tried.
            interval_s: a fix every so many seconds.
            until: when the device goes on.
            text: what it shows.

        Raises:
            DeviceError: the command isn't usable, or too many wait for this device.
        """
        made = Command(
            id=secrets.token_hex(8),
            device=device,
            kind=kind,
            site=site,
            command=command,
            created=now_s,
            expires=now_s + expires_s,
            interval_s=interval_s,
            until=until,
            text=text,
        )
        validate_command(made)
        kept = await self.of(device)
        if sum(each.state in OPEN_STATES for each in kept) >= MAX_OPEN or len(kept) >= MAX_STORED:
            raise DeviceError(
                "command",
                f"{MAX_OPEN} wait for this device already",
                "Withdraw some, or wait for its answers",
            )
        return made

    async def queue(self, made: Command) -> None:
        """Store a command, which is sent from then on."""
        await self._bucket.replace(command_key(made), msgspec.json.encode(made), 0)

    async def add(self, site: str, kind: Kind, device: str, command: CommandKind, **options: Any) -> Command:
        """Prepare and queue a command; see `prepare`."""
        made = await self.prepare(site, kind, device, command, **options)
        await self.queue(made)
        return made

    async def of(self, device: str) -> list[Command]:
        """The commands of a device, newest first."""
        if ID.fullmatch(device) is None:  # keys may hold wildcards
            return []
        entries = await self._bucket.newest(f"{device}.*")
        found = [msgspec.json.decode(entry.value, type=Command) for entry in entries.values()]
        return sorted(found, key=lambda command: (command.created, command.id), reverse=True)

    async def get(self, device: str, command: str) -> Command | None:
        """One command."""
        return (await self._entry(device, command))[0]

    async def withdraw(self, device: str, command: str) -> bool:
        """Send it no more and erase it; whether there was one."""

        def withdrawn(found: Command) -> Command:
            return msgspec.structs.replace(found, state="expired", text=None, answer="withdrawn")

        # who delivers is told by what is written, and not by what is erased
        if await self.update(device, command, withdrawn) is None:
            return False
        await self.erase(device, command)
        return True

    async def erase_all(self, device: str) -> int:
        """Overwrite everything of a device; how many commands that were."""
        kept = await self.of(device)
        for each in kept:
            await self.withdraw(device, each.id)
        return len(kept)

    # --- for those who deliver -------------------------------------------------------------------
    async def all(self) -> list[Command]:
        """All that is kept."""
        entries = await self._bucket.newest()
        return [msgspec.json.decode(entry.value, type=Command) for entry in entries.values()]

    async def sent(self, command: Command, now_s: float) -> None:
        """The broker has taken it for the first time."""

        def changed(found: Command) -> Command | None:
            return (
                msgspec.structs.replace(found, state="sent", sent=now_s) if found.state == "queued" else None
            )

        await self.update(command.device, command.id, changed)

    async def answered(self, site: str, kind: str, device: str, ack: Ack, now_s: float) -> Command | None:
        """Take a device's answer; None if it waits for none."""
        state = "acknowledged" if ack.ok else "refused"

        def changed(found: Command) -> Command | None:
            if found.state not in OPEN_STATES or (found.site, found.kind) != (site, kind):
                return None
            text = "".join(filter(str.isprintable, ack.text))[:MAX_TEXT_CHARS]
            return msgspec.structs.replace(found, state=state, answered=now_s, answer=text)

        return await self.update(device, ack.id, changed)

    async def expire(self, command: Command, now_s: float) -> None:
        """Its time is over."""

        def changed(found: Command) -> Command | None:
            over = found.state in OPEN_STATES and found.expires <= now_s
            return msgspec.structs.replace(found, state="expired") if over else None

        await self.update(command.device, command.id, changed)

    async def erase(self, device: str, command: str) -> None:
        """Overwrite it on disk."""
        if ID.fullmatch(device) is not None and COMMAND_ID.fullmatch(command) is not None:
            await self._bucket.erase(f"{device}.{command}")

    async def update(
        self, device: str, command: str, change: Callable[[Command], Command | None]
    ) -> Command | None:
        """Change a command by compare-and-set; `change` says None where there is nothing to change."""
        for _ in range(_ATTEMPTS):
            found, revision = await self._entry(device, command)
            after = None if found is None else change(found)
            if after is None:
                return None
            if (
                await self._bucket.rewrite(command_key(after), msgspec.json.encode(after), revision)
                is not None
            ):
                return after
        return None

    async def _entry(self, device: str, command: str) -> tuple[Command | None, int]:
        if ID.fullmatch(device) is None or COMMAND_ID.fullmatch(command) is None:
            return None, 0
        key = f"{device}.{command}"
        entry = (await self._bucket.newest(key)).get(key)
        return (
            (None, 0) if entry is None else (msgspec.json.decode(entry.value, type=Command), entry.revision)
        )


def command_key(command: Command) -> str:
    """Under which a command is kept."""
    return f"{command.device}.{command.id}"


def ends_s(command: Command) -> float:
    """When a command stops being looked after: it expires, or, finished, is erased (Unix seconds)."""
    if command.state in OPEN_STATES:
        return command.expires
    return (command.answered or command.expires) + RETENTION_S


def command_message(command: Command) -> CommandSent:
    """What the device gets."""
    return CommandSent(
        id=command.id,
        command=command.command,
        expires=command.expires,
        interval_s=command.interval_s,
        until=command.until,
        text=command.text,
    )


def decode_ack(payload: bytes) -> Ack | None:
    """A device's answer; None where it is none."""
    if len(payload) > MAX_ACK_BYTES:
        return None
    try:
        ack = msgspec.json.decode(payload, type=Ack)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return ack if COMMAND_ID.fullmatch(ack.id) else None


def validate_command(command: Command) -> None:
    """Refuse what no device could do.

    Raises:
        DeviceError: with the field, and what it may be.
    """
    if ID.fullmatch(command.device) is None:
        raise DeviceError(
            f"device {command.device[:64]!r}", "is no id", "`headcount device list` has all of them"
        )
    lasts_s = command.expires - command.created
    if not 1.0 <= lasts_s <= MAX_EXPIRES_S:
        raise DeviceError(
            "expires", f"is not within 1 second and {MAX_EXPIRES_S / 86_400:g} days", "Choose another"
        )
    wanted = {"interval": "interval_s", "pause": "until", "message": "text"}.get(command.command)
    for name in ("interval_s", "until", "text"):
        if (getattr(command, name) is not None) != (name == wanted):
            problem = "is missing" if name == wanted else "doesn't go with it"
            raise DeviceError(
                f"command {command.command}", f"{name} {problem}", "See docs/guides/commands.md"
            )
    _check_values(command)


def _check_values(command: Command) -> None:
    least, most = INTERVAL_RANGE_S
    if command.interval_s is not None and not least <= command.interval_s <= most:
        raise DeviceError("interval_s", f"is not within {least:g} and {most:g} seconds", "Choose another")
    if command.until is not None:
        ahead_s = command.until - command.created
        if not math.isfinite(ahead_s) or not 0 < ahead_s <= MAX_EXPIRES_S:
            raise DeviceError(
                "until", f"is not within the next {MAX_EXPIRES_S / 86_400:g} days", "Choose another"
            )
    if command.text is not None and not (0 < len(command.text) <= MAX_TEXT_CHARS and _is_text(command.text)):
        raise DeviceError("text", f"is not 1 to {MAX_TEXT_CHARS} printable characters", "Shorten it")


def _is_text(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)
