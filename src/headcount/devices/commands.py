"""Commands to devices: stored until answered or expired, and a day longer; `command_delivery` sends them.

    queued ──▶ sent ──▶ acknowledged | refused      the device's answer on …/ack
       └────────┴─────▶ expired                     no answer in time

`sent` means that the broker has the command; only the device's answer shows that it arrived.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from headcount.errors import DeviceError
from headcount.messages.commands import CommandAck, CommandKind, CommandMessage
from headcount.messages.records import AppRegion, DeviceCommand
from headcount.messages.topics import ID, Kind
from headcount.messaging.fix_json import plain
from headcount.messaging.kv import KvBucket

#: Maximum number of open and of stored commands per device.
MAX_OPEN, MAX_STORED = 20, 200
MAX_TEXT_CHARS = 256
DEFAULT_EXPIRES_S, MAX_EXPIRES_S = 86_400.0, 7 * 86_400.0
INTERVAL_RANGE_S = (1.0, 86_400.0)
#: Time for which a finished command is stored.
RETENTION_S = 86_400.0
OPEN_STATES = frozenset({"queued", "sent"})
#: Longer answers are ignored.
MAX_ACK_BYTES = 4096
COMMAND_ID = re.compile(r"[0-9a-f]{16}")
_ATTEMPTS = 8


class CommandStore:
    """The commands of all devices, in the bucket COMMAND; every call raises LogError if NATS does not answer."""

    def __init__(self, bucket: KvBucket) -> None:
        self._bucket = bucket

    # --- for operators ---------------------------------------------------------------------------
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
        regions: list[AppRegion] | None = None,
    ) -> DeviceCommand:
        """Make a command that `queue` can queue.

        Args:
            site: of the device.
            kind: of the device.
            device: its id.
            command: `interval` (with interval_s), `report`, `pause` (with until, Unix seconds), `message` (with
                text), `zones` (with regions) or `clear_zones`.
            now_s: Unix seconds.
            expires_s: seconds until it expires.
            interval_s: seconds between two fixes.
            until: when the pause ends.
            text: to show on the device.
            regions: of the site and its zones.

        Raises:
            DeviceError: the command is not valid, or the device has too many.
        """
        made = DeviceCommand(
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
            regions=regions,
        )
        validate_command(made)
        stored = await self.of(device)
        if sum(each.state in OPEN_STATES for each in stored) >= MAX_OPEN or len(stored) >= MAX_STORED:
            remedy = "Withdraw some, or wait for the device's answers"
            raise DeviceError("command", f"the device has {MAX_OPEN} open commands already", remedy)
        return made

    async def queue(self, made: DeviceCommand) -> None:
        """Store a command, which is sent from then on."""
        await self._bucket.replace(command_key(made), msgspec.json.encode(made), 0)

    async def add(
        self, site: str, kind: Kind, device: str, command: CommandKind, **options: Any
    ) -> DeviceCommand:
        """Prepare and queue a command; see `prepare`."""
        made = await self.prepare(site, kind, device, command, **options)
        await self.queue(made)
        return made

    async def of(self, device: str) -> list[DeviceCommand]:
        """The commands of a device, newest first."""
        if ID.fullmatch(device) is None:  # a key could contain wildcards
            return []
        entries = await self._bucket.newest(f"{device}.*")
        found = [msgspec.json.decode(entry.value, type=DeviceCommand) for entry in entries.values()]
        return sorted(found, key=lambda command: (command.created, command.id), reverse=True)

    async def get(self, device: str, command: str) -> DeviceCommand | None:
        """One command of a device."""
        return (await self._entry(device, command))[0]

    async def withdraw(self, device: str, command: str) -> bool:
        """Stop sending a command and erase it; False: it does not exist."""

        def withdrawn(found: DeviceCommand) -> DeviceCommand:
            return msgspec.structs.replace(found, state="expired", text=None, answer="withdrawn")

        # the delivery is notified of writes, not of erasures
        if await self.update(device, command, withdrawn) is None:
            return False
        await self.erase(device, command)
        return True

    async def erase_all(self, device: str) -> int:
        """Overwrite all commands of a device; returns their number."""
        stored = await self.of(device)
        for each in stored:
            await self.withdraw(device, each.id)
        return len(stored)

    # --- for the delivery ------------------------------------------------------------------------
    async def all(self) -> list[DeviceCommand]:
        """All stored commands."""
        entries = await self._bucket.newest()
        return [msgspec.json.decode(entry.value, type=DeviceCommand) for entry in entries.values()]

    async def mark_sent(self, command: DeviceCommand, now_s: float) -> None:
        """Record that the broker has accepted a command for the first time."""

        def changed(found: DeviceCommand) -> DeviceCommand | None:
            return (
                msgspec.structs.replace(found, state="sent", sent=now_s) if found.state == "queued" else None
            )

        await self.update(command.device, command.id, changed)

    async def record_answer(
        self, site: str, kind: str, device: str, ack: CommandAck, now_s: float
    ) -> DeviceCommand | None:
        """Record a device's answer; None: no open command matches it."""
        state = "acknowledged" if ack.ok else "refused"

        def changed(found: DeviceCommand) -> DeviceCommand | None:
            if found.state not in OPEN_STATES or (found.site, found.kind) != (site, kind):
                return None
            text = "".join(filter(str.isprintable, ack.text))[:MAX_TEXT_CHARS]
            return msgspec.structs.replace(found, state=state, answered=now_s, answer=text)

        return await self.update(device, ack.id, changed)

    async def expire(self, command: DeviceCommand, now_s: float) -> None:
        """Mark an open command as expired."""

        def changed(found: DeviceCommand) -> DeviceCommand | None:
            expired = found.state in OPEN_STATES and found.expires <= now_s
            return msgspec.structs.replace(found, state="expired") if expired else None

        await self.update(command.device, command.id, changed)

    async def erase(self, device: str, command: str) -> None:
        """Overwrite a command on disk."""
        if ID.fullmatch(device) is not None and COMMAND_ID.fullmatch(command) is not None:
            await self._bucket.erase(f"{device}.{command}")

    async def update(
        self, device: str, command: str, change: Callable[[DeviceCommand], DeviceCommand | None]
    ) -> DeviceCommand | None:
        """Change a command by compare-and-set; None: it does not exist, or `change` returned None."""
        for _ in range(_ATTEMPTS):
            found, revision = await self._entry(device, command)
            after = None if found is None else change(found)
            if after is None:
                return None
            if await self._bucket.rewrite(command_key(after), msgspec.json.encode(after), revision):
                return after
        return None

    async def _entry(self, device: str, command: str) -> tuple[DeviceCommand | None, int]:
        if ID.fullmatch(device) is None or COMMAND_ID.fullmatch(command) is None:
            return None, 0
        entry = await self._bucket.get(f"{device}.{command}")
        if entry is None:
            return None, 0
        return msgspec.json.decode(entry.value, type=DeviceCommand), entry.revision


