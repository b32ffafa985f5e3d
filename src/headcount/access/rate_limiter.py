"""The rate limiter: a token bucket per key (GCRA), in bounded memory; pure.

One number is stored per key: when its bucket is full again. With too many keys, the one that was used longest
ago is dropped, which gives it a full bucket: a flood of new keys costs memory up to the limit, and nothing else.

Source: generic cell rate algorithm, ITU-T I.371.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

MAX_KEYS = 20_000
#: Fixes of a device beyond its rate: a phone that was offline sends its stored fixes in one go.
BURST_FIXES = 3_000.0
#: A device that sends for others may send this many times as much.
GATEWAY_FACTOR = 1_000.0
#: Rounding errors of times.
_TOLERANCE_S = 1e-9


@dataclass(frozen=True, slots=True)
class RateLimitResult:
    """Whether a request is allowed, and the state of its bucket."""

    allowed: bool
    remaining: int
    retry_s: float  # until the next request is allowed; 0 where this one is
    full_s: float  # until the bucket is full


class RateLimiter:
    """Allows `per_s` requests per second and key, with bursts of `burst`."""

    def __init__(self, per_s: float, burst: float, max_keys: int = MAX_KEYS) -> None:
        """Start with a full bucket for every key."""
        self.burst = burst
        self.window_s = burst / per_s
        self._interval_s = 1.0 / per_s
        self._max_keys = max_keys
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: str, now_s: float, amount: int = 1) -> RateLimitResult:
        """Take requests from a key's bucket, all or none; `now_s` is of a monotonic clock."""
        result = self.peek(key, now_s, amount)
        if result.allowed:
            self._store(key, now_s, result.full_s)
        return result

    def peek(self, key: str, now_s: float, amount: int = 1) -> RateLimitResult:
        """Return what `take` would return, without taking."""
        taken_s = amount * self._interval_s
        full_in_s = max(0.0, self._full_at.get(key, 0.0) - now_s) + taken_s
        over_s = full_in_s - self.window_s
        if over_s > _TOLERANCE_S:
            return RateLimitResult(False, 0, over_s, full_in_s - taken_s)
        return RateLimitResult(True, math.floor(-over_s / self._interval_s + 1e-6), 0.0, full_in_s)

    def charge(self, key: str, now_s: float, amount: float) -> bool:
        """Charge a key for what it has used already; return whether that exceeds the limit."""
        full_in_s = max(0.0, self._full_at.get(key, 0.0) - now_s) + amount * self._interval_s
        if amount:
            self._store(key, now_s, full_in_s)
        return full_in_s > self.window_s + _TOLERANCE_S

    def forget(self, key: str) -> None:
        """Give a key a full bucket."""
        self._full_at.pop(key, None)

    def _store(self, key: str, now_s: float, full_in_s: float) -> None:
        self._full_at[key] = now_s + full_in_s
        self._full_at.move_to_end(key)
        while len(self._full_at) > self._max_keys or next(iter(self._full_at.values())) <= now_s:
            self._full_at.popitem(last=False)
