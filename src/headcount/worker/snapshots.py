"""The saved state of each partition, in a key-value bucket.

Each partition has a key, `p<number>`, written by compare-and-set: only the worker that wrote last knows the
revision, and a write with an older one is refused. A state that is too large for one message is written in
chunks first, under keys of their own, `p<number>.<save>.<chunk>`; the value of `p<number>` then names the save.
So a state whose writing was interrupted is never loaded.

Replaced states, and chunks that no state names, are overwritten on disk: they hold pseudonyms, and no erased
device may be found in them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from headcount.errors import LogError, SnapshotConflictError
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import SNAPSHOT_BUCKET

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

#: Of a state, before compression. Each chunk is compressed by itself, so that all data on disk can be searched.
CHUNK_BYTES = 4 << 20
#: Chunks of this size together are stored in one message; the broker accepts 8 MiB.
MAX_MESSAGE_BYTES = (8 << 20) - 4096
#: Of compression: fast, as a state is compressed every few seconds.
LEVEL = 1
#: Larger states are compressed in a thread, so that counting goes on.
MAX_UNTHREADED_BYTES = 1 << 20
_ANSWER_S = 5.0
#: A state is read again this often if a newer one replaces it meanwhile.
_ATTEMPTS, _RETRY_S = 5, 0.1


class _StoredSnapshot(msgspec.Struct, array_like=True):
    epoch: int
    seq: int
    raw_bytes: int
    zstd: list[bytes]  # the chunks; empty: they have keys of their own
    save: str = ""
    chunks: list[int] = []  # their revisions


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A saved state, the epoch of the owner that saved it, and the revision to replace; `state` None: none."""

    epoch: int
    state: bytes | None
    revision: int


class _MissingChunkError(Exception):
    """A chunk was removed: a newer state replaced it, or it is lost."""


