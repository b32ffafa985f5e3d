"""Totals of a site: the sums of what its partitions report, always of one and the same instant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from headcount.counting.fix_columns import I4
from headcount.messages.times import TICK_S

#: The others no longer wait for a partition without a report for longer than this.
OVERDUE_S = 1.0
#: A partition whose newest report is older than this is not fresh.
FRESH_S = 2.0
#: Instants for which some partition is still awaited; beyond it the oldest one is dropped.
MAX_PENDING = 50


@dataclass(frozen=True, slots=True)
class Total:
    """The counts of the whole site.

    With every partition's report of the instant `at` it is exact: it counts what was received at
    or before `at` and nothing else. Where a partition is overdue, it is the sum of the newest
    reports, and `at` is the oldest of them: up to that instant the counts are complete.
    """

    at: float  # Unix seconds
    values: I4  # [Z, 2 kinds, 4 numbers], not to be changed
    partitions_fresh: int
    partitions_total: int


@dataclass(frozen=True, slots=True)
class _Report:
    epoch: int
    at: float
    values: I4


class Totals:
    """Sums the partitions' reports over all partitions.

    Per partition only the newest epoch counts. A report of an older epoch is ignored; the first
    one of a newer epoch drops the older epoch's reports of instants that are not yet summed.
    A newer epoch that starts behind its predecessor leaves the predecessor's newest report in
    place until it has caught up: both are functions of the same log.

    Memory: the newest report of each partition and at most `MAX_PENDING` instants.
    """

    def __init__(self, partitions: int, zones: int) -> None:
        """Expect reports of the partitions 0 to `partitions - 1` with `zones` zones each."""
        self.partitions = partitions
        self.zones = zones
        self._epochs = [-1] * partitions
        self._newest: list[_Report | None] = [None] * partitions
        self._pending: dict[int, dict[int, I4]] = {}  # instant in ticks → partition → values
        self._done_tick = -1  # the newest instant that was summed or dropped

    def add(self, partition: int, epoch: int, at: float, values: I4) -> list[Total]:
        """Take a partition's report of the instant `at` (Unix seconds, a multiple of `TICK_S`).

        Args:
            partition: which one.
            epoch: of the lease under which it was counted.
            at: the instant.
            values: int32 [Z, 2, 4]; kept, so it must not be changed afterwards.

        Returns:
            The total of that instant if this was its last missing report, else nothing.

        Raises:
            ValueError: there is no such partition, or the array has another shape.
        """
        self._check(partition, values)
        if epoch < self._epochs[partition]:
            return []
        if epoch > self._epochs[partition]:
            for reports in self._pending.values():
                reports.pop(partition, None)
            self._epochs[partition] = epoch
        newest = self._newest[partition]
        if newest is None or at >= newest.at:
            self._newest[partition] = _Report(epoch, at, values)
        return self._sum_if_complete(partition, round(at / TICK_S), at, values)

    def overdue(self, now: float) -> Total | None:
        """The sum of the newest reports, if some partition has sent no report for `OVERDUE_S`.

        None while all partitions report in time, and until the first report of any.
        """
        known = [report for report in self._newest if report is not None]
        if not known:
            return None
        oldest = min(report.at for report in known)
        if len(known) == self.partitions and now - oldest <= OVERDUE_S:
            return None
        return Total(oldest, _sum((r.values for r in known), self.zones), self.fresh(now), self.partitions)

    def fresh(self, now: float) -> int:
        """The number of partitions with a report at most `FRESH_S` old."""
        return sum(1 for report in self._newest if report is not None and now - report.at <= FRESH_S)

    def silent(self, now: float) -> list[int]:
        """The partitions that are not fresh."""
        return [p for p, report in enumerate(self._newest) if report is None or now - report.at > FRESH_S]

    def _check(self, partition: int, values: I4) -> None:
        if not 0 <= partition < self.partitions:
            raise ValueError(f"partition {partition} of {self.partitions}")
        if values.shape != (self.zones, 2, 4):
            raise ValueError(f"counts of shape {values.shape}, expected ({self.zones}, 2, 4)")

    def _sum_if_complete(self, partition: int, tick: int, at: float, values: I4) -> list[Total]:
        if tick <= self._done_tick:
            return []
        reports = self._pending.setdefault(tick, {})
        reports[partition] = values
        if len(reports) < self.partitions:
            if len(self._pending) > MAX_PENDING:
                self._give_up(min(self._pending))
            return []
        self._give_up(tick)
        return [Total(at, _sum(reports.values(), self.zones), self.partitions, self.partitions)]

    def _give_up(self, tick: int) -> None:
        """Stop waiting for reports of this instant and of those before it."""
        self._done_tick = tick
        for earlier in [t for t in self._pending if t <= tick]:
            del self._pending[earlier]


def _sum(reports: Iterable[I4], zones: int) -> I4:
    total: I4 = np.zeros((zones, 2, 4), np.int32)
    for values in reports:
        total += values
    total.setflags(write=False)
    return total
