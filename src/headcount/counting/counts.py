"""Rule 4: count, low, high, stale — always the size of a set, never a running sum."""

from __future__ import annotations

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

    def take(self, now_s: float) -> I4:
        """The counts at `now_s`, after everything that expired before it has been removed.

        Returns:
            int32 [zones, kinds, numbers], numbers as in `COUNT_FIELDS`.
        """
        self.refresh()
        table, zones = self._table, len(self._zones.site.zones)
        age_s = now_s - table.last_t_s[: len(table)]
        # each device in the class of its age: the number of limits below it
        age_class = sum(age_s > limit_s for limit_s in self._limits_s.tolist())
        by_age = self._by_zone(age_class, len(self._limits_s) + 1)
        # summed up from the oldest: how many are older than each limit, and first, how many there are
        older = by_age[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]
        stale = np.take_along_axis(older, self._limit[:, :, np.newaxis] + 1, axis=2)[:, :, 0]
        device, zone = self._low
        kind = table.kind[device]
        fresh = age_s[device] < self._fresh_s[zone, kind]
        low = np.bincount(zone[fresh] * KINDS + kind[fresh], minlength=zones * KINDS)
        device, zone = self._high
        more = np.bincount(zone * KINDS + table.kind[device], minlength=zones * KINDS)
        counts = np.empty((zones, KINDS, 4), dtype=np.int32)
        counts[:, :, 0] = older[:, :, 0]
        counts[:, :, 1] = low.reshape(zones, KINDS)
        counts[:, :, 2] = older[:, :, 0] + more.reshape(zones, KINDS)
        counts[:, :, 3] = stale
        return counts

    def present(self) -> I4:
        """The counts alone, without their bounds: int32 [zones, kinds]."""
        return self._by_zone(np.zeros(1, dtype=np.int64), 1)[:, :, 0].astype(np.int32)

    def _by_zone(self, group: I8, groups: int) -> I8:
        """The number of present devices by zone, kind and group of the device."""
        table, sets = self._table, self._zones.sets
        n, zones = len(table), len(self._zones.site.zones)
        used, index = sets.used(table.zones[:n])
        code = (index * KINDS + table.kind[:n]) * groups + group
        by_set = np.bincount(code, minlength=len(used) * KINDS * groups).reshape(len(used), KINDS * groups)
        row, zone = sets.members(used)
        columns = by_set.T.astype(np.float64)  # exact for all counts there can be
        sums = [np.bincount(zone, weights=column[row], minlength=zones) for column in columns]
        return np.stack(sums, axis=1).astype(np.int64).reshape(zones, KINDS, groups)

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
