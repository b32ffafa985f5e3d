"""Public counts: the same numbers now, in streams and in the history, computed once per instant.

docs/concepts/public-counts.md describes them, and `counting/disclosure.py` computes them. This module keeps
the newest for readers, and a day of them for queries about the past.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from headcount.api.api_settings import ApiSettings
from headcount.api.live_counts import CountsFeed, CountsSnapshot, fragment
from headcount.counting.disclosure import (
    GRID_S,
    SUPPRESSED,
    WITHHELD,
    Disclosure,
    as_public,
    disclosure_key,
    grid_before,
    on_grid,
)
from headcount.counting.fix_columns import I4
from headcount.counting.site import Zone
from headcount.counting.site_versions import SiteVersion, SiteVersions
from headcount.counting.totals import Total
from headcount.history.count_queries import counts_on_grid
from headcount.history.forecast import SLOTS
from headcount.history.reader import HistoryView
from headcount.history.retention import KEEP_S
from headcount.history.series import counts_on_minutes
from headcount.history.weeks import HIDDEN
from headcount.messages.counts import PublicKindCount
from headcount.messages.times import tick_s
from headcount.messages.topics import KINDS, Kind

#: Forecasts for the public rest on the public counts of this many days.
FORECAST_DAYS = 14
#: The number of instants in memory: a day, those behind a forecast, and a bit.
MAX_INSTANTS = round(KEEP_S / GRID_S) + FORECAST_DAYS * SLOTS + 60
HALF_HOUR_S = 1800.0
#: The number of rows read from the history at a time.
MAX_ROWS_PER_QUERY = 400_000


class PublicCountsSnapshot(CountsSnapshot):
    """Public counts of an instant; `total.values` is int32 [Z, 2, 1]."""

    def __init__(self, number: int, total: Total, zones: tuple[Zone, ...], smallest: int) -> None:
        """Counts below `smallest` are hidden."""
        super().__init__(number, total, zones)
        self._fragments = [
            fragment(zone, _kinds(row, smallest))
            for zone, row in zip(zones, total.values[:, :, 0].tolist(), strict=True)
        ]

    @property
    def fragments(self) -> list[msgspec.Raw]:  # the same, computed in advance
        """Each zone's counts as JSON, in the order of the site."""
        return self._fragments


