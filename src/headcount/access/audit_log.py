"""The audit log: a chain of entries, each with the hash of the previous one.

An entry's hash is an HMAC-SHA-256 over the entry and the hash of the previous one, with a key that is derived
from the deployment's secret. With the files, a backup or access to the stream, but without the secret, entries
can neither be changed nor added nor removed from the middle without being detected. The chain alone does not
show that its end is missing (compare it with a head that was stored elsewhere), nor what the holder of the
secret has changed.

Reads of one device's positions have its pseudonym in their NATS subject, so that the server's index finds them
among any number of other entries.

An entry's number is its sequence in the stream. Several writers extend one chain: the server accepts an entry
only after the entry that it names.
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

from headcount.errors import AuditError, LogError, StreamFullError, WrongRevisionError
from headcount.messages.times import iso
from headcount.messages.topics import AUDIT_STREAM, AUDIT_SUBJECT
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import StoredMessage, append, direct_scan, get_message, stream_info
from headcount.messaging.streams import AUDIT_AGE_S

AuditValue = str | int | float | bool | None

ACTION = re.compile(r"[a-z][a-z0-9-]{0,31}(\.[a-z][a-z0-9-]{0,31}){0,3}")
#: Longer texts are cut: their length is no reason not to record them.
MAX_TEXT = 200
MAX_VALUES = 16
_MAX_NAME = 40
#: Reads of one device's positions under one pseudonym, a day's, that are returned. A flood of them shows its actor.
MAX_READS = 10_000
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
#: A head as `verify` returns it.
HEAD_PATTERN = r"\d{1,15}:[0-9a-f]{64}"
#: Attempts of a writer when others were faster; more mean that something else is wrong.
_TRIES = 200
_ANSWER_S = 2.0
_BATCH = 500
#: An entry older than this may have been dropped by its age.
_AGED_S = AUDIT_AGE_S - 24 * 3600
#: Share of the log's size above which `verify` warns.
NEARLY_FULL = 0.9
_MAX_PROBLEMS = 100


class AuditEntry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An action of an actor on a subject."""

    n: int
    at: str  # RFC 3339 in UTC, by the writer's clock
    actor: str
    action: str  # dotted: `device.add`, `positions.read`
    subject: str
    detail: dict[str, AuditValue]
    prev: str  # the hash of the previous entry; "" = there is none, or it is unreadable
    hash: str  # hexadecimal


@dataclass(slots=True)
class ChainReport:
    """The result of verifying the log."""

    entries: int = 0
    first: int = 0  # its number; 0 = the log is empty
    head: str = ""  # `<number>:<hash>` of the newest entry, to be stored elsewhere
    used: float = 0.0  # share of the log's size
    problems: list[AuditError] = field(default_factory=list)  # the first hundred

    @property
    def intact(self) -> bool:
        """Whether the chain is unbroken."""
        return not self.problems


def audit_key(secret: str) -> bytes:
    """Derive the key of the chain from the deployment's secret."""
    return HKDF(SHA256(), 32, salt=None, info=b"headcount audit log").derive(secret.encode())


