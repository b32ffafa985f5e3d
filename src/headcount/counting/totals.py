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
MAX_PENDING = 100


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
    site_version: int = 1  # of the site; decides what the zones are


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

    A new version of the site replaces the old one with the first total of all partitions.

    Memory: the newest report of each partition, of each version that is waited for, and at most `MAX_PENDING`
    instants.
    """

    def __init__(self, partitions: int) -> None:
        """Expect reports of the partitions 0 to `partitions - 1`."""
        self.partitions = partitions
        self.site_version = 0  # of the newest total; 0 = no report yet
        self._epochs = [-1] * partitions
        self._reports: dict[int, list[_Report | None]] = {}  # version of the site → newest of each partition
        self._pending: dict[int, dict[int, I4]] = {}  # instant in ticks → partition → values
        self._done_tick = -1  # the newest instant that was summed or dropped

    def add(self, partition: int, epoch: int, at: float, values: I4, site_version: int = 1) -> list[Total]:
        """Take a partition's report of the instant `at` (Unix seconds, a multiple of `TICK_S`).

        Args:
            partition: which one.
            epoch: of the lease under which it was counted.
            at: the instant.
            values: int32 [Z, 2, 4]; kept, so it must not be changed afterwards.
            site_version: the version of the site with these zones.

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
        if site_version < self.site_version:
            return []
        self.site_version = self.site_version or site_version
        own = self._reports.setdefault(site_version, [None] * self.partitions)
        newest = own[partition]
        if newest is None or at >= newest.at:
            own[partition] = _Report(epoch, at, values)
        totals = self._sum_if_complete(partition, round(at / TICK_S), at, values, site_version)
        if totals and site_version != self.site_version:
            self.site_version = site_version
            self._reports = {
                version: own for version, own in self._reports.items() if version >= site_version
            }
        return totals

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
        total = _sum(report.values for report in known)
        return Total(oldest, total, self.fresh(now), self.partitions, self.site_version)

    @property
    def _newest(self) -> list[_Report | None]:
        return self._reports.get(self.site_version, [None] * self.partitions)

    def fresh(self, now: float) -> int:
        """The number of partitions with a report at most `FRESH_S` old."""
        return sum(1 for report in self._newest if report is not None and now - report.at <= FRESH_S)

    def silent(self, now: float) -> list[int]:
        """The partitions that are not fresh."""
        return [p for p, report in enumerate(self._newest) if report is None or now - report.at > FRESH_S]

    def _check(self, partition: int, values: I4) -> None:
        if not 0 <= partition < self.partitions:
            raise ValueError(f"partition {partition} of {self.partitions}")
        if values.shape[1:] != (2, 4):
            raise ValueError(f"counts of shape {values.shape}, expected (zones, 2, 4)")

    def _sum_if_complete(
        self, partition: int, tick: int, at: float, values: I4, site_version: int
    ) -> list[Total]:
        if tick <= self._done_tick:
            return []
        reports = self._pending.setdefault(tick, {})
        reports[partition] = values
        if len(reports) < self.partitions:
            if len(self._pending) > MAX_PENDING:
                self._give_up(min(self._pending))
            return []
        self._give_up(tick)
        if len({each.shape for each in reports.values()}) > 1:
            return []  # of different versions, while the core's clock was set back
        return [Total(at, _sum(reports.values()), self.partitions, self.partitions, site_version)]

    def _give_up(self, tick: int) -> None:
        """Stop waiting for reports of this instant and of those before it."""
        self._done_tick = tick
        for earlier in [t for t in self._pending if t <= tick]:
            del self._pending[earlier]


def _sum(reports: Iterable[I4]) -> I4:
    total: I4 = np.sum(list(reports), axis=0, dtype=np.int32)
    total.setflags(write=False)
    return total
