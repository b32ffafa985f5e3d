"""Signals from the reports of workers, adapters and brokers.

The caller passes the time in. Rates are means over the last `WINDOW_S`, from absolute numbers, so a lost
report changes nothing. The rate of the workers is what they counted plus the growth of their lag: fixes that
arrive, not only those that are counted.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

import msgspec

from headcount.messages.reports import AdapterReport, LatencyHistogram, WorkerReport
from headcount.messages.units import BrokerUnit

#: Window of the rates: long enough for noise, short enough for a peak.
WINDOW_S = 10.0
#: A unit without a report for this long is ignored (units report every second).
STALE_S = 6.0
#: A mean over less time is meaningless.
MIN_SPAN_S = 1.5
MAX_VALUE = 1e15
#: More than any fleet has; a sender that invents names must not fill our memory.
MAX_UNITS = 1000

_log = logging.getLogger(__name__)


_worker_report = msgspec.json.Decoder(WorkerReport)
_adapter_report = msgspec.json.Decoder(AdapterReport)


@dataclass(frozen=True, slots=True)
class _WorkerSample:
    at_s: float
    lag: float
    cpu_known: bool
    latency: LatencyHistogram | None


@dataclass(frozen=True, slots=True)
class WorkerSignals:
    """All workers that reported recently, together; None = unknown."""

    reporting: int
    age_s: float | None  # of the oldest of their last reports
    fixes_per_s: float | None  # that arrive
    counted_per_s: float | None
    lag: float | None
    cores: float | None  # CPU seconds per second, of all
    latency_p99_s: float | None


@dataclass(frozen=True, slots=True)
class BrokerSignals:
    """All live brokers together; None = unknown."""

    reporting: frozenset[str]
    connections: int | None
    messages_per_s: float | None
    cores: float | None


class FleetRate:
    """The rate of all units together, from each unit's absolute numbers.

    Differences are summed first and divided by the time afterwards: work that moves from one unit to
    another is never counted twice. A unit's first number is its baseline.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, float] = {}
        self._total = 0.0
        self._series: deque[tuple[float, float]] = deque()

    def add(self, unit: Hashable, value: float, at_s: float) -> None:
        """Add a unit's number; one that fell counts from zero again."""
        last = self._last.pop(unit, value)
        self._total += value - last if value >= last else value
        self._last[unit] = value
        while len(self._last) > MAX_UNITS:
            del self._last[next(iter(self._last))]
        self.note(at_s)

    def note(self, at_s: float, total: float | None = None) -> None:
        """Record the total at an instant; None: it has not changed."""
        self._total = self._total if total is None else total
        if self._series and self._series[-1][0] >= at_s:
            self._series.pop()
        self._series.append((at_s, self._total))
        while len(self._series) > 2 and at_s - self._series[1][0] >= WINDOW_S:
            self._series.popleft()

    def per_s(self, at_s: float) -> float | None:
        """The mean over the window; None before two instants are known, or when the last is too old."""
        if not self._series or at_s - self._series[-1][0] > STALE_S:
            return None
        over_s = self._series[-1][0] - self._series[0][0]
        return (self._series[-1][1] - self._series[0][1]) / over_s if over_s >= MIN_SPAN_S else None