class AuditLog:
    """The audit log over one connection; every call raises LogError if the log does not answer."""

    def __init__(self, connection: Connection, secret: str) -> None:
        """Use the stream AUDIT with the deployment's secret."""
        self._connection = connection
        self._key = audit_key(secret)
        self._lock = asyncio.Lock()

    async def record(
        self, action: str, actor: str, subject: str = "", detail: Mapping[str, AuditValue] | None = None
    ) -> int:
        """Record that `actor` did `action`; return the entry's number. Long texts are cut.

        Raises:
            LogError: it is not stored; the caller must abort.
            ValueError: the action is not a dotted lower-case name.
        """
        if ACTION.fullmatch(action) is None:
            raise ValueError(f"{action!r} is not an action; use a dotted lower-case name")
        entry = AuditEntry(
            n=0,
            at=iso(time.time()),
            actor=_cut(actor),
            action=action,
            subject=_cut(subject),
            detail=_limit(detail or {}),
            prev="",
            hash="",
        )
        async with self._lock:  # writers of this process need not race each other
            for attempt in range(_TRIES):
                newest = await self._newest()
                if newest is not None:
                    entry.n, entry.prev = newest[0] + 1, newest[1]
                    entry.hash = self._hash(entry)
                    if await self._append(entry):
                        return entry.n
                await asyncio.sleep(random.uniform(0, 0.002 * min(attempt + 1, 25)))  # noqa: S311  # no secret
        raise LogError(f"the audit log: other writers were faster {_TRIES} times in a row")

    async def verify(
        self, remembered_head: str = "", on_progress: Callable[[int, int], None] | None = None
    ) -> ChainReport:
        """Verify the chain of the whole log.

        Args:
            remembered_head: `<number>:<hash>` of an earlier `verify`; "" = none.
            on_progress: called with the number of entries read, and of all.

        Raises:
            AuditError: `remembered_head` is malformed.
        """
        number, hash_ = _parse_head(remembered_head) if remembered_head else (0, "")
        state = await self._state()
        report = ChainReport(first=state.first if state.messages else 0, used=state.used)
        chain = _ChainVerifier(self._hash, report)
        async for message in self._read(state.first, state.last):
            entry = chain.verify(message.sequence, message.data)
            if message.sequence == number and (entry is None or not hmac.compare_digest(entry.hash, hash_)):
                chain.problem(number, "is not the remembered one")
            if on_progress is not None:
                on_progress(report.entries, state.messages)
        chain.end(state, number)
        return report

    async def entries(
        self, *, before: int | None = None, limit: int = 100, action: str = ""
    ) -> tuple[list[AuditEntry], int | None]:
        """Return the newest entries before a number, newest first, and the `before` of the next page (None: the last).

        `action` selects an action or a group of actions (`device`). Unreadable entries are left out; `verify`
        reports them.
        """
        state = await self._state()
        end = state.last if before is None else min(before - 1, state.last)
        found: list[AuditEntry] = []
        while end >= max(state.first, 1):
            start = max(state.first, 1, end - _BATCH + 1)
            block = [message.data async for message in self._read(start, end)]
            for data in reversed(block):
                entry = _decoded(data)
                if entry is None or not _matches(entry.action, action):
                    continue
                if len(found) == limit:
                    return found, found[-1].n
                found.append(entry)
            end = start - 1
        return found, None

    async def position_reads(self, pseudonym: str) -> list[AuditEntry]:
        """Return the reads of positions of the device with a pseudonym, oldest first, at most `MAX_READS`."""
        subject = AUDIT_SUBJECT.format(action=f"positions.*.{pseudonym}")
        found: list[AuditEntry] = []
        async for message in direct_scan(
            self._connection, AUDIT_STREAM, subject, page=_BATCH, timeout_s=_ANSWER_S
        ):
            entry = _decoded(message.data)
            if entry is not None and entry.subject == pseudonym:
                found.append(entry)
            if len(found) == MAX_READS:
                break
        return found

    def _hash(self, entry: AuditEntry) -> str:
        content = {name: getattr(entry, name) for name in AuditEntry.__struct_fields__ if name != "hash"}
        return hmac.new(self._key, msgspec.json.encode(content, order="sorted"), hashlib.sha256).hexdigest()

    async def _append(self, entry: AuditEntry) -> bool:
        """Store an entry after the last one; False: the last one has changed."""
        headers = {"Nats-Expected-Last-Sequence": str(entry.n - 1)}
        subject = AUDIT_SUBJECT.format(action=entry.action)
        if _matches(entry.action, "positions") and _TOKEN.fullmatch(entry.subject):
            subject = f"{subject}.{entry.subject}"
        try:
            await append(self._connection, subject, _encoded(entry), headers=headers, timeout_s=_ANSWER_S)
        except WrongRevisionError:
            return False
        except StreamFullError as error:
            raise LogError(
                "the audit log is full, so what must be recorded cannot be done. Its size is a share of the disk "
                "of the data folder: make room there and restart. Entries expire after 90 days"
            ) from error
        return True

    async def _newest(self) -> tuple[int, str] | None:
        """Return the last sequence and the hash of its entry; None: another writer came first meanwhile."""
        query = {"last_by_subj": "audit.>"}
        last = await get_message(self._connection, AUDIT_STREAM, query, timeout_s=_ANSWER_S)
        if last is None:  # the log is empty, or all entries have expired
            state = await self._state()
            return None if state.messages else (state.last, "")
        entry = _decoded(last.data)
        return last.sequence, "" if entry is None else entry.hash

    async def _state(self) -> _StreamState:
        info = await stream_info(self._connection, AUDIT_STREAM, timeout_s=_ANSWER_S)
        state = info.state
        used = state.bytes / max(info.config["max_bytes"], 1)
        return _StreamState(state.messages, state.first_seq, state.last_seq, used)

    def _read(self, first: int, last: int) -> AsyncIterator[StoredMessage]:
        """Yield all messages from one sequence to another, in order."""
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
class _StreamState:
    messages: int
    first: int
    last: int
    used: float  # share of its size