class PublicCounts(CountsFeed):
    """The public counts of the last day; they change only at multiples of `GRID_S`."""

    def __init__(
        self, sites: SiteVersions, partitions: int, smallest: int, key: bytes, *, first_start: bool = False
    ) -> None:
        """Hide counts below `smallest`; `first_start`: nothing has been counted before the first total."""
        super().__init__(sites, partitions)
        self._smallest = smallest
        self._key = key
        self._disclosures: dict[SiteVersion, Disclosure] = {}
        self._first_start = first_start
        self._values: OrderedDict[float, I4] = OrderedDict()
        self._lock = threading.Lock()  # queries about the past run in threads

    @property
    def smallest(self) -> int:
        """The smallest count that is shown."""
        return self._smallest

    def take(self, total: Total) -> None:
        """Take an exact total; only those on the grid are published, and an empty site at the first start."""
        is_first, self._first_start = self._first_start, False
        if on_grid(total.at):
            at_s = float(round(total.at))
        elif is_first and not total.values.any():
            at_s = grid_before(total.at)  # the site was empty then, too
        else:
            return
        version = self.sites.at(at_s)
        if len(version.site.zones) != len(total.values):
            return
        if version is not self.version:
            self._use(version)
        self._number += 1
        values = self._publish(at_s, total.values[:, :, 0])
        self._set_snapshot(self._snapshot(at_s, values, self._number))

    def at(self, view: HistoryView, moment_s: float) -> CountsSnapshot | None:
        """Return the newest public counts at or before a moment, from memory or the history; may block.

        Returns:
            None if nothing is recorded within the day before.

        Raises:
            DataFolderError, StoreError: the history cannot be read.
        """
        newest_s = grid_before(moment_s)
        for first_s in self._steps_back(newest_s):
            last_s = min(first_s + self._span_s() - GRID_S, newest_s)
            known = self._remembered(_steps(first_s, last_s, GRID_S))
            if known and max(known) == last_s:
                return self._snapshot(last_s, known[last_s], 0)
            recorded = self._recorded(view, first_s, last_s, GRID_S)
            if known or recorded:
                at_s = max((*known, *recorded))
                values = known[at_s] if at_s in known else self._publish(at_s, recorded[at_s])
                return self._snapshot(at_s, values, 0)
        return None

    def history(
        self, view: HistoryView, zone: str, span_s: tuple[float, float], step_s: float
    ) -> list[tuple[float, dict[str, object]]]:
        """Return a zone's instants and public counts at the multiples of `step_s`, oldest first; may block.

        Raises:
            DataFolderError, StoreError: the history cannot be read.
        """
        smallest = self._smallest
        rows: dict[float, dict[str, object]] = {}
        first_s, end_s = math.ceil(span_s[0] / step_s) * step_s, span_s[1]
        while first_s <= end_s:
            last_s = min(first_s + self._span_s() * (step_s / GRID_S) - step_s, end_s)
            for at_s, values in self._between(view, first_s, last_s, step_s).items():
                index = self._zone_ids(at_s).get(zone)
                if index is None:  # another version of the site was in effect
                    continue
                rows[at_s] = {
                    kind: {"count": as_public(number, smallest), "min": None, "max": None, "mean": None}
                    for kind, number in zip(KINDS, values[index].tolist(), strict=True)
                }
            first_s = (last_s // step_s + 1) * step_s
        return sorted(rows.items(), key=lambda row: row[0])

    def published(self, at_s: float, zones: Mapping[str, Sequence[int]]) -> dict[str, list[int]] | None:
        """Return the public counts [2] of each zone at a multiple of GRID_S, given the exact ones; may block.

        Returns:
            None where the exact count of a zone is missing: public counts depend on all zones.
        """
        index = self._zone_ids(at_s)
        known = self._remembered([at_s])
        if not known and not index.keys() <= zones.keys():
            return None
        values = known.get(at_s)
        if values is None:
            values = self._publish(at_s, np.array([zones[zone] for zone in index], np.int32))
        return dict(zip(index, values.tolist(), strict=True))

    def half_hours(
        self, view: HistoryView, zone: str, span_s: tuple[float, float]
    ) -> dict[Kind, dict[float, float]]:
        """Return a zone's public counts at half past each hour, or HIDDEN, by the instant; may block.

        Raises:
            QueryError, DataFolderError, StoreError: the history cannot be read.
        """
        found: dict[Kind, dict[float, float]] = {kind: {} for kind in KINDS}
        recorded = self._recorded(view, *span_s, HALF_HOUR_S)
        for at_s in sorted(at_s for at_s in recorded if at_s % (2 * HALF_HOUR_S)):
            view.check_time()
            index = self._zone_ids(at_s).get(zone)
            if index is None:
                continue
            values = self._disclosure(at_s).publish(at_s, recorded[at_s])[index]
            for kind, number in zip(KINDS, values.tolist(), strict=True):
                if number != WITHHELD:
                    found[kind][at_s] = HIDDEN if number == SUPPRESSED else number
        return found

    def seconds_to_next(self, now_s: float) -> int:
        """Return the time until new counts are published."""
        return max(1, math.ceil(grid_before(now_s) + GRID_S - now_s) + 1)

    def _span_s(self) -> float:
        """Return the span of one history query."""
        return min(float(KEEP_S), GRID_S * max(1, MAX_ROWS_PER_QUERY // len(self.zones)))

    def _steps_back(self, newest_s: float) -> Iterator[float]:
        """Yield the starts of the spans to search: the last minutes, then further and further back."""
        yield max(0.0, newest_s - 2 * GRID_S)
        span_s = self._span_s()
        first_s = newest_s
        while newest_s - first_s < KEEP_S and first_s > 0:
            first_s = max(0.0, first_s - span_s)
            yield first_s

    def _between(self, view: HistoryView, from_s: float, to_s: float, step_s: float) -> dict[float, I4]:
        """Return the public counts at the multiples of `step_s` in a span, from memory and the history."""
        wanted = _steps(from_s, to_s, step_s)
        known = self._remembered(wanted)
        missing = [at_s for at_s in wanted if at_s not in known]
        if missing:
            for at_s, counts in self._recorded(view, missing[0], missing[-1], step_s).items():
                if at_s not in known:
                    known[at_s] = self._publish(at_s, counts)
        return known

    def _remembered(self, instants: list[float]) -> dict[float, I4]:
        with self._lock:
            return {at_s: self._values[at_s] for at_s in instants if at_s in self._values}

    def _recorded(self, view: HistoryView, from_s: float, to_s: float, step_s: float) -> dict[float, I4]:
        """Return exact counts [Z, 2] from the history."""
        site = self.sites.site_id
        found = counts_on_minutes(view, from_s, to_s, step_s, site=site)
        found |= counts_on_grid(view, from_s, to_s, step_s, site=site)
        return {
            at_s: np.array([zones[zone] for zone in self._zone_ids(at_s)], np.int32)
            for at_s, zones in found.items()
            # public counts depend on all zones
            if self._zone_ids(at_s).keys() <= zones.keys()
        }

    def _zone_ids(self, at_s: float) -> dict[str, int]:
        """Return the index of each zone of the version that was in effect."""
        return {zone.id: i for i, zone in enumerate(self.sites.at(at_s).site.zones)}

    def _publish(self, at_s: float, counts: I4) -> I4:
        values = self._disclosure(at_s).publish(at_s, counts)
        with self._lock:
            self._values[at_s] = values
            self._values.move_to_end(at_s)
            while len(self._values) > MAX_INSTANTS:
                self._values.popitem(last=False)
        return values

    def _disclosure(self, at_s: float) -> Disclosure:
        version = self.sites.at(at_s)
        with self._lock:
            disclosure = self._disclosures.get(version)
            if disclosure is None:
                disclosure = self._disclosures[version] = Disclosure(version.site, self._smallest, self._key)
        return disclosure

    def _snapshot(self, at_s: float, values: I4, number: int) -> PublicCountsSnapshot:
        total = Total(at_s, values[:, :, np.newaxis], self.partitions, self.partitions)
        return PublicCountsSnapshot(number, total, self.sites.at(at_s).site.zones, self._smallest)


def _steps(from_s: float, to_s: float, step_s: float) -> list[float]:
    """Return the multiples of a step in a span."""
    return [step_s * n for n in range(math.ceil(from_s / step_s), math.floor(to_s / step_s) + 1)]


def public_counts(
    settings: ApiSettings, sites: SiteVersions, has_counts: Callable[[], bool]
) -> PublicCounts | None:
    """Return the public counts of a site; None where the public sees exact ones.

    `has_counts` returns whether the history has counts.
    """
    if settings.smallest_shown <= 1:
        return None
    key = disclosure_key(settings.secret.encode())
    not_begun = tick_s(sites.begins_tick) > time.time()
    first_start = not_begun or not has_counts()
    return PublicCounts(sites, settings.partitions, settings.smallest_shown, key, first_start=first_start)


def _kinds(row: list[int], smallest: int) -> list[dict[str, Any]]:
    """Return a zone's public counts of people and of vehicles."""
    return [msgspec.structs.asdict(PublicKindCount(as_public(number, smallest))) for number in row]
