"""Signals from the reports of workers and brokers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headcount.messages.units import BrokerUnit
from headcount.scaling.signals import STALE_S, ReportCollector


def report(
    fixes: float, lag: float = 0.0, cpu_s: float | None = None, latency: dict[float, int] | None = None
) -> bytes:
    """A worker's report, with cumulative latency counts by bound."""
    body = {"worker": "?", "verdicts": {"person": {"accepted": fixes}}, "lag": lag, "cpu_s": cpu_s}
    if latency is not None:
        body["latency"] = {
            "le": list(latency),
            "counts": list(latency.values()),
            "sum": 1.0,
            "count": max(latency.values()),
        }
    return json.dumps(body).encode()


def send(collector: ReportCollector, worker: str, at_s: float, payload: bytes) -> None:
    """Receive a report of the worker with this name."""
    collector.receive(f"metrics.count.{worker}", payload.replace(b'"?"', json.dumps(worker).encode()), at_s)


def broker(name: str, cpu_s: float, connections: int = 10, started_s: float = 0.0) -> BrokerUnit:
    """A broker unit that is up."""
    return BrokerUnit(name, "1", "2.15.1", "h", 1, 2, 3, "up", connections, 5.0, cpu_s, started_s)


def test_rate_lag_and_cpu_add_up() -> None:
    """The fixes, lag and CPU seconds of two workers are added over the window."""
    collector = ReportCollector()
    for second in range(20):
        send(collector, "a", second, report(100.0 * second, cpu_s=0.5 * second))
        send(collector, "b", second, report(50.0 * second, lag=7.0, cpu_s=0.25 * second))
    now = collector.workers(19.5)
    assert now.reporting == 2
    assert now.fixes_per_s == pytest.approx(150)
    assert now.cores == pytest.approx(0.75)
    assert now.lag == 7.0
    assert now.age_s == 0.5


def test_a_growing_lag_adds_to_the_rate() -> None:
    """A worker that counts 100 a second while 40 more a second wait has a rate of 140."""
    collector = ReportCollector()
    for second in range(30):
        send(collector, "a", second, report(100.0 * second, lag=40.0 * second))
        now = collector.workers(second + 0.1)
    assert now.fixes_per_s == pytest.approx(140)
    assert now.counted_per_s == pytest.approx(100)


def test_work_that_changes_hands_is_counted_once() -> None:
    """When half of the work moves to a new worker, the rate does not change."""
    collector, before, after = ReportCollector(), 0.0, 0.0
    for second in range(40):
        before += 100 if second < 20 else 50
        send(collector, "a", second, report(before))
        if second >= 20:
            send(collector, "b", second, report(after))
            after += 50
        rate = collector.workers(second + 0.1).fixes_per_s
        if second > 2:
            assert rate == pytest.approx(100, rel=0.08)


def test_a_partition_between_two_workers_is_no_lag() -> None:
    """A lag in a single report does not count."""
    collector = ReportCollector()
    for second in range(10):
        send(collector, "a", second, report(100.0 * second, lag=9000.0 if second == 9 else 0.0))
    assert collector.workers(9.1).lag == 0.0


def test_missing_reports_are_not_zero() -> None:
    """Before the first report and after the last one, signals are unknown rather than zero."""
    collector = ReportCollector()
    assert collector.workers(0.0).fixes_per_s is None
    for second in range(5):
        send(collector, "a", second, report(100.0 * second))
    assert collector.workers(4.0).fixes_per_s == pytest.approx(100)
    gone = collector.workers(4.0 + STALE_S + 0.1)
    assert (gone.reporting, gone.fixes_per_s, gone.lag, gone.latency_p99_s) == (0, None, None, None)


def test_p99_is_of_the_window() -> None:
    """The latency quantile is interpolated in its bucket and ignores what was before the window."""
    collector = ReportCollector()
    for second in range(30):
        slow = 1000 if second < 5 else 0
        total = 1000 * (second + 1)
        send(
            collector,
            "a",
            second,
            report(total, latency={0.1: total - slow if second < 5 else total - 5000, 1.0: total}),
        )
    assert collector.workers(29.0).latency_p99_s == pytest.approx(0.099)
    for second in range(30, 45):
        total = 30_000 + 1000 * (second - 29)
        send(collector, "a", second, report(total, latency={0.1: 25_000, 1.0: total}))
    assert collector.workers(44.0).latency_p99_s == pytest.approx(0.1 + 0.9 * 0.99)


def test_brokers_add_up() -> None:
    """Connections and messages are summed; CPU is known from the second reading on, also with a new broker."""
    collector = ReportCollector()
    assert collector.brokers(0.0, {"a": broker("a", 5.0)}).cores is None
    assert collector.brokers(2.0, {"a": broker("a", 5.5)}).cores == pytest.approx(0.25)
    both = collector.brokers(4.0, {"a": broker("a", 6.0), "b": broker("b", 3.0)})
    assert both.cores == pytest.approx(0.25)
    assert (both.connections, both.messages_per_s, set(both.reporting)) == (20, 10.0, {"a", "b"})
    assert collector.brokers(6.0, {}).connections is None


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["metrics.count.a", "metrics.adapters.a", "metrics.scale.x", "other"]),
            st.one_of(
                st.binary(max_size=40),
                st.sampled_from([b"{}", b"[]", b"null", report(-5), report(1, lag=-1), report(1e300)]),
                st.floats().map(lambda n: report(1.0).replace(b"1.0", repr(n).encode())),
            ),
        )
    )
)
def test_no_report_raises(messages: list[tuple[str, bytes]]) -> None:
    """Any bytes on any subject leave signals that are numbers or unknown."""
    collector = ReportCollector()
    for number, (subject, payload) in enumerate(messages):
        collector.receive(subject, payload, float(number))
    now = collector.workers(float(len(messages)))
    assert now.fixes_per_s is None or 0 <= now.fixes_per_s < 1e18
