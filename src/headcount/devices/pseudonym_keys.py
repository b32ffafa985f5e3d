"""The keys of the days' pseudonyms: made ahead of time, the same for everybody, destroyed when they are over.

One key a day in the bucket DAYKEY, `day.<days since 1970>`: 32 random bytes, written where there is none
by compare-and-set, so that whoever comes second takes the first one's. A day is over OVER_S after its end:
the history keeps 24 hours in whole hours, and state that nobody hears of is forgotten before. Then its key
is overwritten on disk, and nobody can tell any more whose name a pseudonym of that day was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.js import JetStreamContext

from headcount.counting.pseudonym_source import DAY_S
from headcount.devices.pseudonyms import KEY_BYTES, Pseudonyms
from headcount.errors import LogError
from headcount.messages.records import DAYKEY_KEY
from headcount.messages.topics import Kind
from headcount.messaging.kv import Bucket
from headcount.messaging.streams import DAYKEY_BUCKET

_log = logging.getLogger(__name__)

#: How long after its end something of a day may still be kept: 24 hours in whole ones, and time to drop them.
KEY_RETENTION_S = 26 * 3600
#: So often what is due is made and destroyed, and everybody forgets what was.
POLL_INTERVAL_S = 60.0
RETRY_INTERVAL_S = 1.0
#: A key that somebody else has just made may not be everywhere yet.
ATTEMPTS, ATTEMPT_PAUSE_S = 20, 0.05


class PseudonymKeys:
    """The keys of the days that are still kept, over one connection."""

    def __init__(self, nc: Client, js: JetStreamContext) -> None:
        """Know none yet; call `load`."""
        self._bucket = Bucket(nc, js, DAYKEY_BUCKET)
        #: day (its number since 1970) → its key, as of the last `load` or `need`
        self.keys: dict[int, bytes] = {}

    def __repr__(self) -> str:
        """Without the keys: representations end up in logs."""
        return f"DayKeys({sorted(self.keys)})"

    async def load(self) -> None:
        """Take over what is there, and forget what is there no more.

        Raises:
            LogError: the log doesn't answer.
        """
        entries = await self._bucket.newest("day.*")
        found = {_day(key): entry.value for key, entry in entries.items()}
        self.keys.update(found)
        for day in self.keys.keys() - found.keys():
            del self.keys[day]

    async def need(self, days: Iterable[int]) -> None:
        """Have the keys of these days: load them, or make them where there are none. What is over stays without.

        Raises:
            LogError: the log doesn't answer.
        """
        missing = [day for day in days if day not in self.keys]
        if not missing:
            return
        now_s = await self._bucket.now_s()
        for day in missing:
            if not is_expired(day, now_s):
                await self._have(day)

    async def _have(self, day: int) -> None:
        key = DAYKEY_KEY.format(day=day)
        for _ in range(ATTEMPTS):
            entry = (await self._bucket.newest(key)).get(key)
            if entry is not None:
                self.keys[day] = entry.value
                return
            made = secrets.token_bytes(KEY_BYTES)
            if await self._bucket.replace(key, made, 0) is not None:
                self.keys[day] = made
                return
            await asyncio.sleep(ATTEMPT_PAUSE_S)
        raise LogError(f"the key of day {_date(day)} is there and can't be read")

    async def pseudonyms_of(self, kind: Kind, device: str) -> dict[int, str]:
        """A device's pseudonym on each day of which anything may still be kept, and tomorrow's if it can be.

        Raises:
            LogError: the log doesn't answer.
        """
        await self.load()
        await self.need([int(await self._bucket.now_s() // DAY_S)])
        names, key = Pseudonyms(self.keys), f"{kind}.{device}".encode()
        return {day: names.of(key, day) for day in sorted(self.keys)}

    # --- loops ---------------------------------------------------------------------------------------
    async def keep(self, stop: asyncio.Event) -> None:
        """Make today's and tomorrow's keys and destroy those that are over, until told to stop.

        Tomorrow's is there a whole day ahead, so that midnight needs nothing that could be down.
        """
        while not stop.is_set():
            wait_s = POLL_INTERVAL_S
            try:
                await self.tend(await self._bucket.now_s())
            except LogError as error:
                _log.warning("keys of the days: %s; trying again", error)
                wait_s = RETRY_INTERVAL_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)

    async def tend(self, now_s: float) -> None:
        """What is due at an instant (Unix seconds): make, destroy.

        Raises:
            LogError: the log doesn't answer.
        """
        await self.load()
        today = int(now_s // DAY_S)
        for day in (today, today + 1):
            if day not in self.keys:
                await self._have(day)
        for day in sorted(self.keys):
            if is_expired(day, now_s):
                await self._bucket.erase(DAYKEY_KEY.format(day=day))
                del self.keys[day]
                _log.info("the key of day %s is destroyed: nothing of that day is kept", _date(day))

    async def follow(self) -> None:
        """For those who only use keys: look now and then which there are, for ever."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            try:
                await self.load()
            except LogError as error:
                _log.warning("keys of the days: %s; trying again", error)
                # without the log, what is over is forgotten by our own clock
                for day in [day for day in self.keys if is_expired(day, time.time())]:
                    del self.keys[day]


def is_expired(day: int, now_s: float) -> bool:
    """Whether nothing of that day is kept any more at `now_s` (Unix seconds)."""
    return now_s > (day + 1) * DAY_S + KEY_RETENTION_S


def _day(key: str) -> int:
    return int(key.rpartition(".")[2])


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat()
