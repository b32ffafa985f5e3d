"""Metrics of the adapters: messages of other formats, and processes of decoders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from prometheus_client.core import GaugeMetricFamily, Metric

from headcount.api.metric_families import MAX_WORKERS, Key, MonotonicSums, counter
from headcount.messages.reports import AdapterReport

T = TypeVar("T")
#: An adapter without a report for longer is gone; it reports once a second.
ADAPTER_TIMEOUT_S = 5.0
MAX_FORMATS, MAX_REASONS, MAX_LABEL_CHARS = 32, 64, 64
_COUNTERS = {"translated": ("format",), "rejected": ("format", "reason"), "ignored": ("format", "reason")}


class AdapterMetrics:
    """Sums of what the adapters report."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` returns seconds."""
        self._clock = clock
        self._sums = MonotonicSums()
        self._reports: dict[str, tuple[float, AdapterReport]] = {}

    def take(self, report: AdapterReport) -> None:
        """Add a report."""
        numbers: dict[Key, float] = {("translated", _label(name)): n for name, n in _first(report.translated)}
        for what, by_format in (("rejected", report.rejected), ("ignored", report.ignored)):
            for name, by_reason in _first(by_format):
                numbers |= {
                    (what, _label(name), _label(reason)): n
                    for reason, n in sorted(by_reason.items())[:MAX_REASONS]
                }
        self._sums.take(report.worker, numbers)
        self._reports.pop(report.worker, None)
        self._reports[report.worker] = self._clock(), report
        while len(self._reports) > MAX_WORKERS:
            del self._reports[next(iter(self._reports))]

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        for what, labels in _COUNTERS.items():
            values = {key[1:]: n for key, n in self._sums.totals.items() if key[0] == what}
            name = f"headcount_adapter_{what}_messages"
            yield counter(name, f"Messages of other formats that were {what}.", labels, values)
        running: dict[str, int] = {}
        for at, report in self._reports.values():
            if self._clock() - at <= ADAPTER_TIMEOUT_S:
                for name, runs in _first(report.running):
                    running[_label(name)] = running.get(_label(name), 0) + runs
        text = "Running processes of decoders of other packages."
        family = GaugeMetricFamily("headcount_adapter_decoders_running", text, labels=("format",))
        for name, number in sorted(running.items()):
            family.add_metric((name,), number)
        yield family


def _first(by_format: Mapping[str, T]) -> list[tuple[str, T]]:
    return sorted(by_format.items(), key=lambda item: item[0])[:MAX_FORMATS]


def _label(text: str) -> str:
    return text[:MAX_LABEL_CHARS]
