"""Leader election: of any number of scalers, or bridges of one name, one is active, by a key of the bucket UNIT.

The leader renews its lease by compare-and-set every period. Another candidate takes the lease over when the
key's revision has not changed for `TTL_S` by its own clock, so clocks need not agree; a leader that was
paused meanwhile fails at its next renewal and steps down.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from headcount.messages.records import decode_or_none
from headcount.messaging.kv import KvBucket

_log = logging.getLogger(__name__)

SCALER_LEADER_KEY = "scaling.leader"
BRIDGE_LEADER_KEY = "bridge.{name}"
#: A lease that was not renewed for this long is lost: three periods, and at least this.
TTL_S = 6.0
_VACANT = ""


class _LeaderLease(msgspec.Struct):
    leader: str


class LeaderElection:
    """The election as one candidate sees it; every call raises LogError if NATS does not answer."""

    def __init__(
        self,
        bucket: KvBucket,
        name: str,
        ttl_s: float = TTL_S,
        clock: Callable[[], float] = time.monotonic,
        *,
        key: str = SCALER_LEADER_KEY,
    ) -> None:
        """Take part under `name`, which must be unique to this process."""
        self._bucket = bucket
        self._name = name
        self._key = key
        self._ttl_s = ttl_s
        self._clock = clock
        self._revision: int | None = None  # of our lease
        self._other: tuple[int, float] | None = None  # revision of another's lease, and since when
        self._renewed_s = -1e9

    @property
    def is_certain(self) -> bool:
        """Whether our lease was renewed so recently that no other candidate can have taken it over."""
        return self._revision is not None and self._clock() - self._renewed_s < self._ttl_s / 2

    async def campaign(self) -> bool:
        """Renew our lease, or take over one that is free; returns whether we lead now."""
        began_s = self._clock()
        if self._revision is not None:
            self._revision = await self._write(self._name, self._revision)
            if self._revision is not None:
                self._renewed_s = began_s
                return True
            _log.warning("%s: another process leads now", self._key)
        entry = await self._bucket.get(self._key)
        if entry is None:
            self._revision = await self._write(self._name, 0)
        else:
            if self._other is None or self._other[0] != entry.revision:
                self._other = entry.revision, began_s
            lease, age_s = decode_or_none(entry.value, _LeaderLease), began_s - self._other[1]
            held = lease is not None and lease.leader not in {_VACANT, self._name}
            valid = held and age_s <= self._ttl_s
            self._revision = None if valid else await self._write(self._name, entry.revision)
        if self._revision is not None:
            self._renewed_s = began_s
            _log.info("%s: %s leads from now on", self._key, self._name)
        return self._revision is not None

    async def resign(self) -> None:
        """Free our lease, so that the next leader need not wait."""
        if self._revision is not None:
            await self._write(_VACANT, self._revision)
            self._revision = None

    async def _write(self, leader: str, revision: int) -> int | None:
        return await self._bucket.replace(self._key, msgspec.json.encode(_LeaderLease(leader)), revision)
