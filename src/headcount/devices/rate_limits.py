"""How much one device may send, and how often one may knock: pure, times come in as arguments."""

from __future__ import annotations

from dataclasses import dataclass

#: Keys of which a tally counts at the same time; above that new ones aren't counted until the minute ends.
MAX_KEYS = 200_000
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class MqttRateLimits:
    """What is too much.

    A device may send at these rates for ever. A phone that was away sends what it has kept in one go: so
    much more may come at once, and comes back at the same rates.
    """

    messages_per_s: float = 5.0
    burst_messages: float = 3_000.0
    bytes_per_s: float = 64 << 10
    burst_bytes: float = 8 << 20
    #: One that speaks for others may do so many times as much.
    gateway_factor: float = 1_000.0
    #: Connections of one device in a minute.
    connects_per_minute: int = 30
    #: Sign-ins refused to one address in a minute: as many as an institute behind one address may need.
    refused_per_minute: int = 120
    #: How long who does more is kept out.
    ban_s: float = 600.0


class AttemptCounter:
    """How often each key came in the current minute."""

    def __init__(self, most_keys: int = MAX_KEYS) -> None:
        """Count at most so many keys."""
        self._most = most_keys
        self._counts: dict[str, int] = {}
        self._until_s = 0.0

    def add(self, key: str, now_s: float) -> int:
        """Count one; how many that makes."""
        if now_s >= self._until_s:
            self._counts.clear()
            self._until_s = now_s + MINUTE_S
        if key not in self._counts and len(self._counts) >= self._most:
            return 0
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return count

    def forget(self, key: str) -> None:
        """Begin again with a key."""
        self._counts.pop(key, None)


class DeviceRateLimiter:
    """What each device may still send: two leaky buckets each, which fill at the limits' rates."""

    def __init__(self, limits: MqttRateLimits) -> None:
        """Measure against these limits."""
        self._limits = limits
        self._used: dict[str, tuple[float, float, float]] = {}  # messages, bytes over the rate; when

    def add(self, device: str, messages: int, size: int, now_s: float, *, gateway: bool = False) -> bool:
        """Take in what a device has sent since the last time; True: that is too much."""
        limits = self._limits
        factor = limits.gateway_factor if gateway else 1.0
        used_messages, used_bytes, at_s = self._used.get(device, (0.0, 0.0, now_s))
        passed_s = max(now_s - at_s, 0.0)
        used_messages = max(used_messages - passed_s * limits.messages_per_s * factor, 0.0) + messages
        used_bytes = max(used_bytes - passed_s * limits.bytes_per_s * factor, 0.0) + size
        if used_messages or used_bytes:
            self._used[device] = used_messages, used_bytes, now_s
        else:
            self._used.pop(device, None)
        return used_messages > limits.burst_messages * factor or used_bytes > limits.burst_bytes * factor

    def forget(self, device: str) -> None:
        """Begin again with a device."""
        self._used.pop(device, None)

    def forget_idle(self, now_s: float, idle_s: float = 3600.0) -> None:
        """Begin again with those who have sent nothing for so long."""
        for device in [device for device, (_, _, at_s) in self._used.items() if now_s - at_s > idle_s]:
            del self._used[device]
