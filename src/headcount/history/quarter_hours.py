"""Counts by quarters of an hour, from minutes and from counts that are not derived yet: what forecasts rest on."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, tzinfo

import numpy as np
import pyarrow as pa

from headcount.counting.fix_columns import F8, I4, I8
from headcount.history.fix_rows import ticks
from headcount.history.forecast import MAX_DAYS, SLOT_S, SLOTS
from headcount.history.minutes import COUNT_COLUMNS, MINUTE_COLUMNS, MINUTE_S, minutes, steps
from headcount.history.reader import HistoryView
from headcount.history.retention import KEEP_S
from headcount.messages.topics import KINDS

#: Rows of quarters that stay in memory, 24 bytes each: five weeks of 1 200 zones.
MAX_CACHED_ROWS = 4_000_000


@dataclass(frozen=True, slots=True)
class QuarterCounts:
    """n parts of quarters of one zone; parts of the same quarter add up. A quarter is numbered by its end."""

    quarter: I4  # of SLOT_S seconds since 1970
    sums: I4  # [n, 2 kinds], over the instants
    instants: I4
    last: I4  # [n, 2], at the end of the quarter; -1 where it is not stored


class QuarterHours:
    """Reads the quarters of sites, in any number of threads; segments never change, so what was read is cached."""

    def __init__(self, max_rows: int = MAX_CACHED_ROWS) -> None:
        """Cache at most `max_rows` rows."""
        self._max_rows, self._rows = max_rows, 0
        self._known: OrderedDict[tuple[str, str], dict[str, QuarterCounts]] = OrderedDict()
        self._lock = threading.Lock()

    def zones(
        self, view: HistoryView, site: str, now_s: float, days: int = MAX_DAYS
    ) -> dict[str, QuarterCounts]:
        """The quarters of each zone of a site that have ended in the last days; may block.

        Raises:
            QueryError, DataFolderError, StoreError: the history cannot be read.
        """
        newest = int(now_s // SLOT_S)
        parts = []
        for segment in view.segments("minutes", site, now_s - days * SLOTS * SLOT_S, now_s):
            with self._lock:
                found = self._known.get((segment.name, site))
            if found is None:
                read = view.each([segment], lambda part: part.read(MINUTE_COLUMNS), site=site)
                found = self._cached((segment.name, site), _by_zone(list(read)))
            parts.append(found)
        # a minute has the instants before its end, so the last one of a derived hour is in the next one
        rest_s = max(view.manifest.derived.get("minutes", 0.0) - MINUTE_S + 0.001, now_s - KEEP_S)
        counts = view.scan("counts", columns=COUNT_COLUMNS, site=site, from_s=rest_s, to_s=now_s)
        if len(counts):
            parts.append(_by_zone([minutes(counts)]))
        zones = {zone for part in parts for zone in part}
        return {
            zone: _joined([part[zone] for part in parts if zone in part], newest - days * SLOTS, newest)
            for zone in zones
        }

    def _cached(self, key: tuple[str, str], found: dict[str, QuarterCounts]) -> dict[str, QuarterCounts]:
        with self._lock:
            if key not in self._known:
                self._known[key] = found
                self._rows += _size(found)
            while self._rows > self._max_rows and len(self._known) > 1:
                self._rows -= _size(self._known.popitem(last=False)[1])
        return found


def means(found: QuarterCounts, kind: int, newest: int, zone: tzinfo) -> tuple[F8, int]:
    """The mean count of each slot of the local clock up to a quarter, oldest first, and the number of the last slot.

    Args:
        found: quarters of a zone.
        kind: index of the kind.
        newest: the last quarter.
        zone: of the local clock. The slots that it leaves out are NaN; of those that it repeats, the later is taken.
    """
    quarters, inverse = np.unique(found.quarter, return_inverse=True)
    total, instants = (
        np.bincount(inverse, column.astype(np.float64)) for column in (found.sums[:, kind], found.instants)
    )
    return on_local_clock(quarters.astype(np.int64), total / np.maximum(instants, 1), newest, zone)


def on_local_clock(quarters: I8, values: F8, newest: int, zone: tzinfo) -> tuple[F8, int]:
    """Values of quarters as a series of slots of the local clock, and the number of its last slot."""
    last = local_slot(newest, zone)
    if not len(quarters):
        return np.zeros(0), last
    slots = np.array([local_slot(int(quarter), zone) for quarter in quarters], np.int64)
    series = np.full(max(0, last - int(slots[0]) + 1), np.nan)
    known = slots <= last
    series[slots[known] - slots[0]] = values[known]
    return series, last


def local_slot(quarter: int, zone: tzinfo) -> int:
    """The slot of the local clock in which a quarter begins."""
    start_s = (quarter - 1) * SLOT_S
    offset = datetime.fromtimestamp(start_s, zone).utcoffset()
    return int((start_s + (offset.total_seconds() if offset else 0)) // SLOT_S)


def _by_zone(tables: list[pa.Table]) -> dict[str, QuarterCounts]:
    """Minutes of one site as quarters, by zone."""
    if not sum(len(table) for table in tables):
        return {}
    rows = pa.concat_tables(tables, promote_options="permissive")
    found = steps(rows.sort_by([("zone", "ascending"), ("at", "ascending")]), SLOT_S)
    zones = np.array(found["zone"].cast(pa.string()).to_pylist())
    last = _kinds(found, "last")
    last[found["ended"].to_numpy() > 0] = -1
    quarters = (ticks(found["at"]) // (SLOT_S * 1000)).astype(np.int32)
    columns = (quarters, _kinds(found, "sum"), _numbers(found, "instants"), last)
    first = np.flatnonzero(np.append(True, zones[1:] != zones[:-1]))
    ends = np.append(first[1:], len(zones))
    return {
        str(zones[start]): QuarterCounts(*(column[start:end] for column in columns))
        for start, end in zip(first.tolist(), ends.tolist(), strict=True)
    }


def _kinds(table: pa.Table, number: str) -> I4:
    return np.stack([_numbers(table, f"{kind}_{number}") for kind in KINDS], axis=1)


def _numbers(table: pa.Table, name: str) -> I4:
    return np.array(table[name].to_numpy(), np.int32)


def _joined(parts: list[QuarterCounts], after: int, newest: int) -> QuarterCounts:
    columns = [
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("quarter", "sums", "instants", "last")
    ]
    wanted = (columns[0] > after) & (columns[0] <= newest)
    return QuarterCounts(*(column[wanted] for column in columns))


def _size(found: dict[str, QuarterCounts]) -> int:
    return sum(len(each.quarter) for each in found.values())
