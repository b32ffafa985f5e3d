"""Upkeep of the history: expiry, derived data sets, compaction, and deletion of objects that are not needed any more.

Any number of processes may run it at the same time: each step is a compare-and-set of the manifest, and a
process that comes second changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from headcount.errors import DamagedSegmentError
from headcount.history.catalog import Catalog
from headcount.history.compaction import compact
from headcount.history.damage import SEGMENT, foreign_objects, set_aside
from headcount.history.derive import derive
from headcount.history.manifest import Manifest, Removed
from headcount.history.retention import expire
from headcount.settings.retention_periods import RetentionPeriods

_log = logging.getLogger(__name__)

#: Time that a query may use a manifest: segments which were replaced or have expired are deleted after it.
DELETE_AFTER_S = 300.0
#: Time after which an object that no manifest names is removed. A writer that needs longer than this from
#: writing a segment to its commit writes it again (see `Catalog.commit`), so it only saves work.
ORPHAN_AGE_S = 3600.0
#: Interval between two lists of all objects, which cost requests on S3.
SWEEP_INTERVAL_S = 600.0


@dataclass(slots=True)
class UpkeepStats:
    """Totals since the start."""

    expired: int = 0  # rows
    derived: int = 0  # hours of minutes and flows
    compacted: int = 0  # segments that were replaced by fewer
    deleted: int = 0  # objects
    damaged: int = 0  # segments set aside


class Upkeep:
    """Upkeep of a history by one of its writers."""

    def __init__(
        self, catalog: Catalog, periods: RetentionPeriods, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        """`is_over`: whether the process is to end, so that no further segments are merged."""
        self.stats = UpkeepStats()
        self._is_over = is_over
        self._catalog = catalog
        self._periods = periods
        self._swept_s: float | None = None
        self._foreign: set[str] = set()

    def run(self, now_s: float, share: tuple[int, int] = (0, 1)) -> None:
        """Do everything that is due.

        Args:
            now_s: Unix seconds.
            share: this writer's number among the live writers, and theirs: it compacts this share of the hours.

        Raises:
            DataFolderError, StoreError: the store cannot be read or written. Nothing is lost.
        """
        self._without_damage(lambda: self._expire(now_s), now_s)
        self._without_damage(lambda: self._derive(now_s), now_s)
        self._without_damage(lambda: self._compact(now_s, share), now_s)
        self.stats.deleted += delete_removed(self._catalog, now_s)
        if self._swept_s is None or not 0 <= now_s - self._swept_s < SWEEP_INTERVAL_S:
            self._sweep(now_s)
            self._swept_s = now_s

    def _expire(self, now_s: float) -> None:
        self.stats.expired += expire(self._catalog, self._periods, now_s)

    def _derive(self, now_s: float) -> None:
        kept_s = min(self._periods.longest_s("counts"), self._periods.longest_s("events"))
        self.stats.derived += derive(self._catalog, now_s, kept_s=kept_s)

    def _compact(self, now_s: float, share: tuple[int, int]) -> None:
        self.stats.compacted += compact(self._catalog, now_s, share, self._is_over)

    def _without_damage(self, step: Callable[[], None], now_s: float) -> None:
        """Do a step again, without damaged segments, until it meets none."""
        while True:
            try:
                return step()
            except DamagedSegmentError as error:
                # one that is gone was replaced meanwhile by another process
                self.stats.damaged += set_aside(self._catalog, error.name, error.problem, now_s)

    def _sweep(self, now_s: float) -> None:
        found = list(self._catalog.store.list_())
        foreign = set(foreign_objects(found))
        for name in sorted(foreign - self._foreign):
            _log.warning("history in %s: %s is foreign and is ignored", self._catalog.store.url, name)
        self._foreign = foreign
        old = {
            each.name
            for each in found
            if SEGMENT.fullmatch(each.name) and each.modified_s < now_s - ORPHAN_AGE_S
        }

        def change(before: Manifest) -> Manifest | None:
            orphans = old - before.names() - {each.name for each in before.removed}
            if not orphans:
                return None
            removed = (*before.removed, *(Removed(name, now_s) for name in sorted(orphans)))
            return msgspec.structs.replace(before, removed=removed)

        self._catalog.commit(change)


def delete_removed(catalog: Catalog, now_s: float) -> int:
    """Delete the objects that were removed from the manifest DELETE_AFTER_S ago; returns their number."""
    due = {
        each
        for each in catalog.manifest().removed
        if not now_s - DELETE_AFTER_S < each.at_s <= now_s + DELETE_AFTER_S
    }
    if not due:
        return 0
    catalog.store.delete(sorted(each.name for each in due))

    def change(before: Manifest) -> Manifest | None:
        removed = tuple(each for each in before.removed if each not in due)
        if len(removed) == len(before.removed):
            return None
        return msgspec.structs.replace(before, removed=removed)

    catalog.commit(change)
    return len(due)