class Snapshots:
    """The newest saved state of each partition; every call raises LogError if the log doesn't answer."""

    def __init__(self, connection: Connection) -> None:
        self._bucket = KvBucket(connection, SNAPSHOT_BUCKET, timeout_s=_ANSWER_S)
        #: The chunks of each partition's newest state, as far as this object knows.
        self._chunks: dict[int, list[int]] = {}
        #: Partitions that have no other ones, left by interrupted saves.
        self._clean: set[int] = set()

    async def load(self, partition: int) -> Snapshot:
        """The newest state of a partition; one that is damaged counts as none."""
        self._clean.discard(partition)
        revision, problem = 0, ""
        for _ in range(_ATTEMPTS):
            entry = await self._bucket.get(f"p{partition}")
            if entry is None:
                return Snapshot(0, None, 0)
            revision = entry.revision
            try:
                stored = msgspec.msgpack.decode(entry.value, type=_StoredSnapshot)
                self._chunks[partition] = stored.chunks
                chunks = stored.zstd or await self._read_chunks(partition, stored)
                state = await _run(stored.raw_bytes, _decompressed, chunks, stored.raw_bytes)
            except _MissingChunkError as error:
                problem = str(error)
                await asyncio.sleep(_RETRY_S)
            except (msgspec.MsgspecError, zstd.ZstdError) as error:
                problem = str(error)
                break
            else:
                return Snapshot(stored.epoch, state, revision)
        _log.warning("snapshot of partition %d is damaged (%s): counting from the log", partition, problem)
        return Snapshot(0, None, revision)

    async def _read_chunks(self, partition: int, stored: _StoredSnapshot) -> list[bytes]:
        chunks = []
        for number in range(len(stored.chunks)):
            entry = await self._bucket.get(_chunk_key(partition, stored.save, number))
            if entry is None:
                raise _MissingChunkError(f"chunk {number} is missing")
            chunks.append(entry.value)
        return chunks

    async def saved_seq(self, partition: int) -> int:
        """The sequence of the log up to which a partition's newest state goes; 0: there is none."""
        entry = await self._bucket.get(f"p{partition}")
        try:
            return 0 if entry is None else msgspec.msgpack.decode(entry.value, type=_StoredSnapshot).seq
        except msgspec.MsgspecError:
            return 0

    async def save(self, partition: int, epoch: int, state: bytes, revision: int) -> int:
        """Replace the state that has `revision`.

        Returns:
            The new revision.

        Raises:
            SnapshotConflictError: if another worker has saved since.
        """
        chunks = await _run(len(state), _compressed, state)
        stored = _StoredSnapshot(epoch, sequence_of(state), len(state), chunks)
        if sum(map(len, chunks)) > MAX_MESSAGE_BYTES:
            stored.save, stored.zstd, stored.chunks = f"{epoch}-{secrets.token_hex(8)}", [], []
            self._clean.discard(partition)  # until this has succeeded
            for number, chunk in enumerate(chunks):
                key = _chunk_key(partition, stored.save, number)
                stored.chunks.append(await self._bucket.put(key, chunk))
        newer = await self._bucket.replace(f"p{partition}", msgspec.msgpack.encode(stored), revision)
        if newer is None:
            for chunk_revision in stored.chunks:
                await self._bucket.overwrite(chunk_revision)
            raise SnapshotConflictError(f"of partition {partition}", "another worker saved a newer one")
        replaced = [*self._chunks.get(partition, []), *([revision] if revision else [])]
        self._chunks[partition] = stored.chunks
        try:
            for each in replaced:
                await self._bucket.overwrite(each)
            if partition not in self._clean:
                await self._erase_chunks(partition, newer, stored.save)
                self._clean.add(partition)
        except LogError as error:  # what is left is overwritten by the next save or erasure
            self._clean.discard(partition)
            _log.debug("an older state isn't overwritten: %s", error)
        return newer

    async def erase_replaced(self, partition: int) -> None:
        """Overwrite everything that was saved for a partition before its newest state and isn't part of it."""
        key = f"p{partition}"
        newest = await self._bucket.leaders(key)
        if newest is None:
            return
        await self._bucket.erase_replaced(key)
        save = msgspec.msgpack.decode(newest.value, type=_StoredSnapshot).save
        await self._erase_chunks(partition, newest.revision, save)

    async def _erase_chunks(self, partition: int, revision: int, save: str) -> None:
        """Overwrite chunks that are older than the state with `revision` and not of its save.

        Newer ones may belong to a state that is being saved.
        """
        for key in await self._bucket.keys(f"p{partition}.>"):
            if key.split(".")[1] == save:
                continue
            chunk = await self._bucket.leaders(key)
            if chunk is not None and chunk.revision < revision:
                await self._bucket.overwrite(chunk.revision)


def sequence_of(state: bytes) -> int:
    """The sequence in a saved state, see `Partition.save`; 0 if it is damaged."""
    try:
        return int(msgspec.msgpack.decode(state)[0])
    except (msgspec.DecodeError, TypeError, ValueError, IndexError):
        return 0


def _chunk_key(partition: int, save: str, chunk: int) -> str:
    return f"p{partition}.{save}.{chunk}"


async def _run(size: int, function: Callable[..., _T], *arguments: object) -> _T:
    """Call a function, in a thread if it has much to do."""
    if size <= MAX_UNTHREADED_BYTES:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)


def _compressed(state: bytes) -> list[bytes]:
    return [
        zstd.compress(state[start : start + CHUNK_BYTES], LEVEL)
        for start in range(0, len(state), CHUNK_BYTES)
    ]


def _decompressed(chunks: list[bytes], raw_bytes: int) -> bytes:
    """The state; at most the recorded size is decompressed."""
    state = b"".join(zstd.ZstdDecompressor().decompress(chunk, CHUNK_BYTES) for chunk in chunks)
    if len(state) != raw_bytes:
        raise zstd.ZstdError("the compressed state has another size")
    return state
