"""What workers and brokers say about themselves, as signals with ages.

Whoever hears the messages passes the time in. Rates are means over the last
`WINDOW_S`, from absolute numbers, so a lost message changes nothing. The rate of the workers is what
they counted and what their lag grew by: fixes that come, not only those that are counted.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from headcount.wire import BrokerUnit

#: Rates are taken over so long: long enough for noise, short enough for a peak.
WINDOW_S = 10.0
#: Who has said nothing for so long is silent (it speaks every second).
STALE_S = 6.0
#: More than there can be; whoever sends under ever new names doesn't fill our memory.
MOST_HEARD = 1000

_log = logging.getLogger(__name__)
K = TypeVar("K")
V = TypeVar("V")


class _Latency(msgspec.Struct):
    le: list[float]
    counts: list[float]
    sum: float = 0.0
    count: float = 0.0


class CountReport(msgspec.Struct):
    """The part of `metrics.count.<worker>` that the scaler needs."""

    worker: str
    verdicts: dict[str, dict[str, float]] = {}
    lag: float = 0.0
    latency: _Latency | None = None
    fixes_per_s: float = 0.0
    cpu_s: float | None = None


class AdapterReport(msgspec.Struct):
    """The part of `metrics.adapters.<worker>` that the scaler needs."""

    worker: str
    translated: dict[str, float] = {}


_count_report = msgspec.json.Decoder(CountReport)
_adapter_report = msgspec.json.Decoder(AdapterReport)


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    fixes: float
    lag: float
    cpu_s: float | None
    latency: _Latency | None
    told_per_s: float


@dataclass(frozen=True, slots=True)
class WorkerSignals:
    """What all workers that were heard lately say together; None = not known."""

    heard: int
    age_s: float | None  # of the oldest last word among them
    fixes_per_s: float | None  # that come in
    counted_per_s: float | None
    lag: float | None
    cores: float | None  # CPU seconds per second, of all
    latency_p99_s: float | None


@dataclass(frozen=True, slots=True)
class BrokerSignals:
    """What all brokers that live say together; None = not known."""

    heard: frozenset[str]
    connections: int | None
    messages_per_s: float | None
    cores: float | None


class Heard:
    """The last words of workers and adapters, and of brokers."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.refused = 0
        self._workers: dict[str, deque[_Sample]] = {}
        self._adapters: dict[str, deque[tuple[float, float]]] = {}
        self._brokers: dict[tuple[str, float], deque[tuple[float, float]]] = {}

    def take(self, subject: str, payload: bytes, at_s: float) -> None:
        """Take a message of `metrics.>`; one that is no report is counted in `refused`."""
        try:
            if subject.startswith("metrics.count."):
                self._take_count(_count_report.decode(payload), at_s)
            elif subject.startswith("metrics.adapters."):
                report = _adapter_report.decode(payload)
                series = _series(self._adapters, report.worker)
                series.append((at_s, sum(report.translated.values())))
                _trim(series, at_s)
        except (msgspec.DecodeError, ValueError) as error:
            self.refused += 1
            _log.debug("%s: not a report: %s", subject, error)

    def _take_count(self, report: CountReport, at_s: float) -> None:
        fixes = sum(n for by_verdict in report.verdicts.values() for n in by_verdict.values())
        if not all(math.isfinite(value) and value >= 0 for value in (fixes, report.lag, report.cpu_s or 0.0)):
            raise ValueError("a number that can't be")
        series = _series(self._workers, report.worker)
        if series and fixes < series[-1].fixes:  # it counts from zero again
            series.clear()
        series.append(_Sample(at_s, fixes, report.lag, report.cpu_s, report.latency, report.fixes_per_s))
        while len(series) > 2 and at_s - series[1].at_s >= WINDOW_S:
            series.popleft()

    def workers(self, at_s: float) -> WorkerSignals:
        """The workers now."""
        self._workers = {
            name: series for name, series in self._workers.items() if at_s - series[-1].at_s <= STALE_S
        }
        all_series = list(self._workers.values())
        if not all_series:
            return WorkerSignals(0, None, None, None, None, None, None)
        counted = sum(map(_counted, all_series))
        grown = sum(_slope([(s.at_s, s.lag) for s in series]) for series in all_series)
        # a lag that was there for one report only is a partition changing hands
        lag = sum(min(sample.lag for sample in list(series)[-2:]) for series in all_series)
        cpu = [[(s.at_s, s.cpu_s) for s in series if s.cpu_s is not None] for series in all_series]
        return WorkerSignals(
            heard=len(all_series),
            age_s=max(at_s - series[-1].at_s for series in all_series),
            fixes_per_s=max(counted + grown, 0.0),
            counted_per_s=counted,
            lag=lag,
            cores=sum(map(_slope, cpu)) if all(len(points) > 1 for points in cpu) else None,
            latency_p99_s=quantile(0.99, all_series),
        )

    def adapters_per_s(self, at_s: float) -> float | None:
        """Messages of other formats that became fixes, per second."""
        self._adapters = {
            name: series for name, series in self._adapters.items() if at_s - series[-1][0] <= STALE_S
        }
        rates = [_slope(list(series)) for series in self._adapters.values() if len(series) > 1]
        return sum(rates) if rates else None

    def brokers(self, at_s: float, units: dict[str, BrokerUnit]) -> BrokerSignals:
        """The brokers now; `units` are those that live, as just read."""
        for unit in units.values():
            series = _series(self._brokers, (unit.name, unit.started_s))
            if not series or series[-1][1] != unit.cpu_s:
                series.append((at_s, unit.cpu_s))
            _trim(series, at_s)
        alive = {(unit.name, unit.started_s) for unit in units.values()}
        self._brokers = {key: series for key, series in self._brokers.items() if key in alive}
        if not units:
            return BrokerSignals(frozenset(), None, None, None)
        rates = [_slope(list(series)) for series in self._brokers.values() if len(series) > 1]
        return BrokerSignals(
            heard=frozenset(units),
            connections=sum(unit.connections for unit in units.values()),
            messages_per_s=sum(unit.messages_per_s for unit in units.values()),
            cores=sum(rates) if len(rates) == len(units) else None,
        )


def quantile(q: float, all_series: list[deque[_Sample]]) -> float | None:
    """A quantile in seconds of the latencies within the window, over all workers; None where there were none.

    Within a bucket it is taken as evenly spread; above the last bound it is that bound.
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


def _counted(series: deque[_Sample]) -> float:
    """Fixes per second of one worker; after its first report, what it says itself."""
    if len(series) < 2:
        return max(series[-1].told_per_s, 0.0)
    return _slope([(s.at_s, s.fixes) for s in series])


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Per second, from the first to the last."""
    if len(points) < 2 or points[-1][0] <= points[0][0]:
        return 0.0
    return (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])


def _series(table: dict[K, deque[V]], key: K) -> deque[V]:
    if key not in table:
        while len(table) >= MOST_HEARD:
            del table[next(iter(table))]
        table[key] = deque(maxlen=64)
    return table[key]


def _trim(series: deque[tuple[float, float]], at_s: float) -> None:
    while len(series) > 2 and at_s - series[1][0] >= WINDOW_S:
        series.popleft()
