"""A copy of the KV bucket ACCESS in memory, so that known callers cost no request to the core.

Twice a second the bucket's sequence is checked for changes. (A subscription to its subjects would be faster,
but it also receives writes that the bucket then rejects.) Where a replica that is behind may answer, a change is
read again for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from headcount.errors import LogError
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket, KvEntry
from headcount.messaging.streams import ACCESS_BUCKET

#: A revoked token is rejected after at most twice this, plus the time of a request.
POLL_INTERVAL_S = 0.5
#: For how long after a change the bucket is read at each poll.
_SETTLE_S = 2.0
#: The age up to which the copy is used. Without the core, tokens cannot be revoked either, but only this
#: process may be cut off from it.
MAX_AGE_S = 300.0


class AccessCache:
    """The entries of the bucket; `run` keeps them up to date."""

    def __init__(self, connection: Connection) -> None:
        self.bucket = KvBucket(connection, ACCESS_BUCKET)
        self._entries: dict[str, KvEntry] = {}
        self._sequence = -1
        self._changed_s = self._refreshed_s = float("-inf")

    async def run(self) -> None:
        """Refresh until cancelled; while the core does not answer, the last copy stays valid."""
        while True:
            with contextlib.suppress(LogError):
                await self.refresh()
            await asyncio.sleep(POLL_INTERVAL_S)

    async def refresh(self) -> None:
        """Read the bucket if it has changed.

        Raises:
            LogError: the core does not answer.
        """
        sequence, now = (await self.bucket.info()).state.last_seq, time.monotonic()
        if sequence != self._sequence:
            self._changed_s = now
        if now - self._changed_s < _SETTLE_S:
            self._entries = await self.bucket.newest()
        self._sequence, self._refreshed_s = sequence, now

    async def get(self, key: str) -> KvEntry | None:
        """Return the entry of a key, from the core if the copy lacks it or is too old.

        Raises:
            LogError: the core does not answer.
        """
        found = self._entries.get(key)
        if found is None or time.monotonic() - self._refreshed_s > MAX_AGE_S:
            found = await self.bucket.get(key)
            if found is not None:
                self._entries[key] = found
        return found

    def __contains__(self, key: str) -> bool:
        """Whether the copy has a key."""
        return key in self._entries

    def with_prefix(self, prefix: str) -> dict[str, KvEntry]:
        """Return the copy's entries whose keys have a prefix."""
        return {key: entry for key, entry in self._entries.items() if key.startswith(prefix)}

    def discard(self, key: str) -> None:
        """Remove a key that was just deleted from the copy."""
        self._entries.pop(key, None)
