"""One scaler decides, however many run: a key of the bucket UNIT says which.

Who has the chair renews it by compare-and-set at each look. Another takes it when the key's revision
hasn't moved for `TTL_S` by its own clock, so clocks needn't agree; whoever was paused meanwhile fails
at its next renewal and sits down.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from headcount.messaging.kv import Bucket

_log = logging.getLogger(__name__)

KEY = "scaling.chair"
#: Who hasn't renewed for so long has lost the chair: three periods, and at least so many seconds.
TTL_S = 6.0
NOBODY = ""


class _Chair(msgspec.Struct):
    name: str


class Chair:
    """The chair as one scaler sees it; every call raises LogError if the log doesn't answer."""

    def __init__(
        self, bucket: Bucket, name: str, ttl_s: float = TTL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`name` must be this process's alone."""
        self._bucket = bucket
        self._name = name
        self._ttl_s = ttl_s
        self._clock = clock
        self._revision: int | None = None  # while it is ours
        self._other: tuple[int, float] | None = None  # revision seen, and since when
        self._renewed_s = -1e9

    @property
    def fresh(self) -> bool:
        """Whether it is ours and was renewed so lately that nobody else can have taken it."""
        return self._revision is not None and self._clock() - self._renewed_s < self._ttl_s / 2

    async def held(self) -> bool:
        """Renew it, or take it if it is free; whether it is ours now."""
        began_s = self._clock()
        if self._revision is not None:
            self._revision = await self._write(self._revision)
            if self._revision is not None:
                self._renewed_s = began_s
                return True
            _log.warning("another scaler decides now")
        entry = (await self._bucket.newest(KEY)).get(KEY)
        if entry is None:
            self._revision = await self._write(0)
        else:
            holder = _holder(entry.value)
            if self._other is None or self._other[0] != entry.revision:
                self._other = entry.revision, began_s
            stands = holder not in {NOBODY, self._name} and began_s - self._other[1] <= self._ttl_s
            self._revision = None if stands else await self._write(entry.revision)
        if self._revision is not None:
            self._renewed_s = began_s
            _log.info("%s decides from now on", self._name)
        return self._revision is not None

    async def leave(self) -> None:
        """Free it, if it is ours: the next needn't wait."""
        if self._revision is not None:
            await self._bucket.replace(KEY, msgspec.json.encode(_Chair(NOBODY)), self._revision)
            self._revision = None

    async def _write(self, revision: int) -> int | None:
        return await self._bucket.replace(KEY, msgspec.json.encode(_Chair(self._name)), revision)


def _holder(value: bytes) -> str:
    """Who sits there; NOBODY where it can't be read."""
    try:
        return msgspec.json.decode(value, type=_Chair).name
    except msgspec.MsgspecError:
        return NOBODY
