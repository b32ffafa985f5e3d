"""A copy of the bucket ACCESS in memory, so that nobody who is known costs a question to the core.

It is looked at twice a second whether the bucket has changed. (A subscription to its subjects would be
faster, but also tells writes that the bucket then refuses.) Where an answer may come from a replica that
is behind, a change is read again for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from headcount.errors import LogError
from headcount.messaging.connection import Connection
from headcount.messaging.kv import Entry, KvBucket
from headcount.messaging.streams import ACCESS_BUCKET

#: What is revoked is out after twice this at most (and the time of a question).
POLL_S = 0.5
#: So long after a change the bucket is read at each look.
_SETTLED_S = 2.0
#: Without the core nobody can revoke anything either; but the core may be there and only we are cut off.
BLIND_S = 300.0


class AccessCache:
    """What the bucket holds; `follow` keeps it up to date."""

    def __init__(self, connection: Connection) -> None:
        """Read the bucket over a connection."""
        self.bucket = KvBucket(connection, ACCESS_BUCKET)
        self._entries: dict[str, Entry] = {}
        self._sequence = -1
        self._changed_s = self._seen_s = float("-inf")

    async def follow(self) -> None:
        """Keep up to date until cancelled; while the core doesn't answer, what was read last holds."""
        while True:
            with contextlib.suppress(LogError):
                await self.look()
            await asyncio.sleep(POLL_S)

    async def look(self) -> None:
        """Read the bucket if it has changed.

        Raises:
            LogError: the core doesn't answer.
        """
        sequence, now = (await self.bucket.info()).state.last_seq, time.monotonic()
        if sequence != self._sequence:
            self._changed_s = now
        if now - self._changed_s < _SETTLED_S:
            self._entries = await self.bucket.newest()
        self._sequence, self._seen_s = sequence, now

    async def find(self, key: str) -> Entry | None:
        """What stands under a key now; None: nothing.

        Raises:
            LogError: it isn't in the copy, or the copy is too old, and the core doesn't answer.
        """
        found = self._entries.get(key)
        if found is None or time.monotonic() - self._seen_s > BLIND_S:
            found = await self.bucket.get(key)
            if found is not None:
                self._entries[key] = found
        return found

    def has(self, key: str) -> bool:
        """Whether something stands under a key, as far as is known without asking."""
        return key in self._entries

    def under(self, prefix: str) -> dict[str, Entry]:
        """All keys with a prefix, as far as is known without asking."""
        return {key: entry for key, entry in self._entries.items() if key.startswith(prefix)}

    def drop(self, key: str) -> None:
        """Forget a key at once: we have just deleted it."""
        self._entries.pop(key, None)
