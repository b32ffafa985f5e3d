"""Rate limits: what is let through, how memory stays bounded, and whose address counts."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.access.client_address import client_address, parse_networks
from headcount.access.rate_limiter import RateLimiter


def test_burst_then_rate() -> None:
    """A full bucket allows its burst, then one request per interval, and states when the next is allowed."""
    limiter = RateLimiter(2.0, 5)
    answers = [limiter.take("a", 100.0) for _ in range(6)]
    assert [answer.allowed for answer in answers] == [True] * 5 + [False]
    assert [answer.remaining for answer in answers] == [4, 3, 2, 1, 0, 0]
    assert answers[-1].retry_s == pytest.approx(0.5)
    assert not limiter.take("a", 100.4).allowed
    assert limiter.take("a", 100.5).allowed
    assert limiter.take("b", 100.5).remaining == 4
    assert limiter.take("a", 1000.0).remaining == 4


@given(st.lists(st.floats(0, 5), min_size=1, max_size=100), st.floats(0.1, 50), st.integers(1, 20))
def test_never_more_than_burst_and_rate(waits: list[float], per_s: float, burst: int) -> None:
    """In any stretch of time no more get through than the burst and what the rate has added."""
    limiter, now, allowed = RateLimiter(per_s, burst), 0.0, []
    for wait in waits:
        now += wait
        answer = limiter.take("a", now)
        if answer.allowed:
            allowed.append(now)
        else:
            assert limiter.peek("a", now + answer.retry_s + 1e-6).allowed
    for i, start in enumerate(allowed):
        for j in range(i, len(allowed)):
            assert j - i + 1 <= burst + (allowed[j] - start) * per_s + 1e-3


def test_memory_is_bounded() -> None:
    """With too many keys, only the most recently used ones are kept."""
    limiter = RateLimiter(1.0, 1, max_keys=100)
    for n in range(10_000):
        limiter.take(f"k{n}", 0.0)
    assert len(limiter) == 100
    assert not limiter.take("k9999", 0.0).allowed
    assert limiter.take("k0", 0.0).allowed


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.7", [], "192.0.2.7"),
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),  # anybody can write a header
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),  # what the balancer added
        ("127.0.0.1", ["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["nonsense"], "127.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        ("2001:db8::1", [], "2001:db8::/64"),
        ("2001:db8::2:1", [], "2001:db8::/64"),
        ("::1", ["2001:db8::9"], "2001:db8::/64"),
        ("x" * 1000, ["198.51.100.1"], "x" * 64),
    ],
)
def test_whose_address_counts(peer: str, forwarded: list[str], expected: str) -> None:
    """The header is believed of this machine and of balancers that are named, and only its last part."""
    assert client_address(peer, forwarded, parse_networks("10.0.0.0/8")) == expected


def test_networks() -> None:
    """Addresses and networks are read; what is neither is an error."""
    assert parse_networks("10.1.2.3, fd00::/8") == (
        ipaddress.ip_network("10.1.2.3/32"),
        ipaddress.ip_network("fd00::/8"),
    )
    assert parse_networks("") == ()
    with pytest.raises(ValueError, match="nonsense"):
        parse_networks("nonsense")
