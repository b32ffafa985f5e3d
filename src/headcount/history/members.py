"""The history writers that are alive, and the partitions on which this one works.

    history.<name>   heartbeat in the bucket UNIT, every second

The shares need not be exact: the marks in the manifest keep rows from being stored twice.
"""

from __future__ import annotations

import os
import secrets

from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.rendezvous import divide, rooms
from headcount.messaging.streams import UNIT_BUCKET
from headcount.messaging.units import UNIT_TIMEOUT_S, UNIT_TTL_S

_KEY = "history.{name}"
#: The stream of events, as an item beside the partitions.
EVENTS = -1


class Members:
    """A writer among the others, over one connection; every call raises LogError if the core doesn't answer."""

    def __init__(self, connection: Connection, partitions: int) -> None:
        """A new member of those that write `partitions`."""
        self.name = f"{os.getpid()}-{secrets.token_hex(4)}"
        #: The number of this writer among the live ones, and theirs.
        self.place = (0, 1)
        self._items = (EVENTS, *range(partitions))
        self._bucket = KvBucket(connection, UNIT_BUCKET)

    async def share(self) -> set[int]:
        """Send a heartbeat, and return the partitions (EVENTS: the events) of this writer."""
        await self._bucket.put(_KEY.format(name=self.name), b"{}", ttl_s=UNIT_TTL_S)
        found = await self._bucket.newest(_KEY.format(name="*"))
        now_s = await self._bucket.now_s()
        prefix = _KEY.format(name="")
        alive = {
            key.removeprefix(prefix)
            for key, entry in found.items()
            if now_s - entry.stored_s <= UNIT_TIMEOUT_S
        }
        self.place = (sum(name < self.name for name in alive), max(len(alive), 1))
        owners = divide(self._items, rooms(len(self._items), sorted(alive | {self.name})))
        return {item for item, owner in owners.items() if owner == self.name}

    async def leave(self) -> None:
        """Remove this writer, so that the others do not wait for its heartbeat."""
        await self._bucket.delete(_KEY.format(name=self.name), ttl_s=UNIT_TTL_S)
