"""Who lives and who counts which partition, in a key-value bucket of the log.

    member.<worker>   written every second by a worker that lives; gone a minute after its last word
    p.<partition>     {owner, epoch}; an owner's rights end when it is no longer alive

All times are the server's: a worker is alive while its last word is at most `ttl_s` older than the
newest word of whoever asks, both as the server received them, so clocks needn't agree. A partition
is taken and given back by compare-and-set, and each taking raises its epoch: an owner that was
paused and comes back finds a larger one, and whatever it still says carries the old one.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import LEASE_BUCKET

#: A worker that says nothing for so long has lost its partitions.
LEASE_TTL_S = 3.0
HEARTBEAT_INTERVAL_S = 1.0
#: A member's key is removed by the server after this.
MEMBER_TTL_S = 60
NO_OWNER = ""


class _LeaseRecord(msgspec.Struct):
    owner: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A partition's entry, and the revision to compare with when it is changed."""

    owner: str
    epoch: int
    revision: int


UNOWNED = Lease(NO_OWNER, 0, 0)


@dataclass(frozen=True, slots=True)
class LeaseTable:
    """The bucket at one moment: when each member last spoke (the server's Unix seconds), and the leases."""

    members: dict[str, float]
    leases: dict[int, Lease]

    def alive(self, now_s: float, ttl_s: float = LEASE_TTL_S) -> set[str]:
        """The members whose last word is not older than `ttl_s` at the server's time `now_s`."""
        return {member for member, spoke_s in self.members.items() if now_s - spoke_s <= ttl_s}


class Leases:
    """The bucket as one worker uses it; every call raises LogError if the log doesn't answer."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._bucket = KvBucket(connection, LEASE_BUCKET)

    async def speak(self, worker: str) -> None:
        """Say that a worker lives."""
        await self._bucket.put(f"member.{worker}", b"{}", ttl_s=MEMBER_TTL_S)

    async def retire(self, worker: str) -> None:
        """Say that a worker has ended: others needn't wait for its silence."""
        await self._bucket.delete(f"member.{worker}", ttl_s=MEMBER_TTL_S)

    async def take(self, partition: int, worker: str, before: Lease, epoch: int) -> Lease | None:
        """Take a partition whose entry is still `before`; None if somebody was faster."""
        return await self._change(partition, _LeaseRecord(worker, epoch), before)

    async def give_back(self, partition: int, before: Lease) -> Lease | None:
        """Free a partition whose entry is still `before`; its epoch stays."""
        return await self._change(partition, _LeaseRecord(NO_OWNER, before.epoch), before)

    async def table(self) -> LeaseTable:
        """Everything in the bucket."""
        members: dict[str, float] = {}
        leases: dict[int, Lease] = {}
        for key, entry in (await self._bucket.newest()).items():
            kind, _, name = key.partition(".")
            if kind == "member":
                members[name] = entry.stored_s
            elif kind == "p":
                lease = msgspec.json.decode(entry.value, type=_LeaseRecord)
                leases[int(name)] = Lease(lease.owner, lease.epoch, entry.revision)
        return LeaseTable(members, leases)

    async def _change(self, partition: int, value: _LeaseRecord, before: Lease) -> Lease | None:
        revision = await self._bucket.replace(f"p.{partition}", msgspec.json.encode(value), before.revision)
        return None if revision is None else Lease(value.owner, value.epoch, revision)
