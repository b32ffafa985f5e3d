"""Rule 4: count, low, high, stale — always the size of a set, never a running sum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headcount.counting.device_table import DeviceTable
from headcount.counting.fix_columns import F8, I4, I8
from headcount.counting.zone_lookup import ZoneLookup

KINDS = 2


class ZoneCounter:
    """Counts the devices of a table per zone.

    Pairs (device, zone) record which accuracy circles are inside a zone or touch it; they are
    recomputed only for devices that moved.
    """

    def __init__(self, zones: ZoneLookup, table: DeviceTable) -> None:
        self._zones = zones
        self._table = table
        #: float64 [zones, kinds]
        self._fresh_s: F8 = np.array([zone.fresh_s for zone in zones.site.zones])
        #: The distinct ones, and the index of each zone's and kind's
        self._limits_s, limit = np.unique(self._fresh_s, return_inverse=True)
        self._limit = limit.reshape(self._fresh_s.shape)
        nothing = np.zeros(0, dtype=np.int64)
        self._low: tuple[I8, I8] = (nothing, nothing)
        self._high: tuple[I8, I8] = (nothing, nothing)

    def take(self, now_s: float, partitions: Sequence[int]) -> I4:
        """The counts of partitions at `now_s`, after everything that expired before it has been removed.

        Returns:
            int32 [partitions, zones, kinds, numbers], numbers as in `COUNT_FIELDS`.
        """
        self.refresh()
        table, zones = self._table, len(self._zones.site.zones)
        column, columns = self._columns(partitions)
        age_s = now_s - table.last_t_s[: len(table)]
        # each device in the class of its age: the number of limits below it
        age_class = sum(age_s > limit_s for limit_s in self._limits_s.tolist())
        by_age = self._by_zone(column, columns, age_class, len(self._limits_s) + 1)
        # summed up from the oldest: how many are older than each limit, and first, how many there are
        older = by_age[..., ::-1].cumsum(axis=3)[..., ::-1]
        limit = self._limit[:, np.newaxis, :, np.newaxis] + 1
        device, zone = self._low
        fresh = age_s[device] < self._fresh_s[zone, table.kind[device]]
        counts = np.empty((zones, len(partitions), KINDS, 4), dtype=np.int32)
        counts[..., 0] = older[..., 0]
        counts[..., 1] = _by_column(zone[fresh], column[device[fresh]], zones, columns)
        device, zone = self._high
        counts[..., 2] = older[..., 0] + _by_column(zone, column[device], zones, columns)
        counts[..., 3] = np.take_along_axis(older, limit, axis=3)[..., 0]
        return np.ascontiguousarray(counts.swapaxes(0, 1))

    def present(self) -> I4:
        """The counts of partition 0 alone, without their bounds: int32 [zones, kinds]."""
        column, columns = self._columns([0])
        found = self._by_zone(column, columns, np.zeros(1, dtype=np.int64), 1)
        return found[:, 0, :, 0].astype(np.int32)

    def _columns(self, partitions: Sequence[int]) -> tuple[I8, int]:
        """The column of each device, by partition and kind, and their number; the last ones are for all others."""
        table, places = self._table, len(partitions)
        of = table.partition[: len(table)]
        place_of: I8 = np.full(int(of.max(initial=0)) + 2, places, dtype=np.int64)
        numbers = np.array(partitions)
        known = numbers < len(place_of) - 1
        place_of[numbers[known]] = np.arange(places)[known]
        return place_of[of] * KINDS + table.kind[: len(table)], (places + 1) * KINDS

    def _by_zone(self, column: I8, columns: int, group: I8, groups: int) -> I8:
        """The number of present devices by zone, partition, kind and group of the device."""
        table, sets = self._table, self._zones.sets
        n, zones, cells = len(table), len(self._zones.site.zones), columns * groups
        used, index = sets.used(table.zones[:n])
        code = (index * columns + column) * groups + group
        by_set = np.bincount(code, minlength=len(used) * cells)
        # where sets are many, most of these numbers are zero
        some = np.flatnonzero(by_set)
        row, zone = sets.members(used[some // cells])
        # float64 is exact for all counts there can be
        weights = by_set[some][row].astype(np.float64)
        sums = np.bincount(zone * cells + (some % cells)[row], weights=weights, minlength=zones * cells)
        by_zone: I8 = sums.astype(np.int64).reshape(zones, columns // KINDS, KINDS, groups)[:, :-1]
        return by_zone

    def refresh(self) -> None:
        """Compare the circles of devices that moved with the zones; `take` does this first."""
        table = self._table
        moved = np.flatnonzero(table.moved[: len(table)])
        if not len(moved):
            return
        keep = ~table.moved[self._low[0]]
        low = [(self._low[0][keep], self._low[1][keep])]
        keep = ~table.moved[self._high[0]]
        high = [(self._high[0][keep], self._high[1][keep])]
        table.moved[moved] = False
        present = moved[table.zones[moved] != 0]
        low_row, low_zone, high_row, high_zone = self._zones.certainty(
            table.zones[present], table.x_m[present], table.y_m[present], table.acc_m[present]
        )
        low.append((present[low_row], low_zone))
        high.append((present[high_row], high_zone))
        self._low = (np.concatenate([d for d, _ in low]), np.concatenate([z for _, z in low]))
        self._high = (np.concatenate([d for d, _ in high]), np.concatenate([z for _, z in high]))


def _by_column(zone: I8, column: I8, zones: int, columns: int) -> I8:
    """Numbers of pairs: [zones, partitions, kinds], without those of all other partitions."""
    found = np.bincount(zone * columns + column, minlength=zones * columns)
    by_kind: I8 = found.reshape(zones, columns // KINDS, KINDS)[:, :-1]
    return by_kind
