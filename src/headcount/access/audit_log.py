"""The audit log: who has done what, each entry chained to the one before.

An entry's hash is an HMAC-SHA-256 under a key that is derived from the deployment's secret, over all of
the entry with the hash of the one before. So whoever has the files, a backup or a way into the stream, but
not the secret, can neither change an entry nor write one, nor take one out of the middle, without it being
found. Two things the chain alone can't show: that its newest end is missing (compare with a head that was
noted elsewhere), and what somebody did who has the secret: to them the whole chain is only bytes.

An entry's number is its sequence in the stream; several writers keep one chain because the server takes
an entry only as the one after the entry that it names.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from headcount.errors import AuditError, LogError, WrongRevisionError
from headcount.messages.times import iso
from headcount.messages.topics import AUDIT_STREAM, AUDIT_SUBJECT
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import StoredMessage, append, direct_scan, get_message, stream_info
from headcount.messaging.streams import AUDIT_AGE_S

AuditValue = str | int | float | bool | None

ACTION = re.compile(r"[a-z][a-z0-9-]{0,31}(\.[a-z][a-z0-9-]{0,31}){0,3}")
#: What is longer is cut: that something is long is no reason not to write it down.
MAX_TEXT = 500
MAX_VALUES = 16
_MAX_NAME = 40
#: A head as `verify` gives it.
HEAD_PATTERN = r"\d{1,15}:[0-9a-f]{64}"
#: Writers who came second try again; with so many in a row something else is wrong.
_TRIES = 200
_ANSWER_S = 2.0
_BATCH = 500
#: An entry older than this may have been dropped by its age.
_AGED_S = AUDIT_AGE_S - 24 * 3600
_FULL = 0.9
_MAX_PROBLEMS = 100


class AuditEntry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Who (actor) has done what (action) to whom (subject)."""

    n: int
    at: str  # RFC 3339 in UTC, by the writer's clock
    actor: str
    action: str  # dotted: `device.add`, `positions.read`
    subject: str
    detail: dict[str, AuditValue]
    prev: str  # the hash of the entry before; "" = there is none, or it is unreadable
    hash: str  # hexadecimal


@dataclass(slots=True)
class ChainReport:
    """What a walk over the log has found."""

    entries: int = 0
    first: int = 0  # its number; 0 = the log is empty
    head: str = ""  # `<number>:<hash>` of the newest entry: to be kept elsewhere
    problems: list[AuditError] = field(default_factory=list)  # the first hundred

    @property
    def intact(self) -> bool:
        """Whether everything fits together."""
        return not self.problems


def audit_key(secret: str) -> bytes:
    """The key of the chain, from the deployment's secret."""
    return HKDF(SHA256(), 32, salt=None, info=b"headcount audit log").derive(secret.encode())


