"""Keys of the daily pseudonyms: created ahead of time, shared by all roles, destroyed when they expire.

There is one key per day in the bucket DAYKEY, `day.<days since 1970>`: 32 random bytes, created by
compare-and-set, so that all roles use the first one. A key expires KEY_RETENTION_S after its day: the history
keeps 24 hours in whole hours, and the state of absent devices is dropped earlier. Then the key is overwritten
on disk, and no pseudonym of that day can be linked to a device any more.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from headcount.devices.pseudonyms import KEY_BYTES, Pseudonyms
from headcount.errors import LogError
from headcount.messages.records import DAYKEY_KEY
from headcount.messages.times import DAY_S
from headcount.messages.topics import Kind
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DAYKEY_BUCKET
from headcount.runtime.retry import RETRY_S
from headcount.runtime.tasks import wait_any

_log = logging.getLogger(__name__)

#: Time after the end of a day for which its data may be stored: 24 hours in whole hours, and time to drop them.
KEY_RETENTION_S = 26 * 3600
#: Interval at which keys are created, destroyed and reloaded.
POLL_INTERVAL_S = 60.0
#: A key that another role just created may not have reached every replica.
ATTEMPTS, ATTEMPT_PAUSE_S = 20, 0.05


class PseudonymKeys:
    """The keys of all days with stored data; every call raises LogError if NATS does not answer."""

    def __init__(self, connection: Connection) -> None:
        self._bucket = KvBucket(connection, DAYKEY_BUCKET)
        #: day (days since 1970) → its key, as of the last `load` or `ensure`
        self.keys: dict[int, bytes] = {}

    def __repr__(self) -> str:
        """Omit the keys: representations end up in logs."""
        return f"PseudonymKeys({sorted(self.keys)})"

    async def load(self) -> None:
        """Read the keys, and drop those that were destroyed."""
        entries = await self._bucket.newest("day.*")
        found = {_day(key): entry.value for key, entry in entries.items()}
        self.keys.update(found)
        for day in self.keys.keys() - found.keys():
            del self.keys[day]

    async def ensure(self, days: Iterable[int]) -> None:
        """Read the keys of these days, or create missing ones; expired days get none."""
        missing = [day for day in days if day not in self.keys]
        if not missing:
            return
        now_s = await self._bucket.now_s()
        for day in missing:
            if not is_expired(day, now_s):
                await self._read_or_create(day)

    async def _read_or_create(self, day: int) -> None:
        key = DAYKEY_KEY.format(day=day)
        for _ in range(ATTEMPTS):
            entry = await self._bucket.get(key)
            if entry is not None:
                self.keys[day] = entry.value
                return
            made = secrets.token_bytes(KEY_BYTES)
            if await self._bucket.replace(key, made, 0) is not None:
                self.keys[day] = made
                return
            await asyncio.sleep(ATTEMPT_PAUSE_S)
        raise LogError(f"the key of {_date(day)} exists but cannot be read")

    async def pseudonyms_of(self, site: str, kind: Kind, device: str) -> dict[int, str]:
        """A device's pseudonym on each day with stored data, and tomorrow's if its key exists."""
        await self.load()
        await self.ensure([int(await self._bucket.now_s() // DAY_S)])
        pseudonyms, key = Pseudonyms(self.keys).on(site), f"{kind}.{device}".encode()
        return {day: pseudonyms.of(key, day) for day in sorted(self.keys)}

    # --- loops ---------------------------------------------------------------------------------------
    async def run(self, stop: asyncio.Event) -> None:
        """Create today's and tomorrow's keys and destroy expired ones, until `stop` is set.

        Tomorrow's key exists a whole day ahead, so that midnight depends on nothing that could be down.
        """
        while not stop.is_set():
            wait_s = POLL_INTERVAL_S
            try:
                await self.rotate(await self._bucket.now_s())
            except LogError as error:
                _log.warning("cannot rotate the pseudonym keys: %s; trying again", error)
                wait_s = RETRY_S
            await wait_any(stop, timeout_s=wait_s)

    async def rotate(self, now_s: float) -> None:
        """Create and destroy the keys that are due at an instant (Unix seconds)."""
        await self.load()
        today = int(now_s // DAY_S)
        for day in (today, today + 1):
            if day not in self.keys:
                await self._read_or_create(day)
        for day in sorted(self.keys):
            if is_expired(day, now_s):
                await self._bucket.erase(DAYKEY_KEY.format(day=day))
                del self.keys[day]
                _log.info("destroyed the pseudonym key of %s: no data of that day is stored", _date(day))

    async def refresh(self) -> None:
        """Reload the keys periodically, for roles that only use them."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            try:
                await self.load()
            except LogError as error:
                _log.warning("cannot read the pseudonym keys: %s; trying again", error)
                # without NATS, keys expire by our own clock
                for day in [day for day in self.keys if is_expired(day, time.time())]:
                    del self.keys[day]


def is_expired(day: int, now_s: float) -> bool:
    """Whether no data of a day is stored any more at `now_s` (Unix seconds)."""
    return now_s > (day + 1) * DAY_S + KEY_RETENTION_S


async def daily_pseudonym(connection: Connection, site: str, kind: Kind, device: str) -> str:
    """A device's pseudonym of today, as in events, history and audit log: 16 hexadecimal digits.

    Raises:
        LogError: NATS does not answer.
    """
    day = int(time.time() // DAY_S)
    keys = PseudonymKeys(connection)
    await keys.ensure([day])
    return Pseudonyms(keys.keys).on(site).of(f"{kind}.{device}".encode(), day)


def _day(key: str) -> int:
    return int(key.rpartition(".")[2])


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat()
