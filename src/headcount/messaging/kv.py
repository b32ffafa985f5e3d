"""A key-value bucket: all newest values with one request, and writes by compare-and-set.

All times are the server's, so clocks needn't agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headcount.errors import WrongRevisionError
from headcount.messaging import jetstream
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import StoredMessage

_ANSWER_S = 1.0
#: Of a page of many values: a server that reads them from disk takes its time.
_PAGE_S = 10.0


@dataclass(frozen=True, slots=True)
class KvEntry:
    """A key's newest value, the revision to compare with, and when the server received it (Unix seconds)."""

    value: bytes
    revision: int
    stored_s: float


class KvBucket:
    """One bucket over one connection; every call raises LogError if the core doesn't answer."""

    def __init__(self, connection: Connection, name: str, *, timeout_s: float = _ANSWER_S) -> None:
        self._connection = connection
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."
        self._timeout_s = timeout_s

    async def newest(self, keys: str = ">") -> dict[str, KvEntry]:
        """The newest value of each key that `keys` matches and that isn't deleted.

        With three replicas any of them answers, so what has just been written may be missing:
        a change that depends on it is written by compare-and-set.
        """
        pattern = self._prefix + keys
        query = {"multi_last": [pattern]}
        messages, _, status = await jetstream.direct_get(
            self._connection, self._stream, query, timeout_s=self._timeout_s
        )
        if status == jetstream.TOO_MANY:
            scan = jetstream.direct_scan(self._connection, self._stream, pattern, timeout_s=_PAGE_S)
            messages = [message async for message in scan]
        return self._entries(messages)

    async def get(self, key: str) -> KvEntry | None:
        """The newest value of one key, as `newest` finds it."""
        message = await jetstream.direct_last(
            self._connection, self._stream, self._prefix + key, timeout_s=self._timeout_s
        )
        return self._entries([message]).get(key) if message is not None else None

    async def leaders(self, key: str) -> KvEntry | None:
        """As `get`, but from the leader of the bucket, which has everything that was written."""
        query = {"last_by_subj": self._prefix + key}
        message = await jetstream.get_message(
            self._connection, self._stream, query, timeout_s=self._timeout_s
        )
        return self._entries([message]).get(key) if message is not None else None

    async def keys(self, pattern: str) -> list[str]:
        """The keys that match a pattern, deleted ones included until their mark is removed."""
        subjects = await jetstream.subjects(
            self._connection, self._stream, self._prefix + pattern, timeout_s=self._timeout_s
        )
        return [subject.removeprefix(self._prefix) for subject in subjects]

    def _entries(self, messages: Iterable[StoredMessage]) -> dict[str, KvEntry]:
        entries: dict[str, KvEntry] = {}
        for message in messages:  # of a key with more than one, the newest comes last
            key = message.subject.removeprefix(self._prefix)
            if message.data:
                entries[key] = KvEntry(message.data, message.sequence, message.stored_s)
            else:  # deleted
                entries.pop(key, None)
        return entries

    async def info(self) -> jetstream.StreamInfo:
        """State of the bucket, and the server's time, by the clock that stamps its values."""
        return await jetstream.stream_info(self._connection, self._stream, timeout_s=self._timeout_s)

    async def now_s(self) -> float:
        """The server's time (Unix seconds)."""
        return (await self.info()).now_s

    async def put(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        """Write a key, whatever is there; with `ttl_s` the server removes it after that. The new revision."""
        return await self._put(key, value, _ttl(ttl_s))

    async def replace(self, key: str, value: bytes, revision: int, *, ttl_s: int | None = None) -> int | None:
        """Write a key whose revision is still this one (0: there is none). None: it isn't."""
        expected = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        try:
            return await self._put(key, value, expected | _ttl(ttl_s))
        except WrongRevisionError:
            return None

    async def delete(self, key: str, *, ttl_s: int) -> None:
        """Remove a key; the mark that replaces it is removed after `ttl_s`."""
        await self._put(key, b"", {"KV-Operation": "DEL"} | _ttl(ttl_s))

    async def rewrite(self, key: str, value: bytes, revision: int, *, ttl_s: int | None = None) -> int | None:
        """As `replace`, and the replaced value is overwritten on disk. For buckets that keep several values."""
        new = await self.replace(key, value, revision, ttl_s=ttl_s)
        if new is not None and revision:
            await self.overwrite(revision)
        return new

    async def erase(self, key: str) -> int:
        """Overwrite everything that was ever stored under a key, and its name; how many values that were.

        Watchers of the bucket are not notified: what they must know is written before.
        """
        erased = 0
        query = {"last_by_subj": self._prefix + key}
        while last := await jetstream.get_message(
            self._connection, self._stream, query, timeout_s=self._timeout_s
        ):
            await self.overwrite(last.sequence)
            erased += 1
        return erased

    async def erase_replaced(self, key: str) -> None:
        """Overwrite all values of a key but the newest."""
        scan = jetstream.direct_scan(
            self._connection, self._stream, self._prefix + key, timeout_s=self._timeout_s
        )
        for message in [message.sequence async for message in scan][:-1]:
            await self.overwrite(message)

    async def overwrite(self, revision: int) -> None:
        """Overwrite one value on disk and remove it."""
        await jetstream.delete_message(self._connection, self._stream, revision, timeout_s=self._timeout_s)

    async def _put(self, key: str, value: bytes, headers: dict[str, str]) -> int:
        subject = self._prefix + key
        return await jetstream.append(
            self._connection, subject, value, headers=headers, timeout_s=self._timeout_s
        )


def _ttl(ttl_s: int | None) -> dict[str, str]:
    return {} if ttl_s is None else {"Nats-TTL": f"{ttl_s}s"}