class AuditLog:
    """The audit log over one connection; every call raises LogError if the log doesn't answer."""

    def __init__(self, connection: Connection, secret: str) -> None:
        """Use the stream AUDIT, which `streams` has made, with the deployment's secret."""
        self._connection = connection
        self._key = audit_key(secret)
        self._turn = asyncio.Lock()

    async def record(
        self, action: str, actor: str, subject: str = "", detail: Mapping[str, AuditValue] | None = None
    ) -> int:
        """Write down that `actor` has done `action`; the entry's number. What is too long is cut.

        Raises:
            LogError: it isn't stored; what it is about had better not happen then.
            ValueError: the action is no dotted lower-case name.
        """
        if ACTION.fullmatch(action) is None:
            raise ValueError(f"{action!r} is no action: use a dotted lower-case name")
        entry = AuditEntry(
            n=0,
            at=iso(time.time()),
            actor=_cut(actor),
            action=action,
            subject=_cut(subject),
            detail=_bounded(detail or {}),
            prev="",
            hash="",
        )
        async with self._turn:  # our own writers needn't race each other
            for attempt in range(_TRIES):
                last, entry.prev = await self._newest()
                entry.n = last + 1
                entry.hash = self._hash(entry)
                if await self._append(entry):
                    return entry.n
                await asyncio.sleep(random.uniform(0, 0.002 * min(attempt + 1, 25)))  # noqa: S311  # no secret
        raise LogError(f"the audit log: others were faster {_TRIES} times in a row")

    async def verify(
        self, remembered_head: str = "", on_progress: Callable[[int, int], None] | None = None
    ) -> ChainReport:
        """Walk over the whole log and look whether everything fits together.

        Args:
            remembered_head: `<number>:<hash>` as an earlier `verify` gave it; "" = none.
            on_progress: called with how many entries have been read, and how many there are.

        Raises:
            AuditError: `remembered_head` isn't of that form.
        """
        number, hash_ = _parsed(remembered_head) if remembered_head else (0, "")
        state = await self._state()
        checked = ChainReport(first=state.first if state.messages else 0)
        chain = _Chain(self._hash, checked)
        async for message in self._read(state.first, state.last):
            entry = chain.follow(message.sequence, message.data)
            if message.sequence == number and (entry is None or not hmac.compare_digest(entry.hash, hash_)):
                chain.problem(number, "isn't the one that was remembered")
            if on_progress is not None:
                on_progress(checked.entries, state.messages)
        chain.end(state, number)
        return checked

    async def entries(
        self, *, before: int | None = None, limit: int = 100, action: str = ""
    ) -> tuple[list[AuditEntry], int | None]:
        """The newest entries before a number, newest first; and before which to go on, None at the end.

        `action` chooses those of an action or a group of actions (`device`). Entries that can't be
        read are left out here; `verify` names them.
        """
        state = await self._state()
        end = state.last if before is None else min(before - 1, state.last)
        found: list[AuditEntry] = []
        while end >= max(state.first, 1):
            start = max(state.first, 1, end - _BATCH + 1)
            block = [message.data async for message in self._read(start, end)]
            for data in reversed(block):
                entry = _decoded(data)
                if entry is None or not _of(entry.action, action):
                    continue
                if len(found) == limit:
                    return found, found[-1].n
                found.append(entry)
            end = start - 1
        return found, None

    def _hash(self, entry: AuditEntry) -> str:
        told = {name: getattr(entry, name) for name in AuditEntry.__struct_fields__ if name != "hash"}
        return hmac.new(self._key, msgspec.json.encode(told, order="sorted"), hashlib.sha256).hexdigest()

    async def _append(self, entry: AuditEntry) -> bool:
        """Store an entry as the one after the last; False: there is a newer last one."""
        headers = {"Nats-Expected-Last-Sequence": str(entry.n - 1)}
        subject = AUDIT_SUBJECT.format(action=entry.action)
        try:
            await append(self._connection, subject, _encoded(entry), headers=headers, timeout_s=_ANSWER_S)
        except WrongRevisionError:
            return False
        return True

    async def _newest(self) -> tuple[int, str]:
        """The last sequence and the hash of the entry there."""
        query = {"last_by_subj": "audit.>"}
        last = await get_message(self._connection, AUDIT_STREAM, query, timeout_s=_ANSWER_S)
        if last is None:  # nothing there: never, or not for so long that all are gone
            return (await self._state()).last, ""
        entry = _decoded(last.data)
        return last.sequence, "" if entry is None else entry.hash

    async def _state(self) -> _State:
        info = await stream_info(self._connection, AUDIT_STREAM, timeout_s=_ANSWER_S)
        state, max_bytes = info.state, info.config["max_bytes"]
        full = max_bytes > 0 and state.bytes > _FULL * max_bytes
        return _State(state.messages, state.first_seq, state.last_seq, full)

    def _read(self, first: int, last: int) -> AsyncIterator[StoredMessage]:
        """All messages from one sequence to another, in their order."""
        return direct_scan(
            self._connection,
            AUDIT_STREAM,
            "audit.>",
            first=first,
            last=last,
            page=_BATCH,
            timeout_s=_ANSWER_S,
        )