class _ChainVerifier:
    """Verifies entries one after the other."""

    def __init__(self, hash_: Callable[[AuditEntry], str], report: ChainReport) -> None:
        self._hash = hash_
        self._report = report
        self._expected = 0
        self._prev: str | None = None  # None: unknown, the previous entry has expired
        self._oldest: AuditEntry | None = None

    def verify(self, sequence: int, data: bytes) -> AuditEntry | None:
        """Verify the next entry; None: it is unreadable."""
        report = self._report
        report.entries += 1
        if self._expected and sequence != self._expected:
            self.problem(self._expected, f"is missing, and all before {sequence}")
        entry = _decoded(data)
        if self._expected == 0:
            self._oldest = entry
        if entry is None:
            self.problem(sequence, "is not an entry")
        else:
            self._check(sequence, entry, data)
        self._expected = sequence + 1
        self._prev = "" if entry is None else entry.hash
        report.head = f"{sequence}:{self._prev}"
        return entry

    def _check(self, sequence: int, entry: AuditEntry, data: bytes) -> None:
        if not hmac.compare_digest(entry.hash.encode(), self._hash(entry).encode()):
            self.problem(sequence, "was changed, or written without the deployment's secret")
        elif data != _encoded(entry):
            self.problem(sequence, "is not encoded as headcount encodes entries")
        elif entry.n != sequence:
            self.problem(sequence, f"has the number {entry.n}: it was moved")
        elif self._prev is not None and entry.prev != self._prev:
            self.problem(sequence, "does not follow the previous one")
        elif self._prev is None and sequence == 1 and entry.prev:
            self.problem(sequence, "follows a missing one")

    def end(self, state: _StreamState, remembered: int) -> None:
        """Verify both ends of the log."""
        young = self._oldest is not None and self._oldest.at > iso(time.time() - _AGED_S)
        if state.first > 1 and young:
            self.problem(1, f"is missing, and all before {state.first}, though none can have expired")
        if self._expected and self._expected != state.last + 1:
            self.problem(self._expected, f"is missing, and all up to {state.last}")
        if remembered and not state.messages:
            self.problem(remembered, "was remembered, but the log is empty")
        elif remembered > state.last:
            self.problem(remembered, f"was remembered, but the log ends at {state.last}")
        elif 0 < remembered < state.first and young:
            self.problem(remembered, f"was remembered, but the log begins at {state.first}")

    def problem(self, n: int, text: str) -> None:
        """Add a problem to the report."""
        if len(self._report.problems) < _MAX_PROBLEMS:
            self._report.problems.append(AuditError(n, text))


def _encoded(entry: AuditEntry) -> bytes:
    return msgspec.json.encode(entry, order="sorted")


def _decoded(data: bytes) -> AuditEntry | None:
    try:
        return msgspec.json.decode(data, type=AuditEntry)
    except msgspec.MsgspecError:
        return None


def _parse_head(head: str) -> tuple[int, str]:
    if re.fullmatch(HEAD_PATTERN, head.strip()) is None:
        raise AuditError(0, "a head is `<number>:<hash>`, as `headcount audit verify` prints it")
    number, _, hash_ = head.strip().partition(":")
    return int(number), hash_


def _matches(action: str, wanted: str) -> bool:
    return not wanted or action == wanted or action.startswith(f"{wanted}.")


def _cut(text: str) -> str:
    """Return a text that is short enough and valid in JSON."""
    text = text.encode(errors="replace").decode()
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _limit(detail: Mapping[str, AuditValue]) -> dict[str, AuditValue]:
    some = list(detail.items())[:MAX_VALUES]
    return {name[:_MAX_NAME]: _cut(value) if isinstance(value, str) else value for name, value in some}
