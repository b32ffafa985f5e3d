"""The saved state of each partition, in a key-value bucket.

Each partition has a key, `p<number>`, written by compare-and-set: only the worker that wrote last knows the
revision, and a write with an older one is refused. Replaced states are overwritten on disk: they hold
pseudonyms, and no erased device may be found in them.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass

import msgspec

from headcount.errors import LogError, SnapshotConflictError, SnapshotError
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import SNAPSHOT_BUCKET

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_log = logging.getLogger(__name__)

#: The largest message of the broker; with more partitions, states are smaller.
MAX_BYTES = 8 * 1024 * 1024 - 4096
#: Of compression: fast, as a state is compressed every few seconds.
LEVEL = 1
_ANSWER_S = 5.0


class _StoredSnapshot(msgspec.Struct, array_like=True):
    epoch: int
    raw_bytes: int
    zstd: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A saved state, the epoch of the owner that saved it, and the revision to replace; `state` None: none."""

    epoch: int
    state: bytes | None
    revision: int


class Snapshots:
    """The newest saved state of each partition; every call raises LogError if the log doesn't answer."""

    def __init__(self, connection: Connection) -> None:
        self._bucket = KvBucket(connection, SNAPSHOT_BUCKET, timeout_s=_ANSWER_S)

    async def load(self, partition: int) -> Snapshot:
        """The newest state of a partition; one that is damaged counts as none."""
        entry = await self._bucket.get(f"p{partition}")
        if entry is None:
            return Snapshot(0, None, 0)
        try:
            stored = msgspec.msgpack.decode(entry.value, type=_StoredSnapshot)
            raw = _decompressed(stored)
        except (msgspec.MsgspecError, zstd.ZstdError) as error:
            _log.warning("snapshot of partition %d is damaged (%s): counting from the log", partition, error)
            return Snapshot(0, None, entry.revision)
        return Snapshot(stored.epoch, raw, entry.revision)

    async def saved_seq(self, partition: int) -> int:
        """The sequence of the log up to which a partition's newest state goes; 0: there is none."""
        state = (await self.load(partition)).state
        return 0 if state is None else sequence_of(state)

    async def save(self, partition: int, epoch: int, state: bytes, revision: int) -> int:
        """Replace the state that has `revision`.

        Returns:
            The new revision.

        Raises:
            SnapshotConflictError: if another worker has saved since.
            SnapshotError: if it is too large.
        """
        compressed = zstd.compress(state, LEVEL)
        if len(compressed) > MAX_BYTES:
            raise SnapshotError(
                f"of partition {partition}",
                f"takes {len(compressed)} bytes, more than {MAX_BYTES}; use more partitions",
            )
        value = msgspec.msgpack.encode(_StoredSnapshot(epoch, len(state), compressed))
        newer = await self._bucket.replace(f"p{partition}", value, revision)
        if newer is None:
            raise SnapshotConflictError(f"of partition {partition}", "another worker saved a newer one")
        if revision:
            await self._overwrite(revision)
        return newer

    async def _overwrite(self, revision: int) -> None:
        """Best effort: what is left is overwritten when a device is erased, see `privacy.erasure`."""
        try:
            await self._bucket.overwrite(revision)
        except LogError as error:
            _log.debug("an older state isn't overwritten: %s", error)


def sequence_of(state: bytes) -> int:
    """The sequence in a saved state, see `Partition.save`; 0 if it is damaged."""
    try:
        return int(msgspec.msgpack.decode(state)[0])
    except (msgspec.DecodeError, TypeError, ValueError, IndexError):
        return 0


def _decompressed(stored: _StoredSnapshot) -> bytes:
    """The state; at most the recorded size is decompressed."""
    raw = zstd.ZstdDecompressor().decompress(stored.zstd, stored.raw_bytes)
    if len(raw) < stored.raw_bytes:
        raise zstd.ZstdError("the compressed state ends too early")
    return raw