@dataclass(frozen=True, slots=True)
class _State:
    messages: int
    first: int
    last: int
    full: bool


class _Chain:
    """Follows the entries one after the other."""

    def __init__(self, hash_: Callable[[AuditEntry], str], checked: ChainReport) -> None:
        self._hash = hash_
        self._checked = checked
        self._expected = 0
        self._prev: str | None = None  # None: not known, the entry before isn't kept
        self._oldest: AuditEntry | None = None

    def follow(self, sequence: int, data: bytes) -> AuditEntry | None:
        """Look at the next entry; None: it isn't one."""
        checked = self._checked
        checked.entries += 1
        if self._expected and sequence != self._expected:
            self.problem(self._expected, f"is missing, and all before {sequence}")
        entry = _decoded(data)
        if self._expected == 0:
            self._oldest = entry
        if entry is None:
            self.problem(sequence, "isn't an entry")
        else:
            self._check(sequence, entry, data)
        self._expected = sequence + 1
        self._prev = "" if entry is None else entry.hash
        checked.head = f"{sequence}:{self._prev}"
        return entry

    def _check(self, sequence: int, entry: AuditEntry, data: bytes) -> None:
        if not hmac.compare_digest(entry.hash.encode(), self._hash(entry).encode()):
            self.problem(sequence, "has been changed, or was written without the deployment's secret")
        elif data != _encoded(entry):
            self.problem(sequence, "isn't written as headcount writes it")
        elif entry.n != sequence:
            self.problem(sequence, f"says that it is entry {entry.n}: its place isn't its own")
        elif self._prev is not None and entry.prev != self._prev:
            self.problem(sequence, "doesn't follow the one before")
        elif self._prev is None and sequence == 1 and entry.prev:
            self.problem(sequence, "follows one that is missing")

    def end(self, state: _State, remembered: int) -> None:
        """Look at what only the whole shows: both ends."""
        young = self._oldest is not None and self._oldest.at > iso(time.time() - _AGED_S)
        if state.first > 1 and young and not state.full:
            self.problem(1, f"is missing, and all before {state.first}, though none can be too old")
        if self._expected and self._expected != state.last + 1:
            self.problem(self._expected, f"is missing, and all up to {state.last}")
        if remembered and not state.messages:
            self.problem(remembered, "was remembered, but the log is empty")
        elif remembered > state.last:
            self.problem(remembered, f"was remembered, but the log ends at {state.last}")
        elif 0 < remembered < state.first and not state.full:
            self.problem(remembered, f"was remembered, but the log begins at {state.first}")

    def problem(self, n: int, text: str) -> None:
        """Note a problem."""
        if len(self._checked.problems) < _MAX_PROBLEMS:
            self._checked.problems.append(AuditError(n, text))


def _encoded(entry: AuditEntry) -> bytes:
    return msgspec.json.encode(entry, order="sorted")


def _decoded(data: bytes) -> AuditEntry | None:
    try:
        return msgspec.json.decode(data, type=AuditEntry)
    except msgspec.MsgspecError:
        return None


def _parsed(head: str) -> tuple[int, str]:
    if re.fullmatch(HEAD_PATTERN, head.strip()) is None:
        raise AuditError(0, "a remembered head is `<number>:<hash>`, as `headcount audit verify` prints it")
    number, _, hash_ = head.strip().partition(":")
    return int(number), hash_


def _of(action: str, wanted: str) -> bool:
    return not wanted or action == wanted or action.startswith(f"{wanted}.")


def _cut(text: str) -> str:
    """A text that is short enough and that JSON can hold."""
    text = text.encode(errors="replace").decode()
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _bounded(detail: Mapping[str, AuditValue]) -> dict[str, AuditValue]:
    some = list(detail.items())[:MAX_VALUES]
    return {name[:_MAX_NAME]: _cut(value) if isinstance(value, str) else value for name, value in some}
