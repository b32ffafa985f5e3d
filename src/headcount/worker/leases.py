"""Members and leases: which workers are alive and which of them owns each partition, in a key-value bucket.

    member.<worker>   heartbeat, written every second; expires a minute after the last one
    p.<partition>     {owner, epoch}; a lease ends when its owner is no longer alive

All times are the server's, so clocks needn't agree: a worker is alive while its last heartbeat is at most
`ttl_s` older than the newest heartbeat of the worker that reads the table, both as the server received them.
A partition is acquired and released by compare-and-set, and each acquisition raises its epoch. An owner that
was paused and continues finds a larger one, and whatever it still publishes carries the old one.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import LEASE_BUCKET

#: A worker without a heartbeat for this long has lost its partitions.
LEASE_TTL_S = 3.0
HEARTBEAT_INTERVAL_S = 1.0
#: The server removes a member's key after this.
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
    """The bucket at one moment: each member's last heartbeat (the server's Unix seconds), and the leases."""

    members: dict[str, float]
    leases: dict[int, Lease]

    def alive(self, now_s: float, ttl_s: float = LEASE_TTL_S) -> set[str]:
        """The members whose last heartbeat is at most `ttl_s` old at the server's time `now_s`."""
        return {member for member, heartbeat_s in self.members.items() if now_s - heartbeat_s <= ttl_s}


class Leases:
    """The bucket over one connection; every call raises LogError if the core doesn't answer."""

    def __init__(self, connection: Connection) -> None:
        self._bucket = KvBucket(connection, LEASE_BUCKET)

    async def heartbeat(self, worker: str) -> None:
        """Record that a worker is alive."""
        await self._bucket.put(f"member.{worker}", b"{}", ttl_s=MEMBER_TTL_S)

    async def remove_member(self, worker: str) -> None:
        """Record that a worker has ended: others needn't wait for its lease to expire."""
        await self._bucket.delete(f"member.{worker}", ttl_s=MEMBER_TTL_S)

    async def acquire(self, partition: int, worker: str, before: Lease, epoch: int) -> Lease | None:
        """Acquire a partition whose entry is still `before`; None if another worker was faster."""
        return await self._replace(partition, _LeaseRecord(worker, epoch), before)

    async def release(self, partition: int, before: Lease) -> Lease | None:
        """Release a partition whose entry is still `before`; its epoch stays."""
        return await self._replace(partition, _LeaseRecord(NO_OWNER, before.epoch), before)

    async def table(self) -> LeaseTable:
        """All members and leases."""
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

    async def _replace(self, partition: int, record: _LeaseRecord, before: Lease) -> Lease | None:
        revision = await self._bucket.replace(f"p.{partition}", msgspec.json.encode(record), before.revision)
        return None if revision is None else Lease(record.owner, record.epoch, revision)
