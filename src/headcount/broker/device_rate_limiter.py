"""Rate limits of devices at a broker: connections, messages, bytes, and refused sign-ins; pure."""

from __future__ import annotations

from dataclasses import dataclass

from headcount.access.rate_limiter import BURST_FIXES, GATEWAY_FACTOR, RateLimiter

#: Devices or addresses that each limiter remembers.
MAX_KEYS = 200_000
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class MqttRateLimits:
    """The limits.

    A device may always send at these rates. A phone that was offline sends its stored fixes in one go: the
    bursts are allowed for that in addition, and refill at the same rates.
    """

    messages_per_s: float = 5.0
    burst_messages: float = BURST_FIXES
    bytes_per_s: float = 64 << 10
    burst_bytes: float = 8 << 20
    gateway_factor: float = GATEWAY_FACTOR
    #: Connections of one device, also as a burst.
    connects_per_minute: int = 30
    #: Sign-ins refused to one address, also as a burst: as many as an institute behind one address may need.
    refused_per_minute: int = 120
    #: Duration of a ban for exceeding a limit.
    ban_s: float = 600.0


class DeviceRateLimiter:
    """Counts what devices and addresses have done; each method returns whether that exceeds a limit.

    After an exceeded limit the count starts again, so that a device is not banned once more when its ban ends.
    All times are of a monotonic clock.
    """

    def __init__(self, limits: MqttRateLimits) -> None:

        def limiter(per_s: float, burst: float) -> RateLimiter:
            return RateLimiter(per_s, burst, MAX_KEYS)

        factor = limits.gateway_factor
        self._connects = limiter(limits.connects_per_minute / MINUTE_S, limits.connects_per_minute)
        self._refused = limiter(limits.refused_per_minute / MINUTE_S, limits.refused_per_minute)
        self._sent = {
            gateway: (
                limiter(limits.messages_per_s * times, limits.burst_messages * times),
                limiter(limits.bytes_per_s * times, limits.burst_bytes * times),
            )
            for gateway, times in ((False, 1.0), (True, factor))
        }

    def connected(self, device: str, now_s: float) -> bool:
        """Count a connection of a device."""
        return self._exceeds(device, now_s, (self._connects, 1))

    def refused(self, address: str, now_s: float) -> bool:
        """Count a refused sign-in from an address."""
        return self._exceeds(address, now_s, (self._refused, 1))

    def sent(self, device: str, messages: int, size: int, now_s: float, *, gateway: bool = False) -> bool:
        """Count what a device has sent since the last call."""
        by_messages, by_bytes = self._sent[gateway]
        return self._exceeds(device, now_s, (by_messages, messages), (by_bytes, size))

    def _exceeds(self, key: str, now_s: float, *used: tuple[RateLimiter, int]) -> bool:
        exceeded = [limiter.charge(key, now_s, amount) for limiter, amount in used]
        if any(exceeded):
            for limiter, _ in used:
                limiter.forget(key)
        return any(exceeded)
