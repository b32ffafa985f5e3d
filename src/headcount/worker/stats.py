"""Counters of a counting worker, reported once a second."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from headcount.counting.fix_columns import F8, I8
from headcount.messages.fixes import VERDICTS
from headcount.messages.reports import LatencyHistogram, WorkerReport
from headcount.messages.topics import KINDS

#: Upper bounds in seconds of the histogram of received → counted.
LATENCY_LE = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


@dataclass(slots=True)
class WorkerStats:
    """Counters since the worker's start."""

    verdicts: I8 = field(default_factory=lambda: np.zeros((len(KINDS) + 1, len(VERDICTS)), dtype=np.int64))
    latency: I8 = field(default_factory=lambda: np.zeros(len(LATENCY_LE) + 1, dtype=np.int64))
    latency_sum_s: float = 0.0
    _reported: tuple[float, int] = field(default_factory=lambda: (time.monotonic(), 0))

    def add(self, verdicts: I8, received_s: list[F8], now_s: float) -> None:
        """Add fixes by [kind (the last row: unknown), verdict], and the times at which they were received."""
        self.verdicts += verdicts
        for part in received_s:
            age_s = now_s - part
            self.latency += np.bincount(np.searchsorted(LATENCY_LE, age_s), minlength=len(LATENCY_LE) + 1)
            self.latency_sum_s += float(age_s.sum())

    def report(self, worker: str, lag: int, partitions: int) -> WorkerReport:
        """All counters; the rate is since the last report."""
        now, fixes = time.monotonic(), int(self.verdicts.sum())
        (then, before), self._reported = self._reported, (now, fixes)
        return WorkerReport(
            worker=worker,
            verdicts={
                kind: dict(zip(VERDICTS, self.verdicts[row].tolist(), strict=True))
                for row, kind in enumerate((*KINDS, "unknown"))
            },
            lag=lag,
            partitions=partitions,
            latency=LatencyHistogram(
                le=list(LATENCY_LE),
                counts=np.cumsum(self.latency)[:-1].tolist(),
                sum=self.latency_sum_s,
                count=int(self.latency.sum()),
            ),
            cpu_s=time.process_time(),
            fixes_per_s=(fixes - before) / max(now - then, 1e-9),
        )
