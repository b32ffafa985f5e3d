"""Sets of zones as small integers, so that a device's memberships are one number in a column."""

from __future__ import annotations

import numpy as np

from headcount.counting.fix_columns import B1, F8, I4, I8
from headcount.counting.site import Site

EMPTY = 0


class MembershipSets:
    """Every set of zones that some device has been a member of, numbered as they appear.

    Set 0 is the empty one. There are few sets although there are many devices: where zones lie
    decides which combinations can occur. `member` and `hold_s` are tables over the set numbers.
    """

    def __init__(self, site: Site) -> None:
        self._zone_hold_s = np.array([zone.hold_s for zone in site.zones], dtype=np.float64)
        self._ids: dict[frozenset[int], int] = {frozenset(): EMPTY}
        self._sets: list[frozenset[int]] = [frozenset()]
        self._differences: dict[tuple[int, int], tuple[I4, B1]] = {}
        # the zones of all sets in one column, for `members`
        self._listed = 0
        self._flat: I8 = np.zeros(0, dtype=np.int64)
        self._in_set: I8 = self._flat
        self._start: I8 = self._flat
        self._length: I8 = self._flat
        zones = len(site.zones)
        #: bool [sets, zones]; rows beyond len(self) are room to grow.
        self.member: B1 = np.zeros((64, zones), dtype=np.bool_)
        #: float64 [sets, 2 kinds]: how long a member of the set stays present without a fix (rule 3).
        self.hold_s: F8 = np.full((64, 2), -np.inf)

    def __len__(self) -> int:
        return len(self._sets)

    def __getitem__(self, number: int) -> frozenset[int]:
        """The zones (indices) of a set."""
        return self._sets[number]

    def number(self, zones: frozenset[int]) -> int:
        """The number of a set of zone indices; new sets get the next one."""
        known = self._ids.get(zones)
        if known is not None:
            return known
        number = len(self._sets)
        if number == len(self.member):
            self.member = np.vstack([self.member, np.zeros_like(self.member)])
            self.hold_s = np.vstack([self.hold_s, np.full_like(self.hold_s, -np.inf)])
        self._ids[zones] = number
        self._sets.append(zones)
        members = sorted(zones)
        self.member[number, members] = True
        self.hold_s[number] = self._zone_hold_s[members].max(axis=0)
        return number

    def members(self, sets: I4) -> tuple[I8, I8]:
        """Pairs of (row, zone) for each zone of each row's set; rows in order."""
        self._list()
        length = self._length[sets]
        row = np.repeat(np.arange(len(sets)), length)
        place = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
        return row, self._flat[self._start[sets][row] + place]

    def by_zone(self, by_set: I8) -> I8:
        """Sums over the sets that have each zone: [sets, m] to [zones, m]."""
        self._list()
        zones = self.member.shape[1]
        columns = by_set.T.astype(np.float64)  # exact for all counts there can be
        sums = [np.bincount(self._flat, weights=column[self._in_set], minlength=zones) for column in columns]
        return np.stack(sums, axis=1).astype(np.int64)

    def _list(self) -> None:
        """Bring the column of all sets' zones up to date."""
        if self._listed != len(self._sets):
            self._in_set, self._flat = np.nonzero(self.member[: len(self._sets)])
            self._length = np.bincount(self._in_set, minlength=len(self._sets))
            self._start = np.cumsum(self._length) - self._length
            self._listed = len(self._sets)

    def without(self, sets: I4, row: I8, zone: I8) -> I4:
        """The sets with some zones removed, as pairs of (row, zone)."""
        left: dict[int, set[int]] = {}
        for r, z in zip(row.tolist(), zone.tolist(), strict=True):
            left.setdefault(r, set()).add(z)
        new = sets.copy()
        for r, zones in left.items():
            new[r] = self.number(self._sets[sets[r]] - zones)
        return new

    def difference(self, old: int, new: int) -> tuple[I4, B1]:
        """The zones in which two sets differ: indices, and whether `new` is the one that has it."""
        known = self._differences.get((old, new))
        if known is None:
            left, entered = self._sets[old] - self._sets[new], self._sets[new] - self._sets[old]
            zones = np.array(sorted(left) + sorted(entered), dtype=np.int32)
            enter = np.arange(len(zones)) >= len(left)
            known = self._differences[old, new] = (zones, enter)
        return known
