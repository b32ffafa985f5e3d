"""How often somebody may ask: a token bucket (GCRA) per key, in bounded memory.

Of each key one number is kept: when its bucket is full again. With too many keys the one that was
longest silent is forgotten, which gives it a full bucket: so a flood from ever new addresses costs memory
up to the limit, and nothing else. IPv6 addresses count by their /64, which one customer has anyway.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MAX_KEYS = 20_000
_IPV6_PREFIX = 64
_MAX_ADDRESS = 64
#: Rounding errors of times.
_TOLERANCE_S = 1e-9


@dataclass(frozen=True, slots=True)
class RateLimitResult:
    """Whether it may be, how much is left, and when there is one more."""

    allowed: bool
    remaining: int
    retry_s: float  # 0 where it is allowed
    full_s: float  # until all is there again


class RateLimiter:
    """So many a second, and so many at once."""

    def __init__(self, per_s: float, burst: float, max_keys: int = MAX_KEYS) -> None:
        """Allow `burst` at once, and then `per_s`."""
        self.burst = burst
        self.window_s = burst / per_s
        self._interval_s = 1.0 / per_s
        self._max_keys = max_keys
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._full_at)

    def take(self, key: str, now_s: float) -> RateLimitResult:
        """Take one for a key, at a time of a clock that never goes back."""
        answer = self.look(key, now_s, 1)
        if answer.allowed:
            self._store(key, now_s, answer.full_s)
        return answer

    def charge(self, key: str, now_s: float, amount: float) -> bool:
        """Charge a key for what it has used already; returns whether that exceeds the limit."""
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

    def look(self, key: str, now_s: float, wanted: int = 1) -> RateLimitResult:
        """Whether so many are there, without taking them."""
        full_in_s = max(0.0, self._full_at.get(key, 0.0) - now_s) + wanted * self._interval_s
        over_s = full_in_s - self.window_s
        if over_s > _TOLERANCE_S:
            return RateLimitResult(False, 0, over_s, full_in_s - wanted * self._interval_s)
        return RateLimitResult(True, math.floor(-over_s / self._interval_s + 1e-6), 0.0, full_in_s)


def networks(text: str) -> tuple[Network, ...]:
    """Networks with commas between.

    Raises:
        ValueError: one isn't an address or a network.
    """
    return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


def address_of(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """From where a request comes, as text to count by.

    Args:
        peer: who is connected to us.
        forwarded: the values of X-Forwarded-For; believed of our own balancer only, which writes it anew.
        trusted: where our balancers are, beside this machine.
    """
    connected = _ip(peer)
    if connected is None:
        return peer[:_MAX_ADDRESS]
    if forwarded and is_balancer(peer, trusted):
        told = _ip(forwarded[-1].rpartition(",")[2].strip())
        connected = told or connected
    return key_of(connected)


def is_balancer(peer: str, trusted: Sequence[Network]) -> bool:
    """Whether a peer is this machine or one of our balancers."""
    connected = _ip(peer)
    return connected is not None and (
        connected.is_loopback or any(connected in network for network in trusted)
    )


def key_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An address as a key: IPv6 by its /64."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
