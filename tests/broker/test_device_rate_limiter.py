"""Rate limits of devices and addresses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headcount.broker.device_rate_limiter import MINUTE_S, DeviceRateLimiter, MqttRateLimits

LIMITS = MqttRateLimits(
    messages_per_s=2.0,
    burst_messages=10.0,
    bytes_per_s=100.0,
    burst_bytes=1000.0,
    connects_per_minute=3,
    refused_per_minute=2,
)


def test_connections_of_each_device() -> None:
    """A device may connect as often as the limit within a moment, and at that rate afterwards."""
    limiter = DeviceRateLimiter(LIMITS)
    assert [limiter.connected("a", 0.0) for _ in range(4)] == [False, False, False, True]
    assert not limiter.connected("b", 0.0)
    assert not any(limiter.connected("c", n * MINUTE_S / 3) for n in range(100))


def test_a_limit_starts_again_after_it_was_exceeded() -> None:
    """A device is not banned a second time by what it did before its ban."""
    limiter = DeviceRateLimiter(LIMITS)
    assert [limiter.refused("192.0.2.1", 0.0) for _ in range(6)] == [False, False, True] * 2


def test_a_burst_and_then_the_rate() -> None:
    """A device may send a burst, and then at the rate: messages and bytes alike."""
    limiter = DeviceRateLimiter(LIMITS)
    assert not limiter.sent("a", 10, 0, 0.0)
    assert limiter.sent("a", 1, 0, 0.0)
    assert not limiter.sent("b", 1, 1000, 0.0)
    assert limiter.sent("b", 1, 1, 0.0)
    assert not limiter.sent("a", 10, 0, 0.0)
    assert not limiter.sent("a", 2, 0, 1.0)
    assert limiter.sent("a", 3, 0, 2.0)


def test_a_gateway_sends_for_many() -> None:
    """A gateway may send a multiple of a device."""
    limiter = DeviceRateLimiter(LIMITS)
    assert not limiter.sent("g", 10_000, 0, 0.0, gateway=True)
    assert limiter.sent("g", 1, 0, 0.0, gateway=True)


@given(st.lists(st.floats(0.0, 4.0), min_size=1, max_size=50))
def test_the_rate_is_always_allowed(pauses: list[float]) -> None:
    """A device that sends no more than the rate never exceeds the limit."""
    limiter, now_s, owed = DeviceRateLimiter(LIMITS), 0.0, 0.0
    for pause in pauses:
        now_s += pause
        owed += pause * LIMITS.messages_per_s
        messages, owed = int(owed), owed % 1
        assert not limiter.sent("a", messages, 0, now_s)