class ReportCollector:
    """Collects the reports of workers, adapters and brokers."""

    def __init__(self) -> None:
        self.rejected = 0
        self._workers: dict[str, deque[_WorkerSample]] = {}
        self._counted, self._lag, self._cores = FleetRate(), FleetRate(), FleetRate()
        self._translated, self._broker_cores = FleetRate(), FleetRate()

    def receive(self, subject: str, payload: bytes, at_s: float) -> None:
        """Add a message of `metrics.>`; one that is not a report is counted in `rejected`."""
        try:
            if subject.startswith("metrics.count."):
                self._add_count(_worker_report.decode(payload), at_s)
            elif subject.startswith("metrics.adapters."):
                report = _adapter_report.decode(payload)
                self._translated.add(report.worker, _checked(sum(report.translated.values())), at_s)
        except (msgspec.DecodeError, ValueError) as error:
            self.rejected += 1
            _log.debug("%s: not a report: %s", subject, error)

    def _add_count(self, report: WorkerReport, at_s: float) -> None:
        fixes = _checked(sum(n for by_verdict in report.verdicts.values() for n in by_verdict.values()))
        lag, cpu_s = _checked(report.lag), _checked(report.cpu_s or 0.0)
        self._counted.add(report.worker, fixes, at_s)
        if report.cpu_s is not None:
            self._cores.add(report.worker, cpu_s, at_s)
        while report.worker not in self._workers and len(self._workers) >= MAX_UNITS:
            del self._workers[next(iter(self._workers))]
        series = self._workers.setdefault(report.worker, deque(maxlen=64))
        series.append(_WorkerSample(at_s, lag, report.cpu_s is not None, report.latency))
        while len(series) > 2 and at_s - series[1].at_s >= WINDOW_S:
            series.popleft()

    def workers(self, at_s: float) -> WorkerSignals:
        """The signals of the workers now."""
        self._workers = {
            name: series for name, series in self._workers.items() if at_s - series[-1].at_s <= STALE_S
        }
        all_series = list(self._workers.values())
        if not all_series:
            return WorkerSignals(0, None, None, None, None, None, None)
        # a lag in a single report is a partition that changes its owner
        lag = sum(min(sample.lag for sample in list(series)[-2:]) for series in all_series)
        self._lag.note(at_s, lag)
        counted = self._counted.per_s(at_s)
        cpu_known = all(series[-1].cpu_known for series in all_series)
        return WorkerSignals(
            reporting=len(all_series),
            age_s=max(at_s - series[-1].at_s for series in all_series),
            fixes_per_s=None if counted is None else max(counted + (self._lag.per_s(at_s) or 0.0), 0.0),
            counted_per_s=counted,
            lag=lag,
            cores=self._cores.per_s(at_s) if cpu_known else None,
            latency_p99_s=quantile(0.99, all_series),
        )

    def adapters_per_s(self, at_s: float) -> float | None:
        """Messages in other formats that were translated, per second."""
        return self._translated.per_s(at_s)

    def brokers(self, at_s: float, units: dict[str, BrokerUnit]) -> BrokerSignals:
        """The signals of the brokers now; `units` are the live ones, as just read."""
        if not units:
            return BrokerSignals(frozenset(), None, None, None)
        for unit in units.values():
            self._broker_cores.add((unit.name, unit.started_s), unit.cpu_s, at_s)
        return BrokerSignals(
            reporting=frozenset(units),
            connections=sum(unit.connections for unit in units.values()),
            messages_per_s=sum(unit.messages_per_s for unit in units.values()),
            cores=self._broker_cores.per_s(at_s),
        )


def quantile(q: float, all_series: list[deque[_WorkerSample]]) -> float | None:
    """A quantile in seconds of all workers' latencies within the window; None without any.

    Latencies are assumed to be spread evenly within a bucket; above the last bound, that bound is returned.
    """
    added: dict[float, float] = {}
    total = 0.0
    for series in all_series:
        first, last = series[0].latency, series[-1].latency
        if first is None or last is None or first.le != last.le or len(last.le) != len(last.counts):
            continue
        if len(first.counts) != len(last.counts):
            continue
        total += max(last.count - first.count, 0.0)
        for le, before, now in zip(last.le, first.counts, last.counts, strict=True):
            added[le] = added.get(le, 0.0) + max(now - before, 0.0)
    if total <= 0 or not added:
        return None
    below, lower = 0.0, 0.0
    for le in sorted(added):
        if added[le] >= q * total:
            inside = added[le] - below
            return lower + (le - lower) * ((q * total - below) / inside if inside > 0 else 1.0)
        below, lower = added[le], le
    return lower


def _checked(value: float) -> float:
    if not 0 <= value <= MAX_VALUE:
        raise ValueError(f"{value} is out of range")
    return value
