"""Metrics in the form of the Prometheus library, and sums of reported numbers."""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

MAX_WORKERS = 1000
Key = tuple[str, ...]


class MonotonicSums:
    """Counters that never fall, from workers' absolute numbers."""

    def __init__(self) -> None:
        self.totals: dict[Key, float] = {}
        self._last: dict[str, dict[Key, float]] = {}

    def take(self, worker: str, numbers: dict[Key, float]) -> None:
        """Add a worker's absolute numbers; if they fell, it has started again from zero."""
        last = self._last.pop(worker, {})
        restarted = any(numbers.get(key, 0.0) < value for key, value in last.items())
        for key, value in numbers.items():
            added = value if restarted else value - last.get(key, 0.0)
            self.totals[key] = self.totals.get(key, 0.0) + added
        self._last[worker] = numbers
        while len(self._last) > MAX_WORKERS:
            del self._last[next(iter(self._last))]


def counter(name: str, text: str, labels: tuple[str, ...], values: dict[Key, float]) -> Metric:
    """A counter with labels."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def gauge(name: str, text: str, value: float | None) -> Metric:
    """A gauge without labels; no sample if there is no value."""
    family = GaugeMetricFamily(name, text)
    if value is not None:
        family.add_metric((), value)
    return family


def histogram(name: str, text: str, values: dict[Key, float]) -> Metric:
    """A histogram of cumulative counts by `("le", bound)`, and their `("sum",)`."""
    family = HistogramMetricFamily(name, text)
    bounds = sorted(float(key[1]) for key in values if key[0] == "le")
    if bounds:
        buckets = [("+Inf" if b == float("inf") else repr(b), values["le", repr(b)]) for b in bounds]
        family.add_metric((), buckets, values[("sum",)])
    return family