def command_key(command: DeviceCommand) -> str:
    """The key of a command."""
    return f"{command.device}.{command.id}"


def ends_s(command: DeviceCommand) -> float:
    """When an open command expires, or a finished one is erased (Unix seconds)."""
    if command.state in OPEN_STATES:
        return command.expires
    return (command.answered or command.expires) + RETENTION_S


def command_message(command: DeviceCommand) -> CommandMessage:
    """The message to the device."""
    return CommandMessage(
        id=command.id,
        command=command.command,
        expires=command.expires,
        interval_s=command.interval_s,
        until=command.until,
        text=command.text,
    )


def decode_ack(payload: bytes) -> CommandAck | None:
    """Decode a device's answer; None: it is not valid."""
    if len(payload) > MAX_ACK_BYTES:
        return None
    try:
        ack = msgspec.json.decode(plain(payload), type=CommandAck)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return ack if COMMAND_ID.fullmatch(ack.id) else None


def validate_command(command: DeviceCommand) -> None:
    """Check the fields of a command.

    Raises:
        DeviceError: a field is not valid.
    """
    if ID.fullmatch(command.device) is None:
        raise DeviceError(
            f"device {command.device[:64]!r}",
            "is not a valid id",
            "`headcount device list` shows all devices",
        )
    lasts_s = command.expires - command.created
    if not 1.0 <= lasts_s <= MAX_EXPIRES_S:
        raise DeviceError(
            "expires", f"must be within 1 second and {MAX_EXPIRES_S / 86_400:g} days", "Change it"
        )
    fields = {"interval": "interval_s", "pause": "until", "message": "text", "zones": "regions"}
    wanted = fields.get(command.command)
    for name in fields.values():
        if (getattr(command, name) is not None) != (name == wanted):
            problem = "is required" if name == wanted else "is not allowed"
            raise DeviceError(
                f"command {command.command}", f"{name} {problem}", "See docs/guides/commands.md"
            )
    _check_values(command)


def _check_values(command: DeviceCommand) -> None:
    min_s, max_s = INTERVAL_RANGE_S
    if command.interval_s is not None and not min_s <= command.interval_s <= max_s:
        raise DeviceError("interval_s", f"must be within {min_s:g} and {max_s:g} seconds", "Change it")
    if command.until is not None:
        ahead_s = command.until - command.created
        if not math.isfinite(ahead_s) or not 0 < ahead_s <= MAX_EXPIRES_S:
            raise DeviceError(
                "until", f"must be within the next {MAX_EXPIRES_S / 86_400:g} days", "Change it"
            )
    if command.text is not None and not (0 < len(command.text) <= MAX_TEXT_CHARS and _is_text(command.text)):
        raise DeviceError("text", f"must be 1 to {MAX_TEXT_CHARS} printable characters", "Change it")


def _is_text(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)
