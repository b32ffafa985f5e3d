"""Position → zones (rule 2): by the raster where it is certain, by exact geometry at the edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from headcount.counting.edge_distance import EdgeDistance
from headcount.counting.fix_columns import B1, F8, I4, I8
from headcount.counting.membership_sets import MembershipSets
from headcount.counting.raster import ZoneRaster
from headcount.counting.site import Site

#: How far a margin that follows the accuracy reaches: as far as every zone's own; at least across a cell that an
#: edge crosses; not even that.
FULL, ACROSS_CELL, SHORT = range(3)
_REACH_BIT = 30  # of a key, above the number of the set

#: Maximum number of cached transitions; beyond it the cache is cleared.
MAX_KEYS = 1_000_000


_NONE: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _Recipe:
    """The tests that remain for a device in set `old` with a fix in a cell of some class."""

    certain: frozenset[int]
    zones: I4  # the zones to test, each by one of two tests:
    by_margin: B1  # distance <= margin (the device is a member), else: zone covers position


class ZoneLookup:
    """The zones of a site, prepared for look-ups of many positions.

    One object serves any number of engines of the same site. It caches transitions, so look-ups
    change the object but never its answers.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.sets = MembershipSets(site)
        self._raster = ZoneRaster(site)
        self._planes = np.array([zone.plane for zone in site.zones], dtype=object)
        shapely.prepare(self._planes)
        self._margin_m = np.array([zone.leave_margin_m for zone in site.zones])
        self._max_margin_m = float(self._margin_m.max())
        self._across = frozenset(np.flatnonzero(self._margin_m >= self._raster.across_m).tolist())
        self._outlines = shapely.boundary(self._planes)
        self._tree = shapely.STRtree(self._planes)
        # Where neither edges nor margins matter, the cell's class alone decides.
        classes = self._raster.classes
        self._plain_set: I4 = np.array(
            [
                self.sets.number(c.inside)
                if not c.inside_maybe and not c.near_maybe and c.near == c.inside
                else -1
                for c in classes
            ],
            dtype=np.int32,
        )
        #: The zones that cover the whole cell; -1 where others may cover a part of it.
        self._inside_set: I4 = np.array(
            [-1 if c.inside_maybe else self.sets.number(c.inside) for c in classes], dtype=np.int32
        )
        self._edge_distance = EdgeDistance(site)
        self._unlearn()

    def _unlearn(self) -> None:
        # Where edges or margins matter, class and old set decide: a new set, or, below 0, ~number of a recipe.
        self._keys: I8 = np.array([np.iinfo(np.int64).max])
        self._outcomes: I4 = np.zeros(1, dtype=np.int32)
        self._recipes: list[_Recipe] = []
        self._results: dict[tuple[int, bytes], int] = {}

    def cells(self, x_m: F8, y_m: F8) -> I4:
        """The class of each position's cell, for `move`: positions in the site's plane, length n."""
        return self._raster.lookup(x_m, y_m)

    def is_on_site(self, x_m: F8, y_m: F8) -> B1:
        """Which positions the site covers: bool [n]."""
        return np.asarray(shapely.intersects_xy(self._planes[0], x_m, y_m))

    def is_beyond(self, zone: I8, x_m: F8, y_m: F8, reach_m: F8) -> B1:
        """Which positions are farther than `reach_m` from their zone: bool [n]."""
        distance_m = shapely.distance(self._planes[zone], shapely.points(x_m, y_m))
        return np.asarray(distance_m > reach_m)

    def move(self, old: I4, cell: I4, x_m: F8, y_m: F8, acc_m: F8) -> I4:
        """The set of zones after a fix (rule 2).

        Args:
            old: the sets of zones before, int32 [n].
            cell: the positions' classes as returned by `cells`, int32 [n].
            x_m: positions in the site's plane, float64 [n].
            y_m: the same.
            acc_m: accuracy of those positions, 0 = unknown.

        Returns:
            The sets after, int32 [n], the caller's own. Whether the device is on site at all is `0 in set`.
        """
        new = self._plain_set[cell]
        rest = np.flatnonzero(new < 0)
        if len(rest):
            acc_m = acc_m[rest]
            reach_m = np.where(acc_m > 0.0, self.site.leave_margin_acc * acc_m, np.inf)
            outcome = self._outcome(cell[rest], old[rest], reach_m)
            new[rest] = outcome
            is_open = outcome < 0
            if is_open.any():
                open_ = rest[is_open]
                new[open_] = self._exact(~new[open_], x_m[open_], y_m[open_], reach_m[is_open])
        return new

    def certainty(self, sets: I4, x_m: F8, y_m: F8, acc_m: F8) -> tuple[I8, I8, I8, I8]:
        """Which zones surely hold the device, and which others may (rule 4).

        Args:
            sets: memberships, int32 [n].
            x_m: last positions, float64 [n].
            y_m: the same.
            acc_m: accuracy of those positions, float64 [n].

        Returns:
            Pairs of (row, zone) of members whose whole accuracy circle is inside the zone, and
            pairs of (row, zone) of zones that the circle touches and that aren't in the set.
        """
        # far from all outlines and in the very zones that cover the position, the circle is in these alone
        inside = self._inside_set[self.cells(x_m, y_m)]
        plain = (inside == sets) & (acc_m <= self._edge_distance.at_least_m(x_m, y_m))
        easy, hard = np.flatnonzero(plain), np.flatnonzero(~plain)
        easy_row, easy_zone = self.sets.members(sets[easy])
        row, zone, high_row, high_zone = self._tested(sets[hard], x_m[hard], y_m[hard], acc_m[hard])
        low_row = np.concatenate([easy[easy_row], hard[row]])
        return low_row, np.concatenate([easy_zone, zone]), hard[high_row], high_zone

    def _tested(self, sets: I4, x_m: F8, y_m: F8, acc_m: F8) -> tuple[I8, I8, I8, I8]:
        """The same as `certainty`, by geometry."""
        points = shapely.points(x_m, y_m)
        row, zone = self.sets.members(sets)
        inside = shapely.intersects_xy(self._planes[zone], x_m[row], y_m[row])
        row, zone = row[inside], zone[inside]
        sure = shapely.distance(self._outlines[zone], points[row]) >= acc_m[row]
        high_row, high_zone = self._tree.query(points, predicate="dwithin", distance=acc_m)
        other = ~self.sets.member[sets[high_row], high_zone]
        return row[sure], zone[sure], high_row[other], high_zone[other]

    def _outcome(self, cell_class: I4, old: I4, reach_m: F8) -> I4:
        """The outcome for each class, old set and reach of the margin: a new set, or ~recipe."""
        reach = np.where(reach_m >= self._raster.across_m, ACROSS_CELL, SHORT)
        reach[reach_m >= self._max_margin_m] = FULL
        keys = cell_class.astype(np.int64) << 32 | reach << _REACH_BIT | old
        place = np.searchsorted(self._keys, keys)
        unknown = self._keys[place] != keys
        if unknown.any():
            if len(self._keys) > MAX_KEYS:
                self._unlearn()
                unknown[:] = True
            new = np.unique(keys[unknown])
            outcomes = np.array([self._learn(key) for key in new.tolist()], dtype=np.int32)
            at = np.searchsorted(self._keys, new)
            self._keys = np.insert(self._keys, at, new)
            self._outcomes = np.insert(self._outcomes, at, outcomes)
            place = np.searchsorted(self._keys, keys)
        return self._outcomes[place]

    def _learn(self, key: int) -> int:
        """The outcome for one key: a set where it is certain, else the ~number of a recipe."""
        cell, before = self._raster.classes[key >> 32], self.sets[key & (1 << _REACH_BIT) - 1]
        reach = key >> _REACH_BIT & 3
        # members for which the margin surely suffices
        kept = (
            cell.near
            if reach == FULL
            else cell.inside_maybe & self._across
            if reach == ACROSS_CELL
            else _NONE
        )
        certain = cell.inside | (before & kept)
        by_margin = (before & (cell.inside_maybe | cell.near | cell.near_maybe)) - certain
        by_cover = cell.inside_maybe - certain - by_margin
        if not by_margin and not by_cover:
            return self.sets.number(certain)
        zones = np.array(sorted(by_cover) + sorted(by_margin), dtype=np.int32)
        self._recipes.append(_Recipe(certain, zones, np.arange(len(zones)) >= len(by_cover)))
        return ~(len(self._recipes) - 1)

    def _exact(self, recipe: I4, x_m: F8, y_m: F8, reach_m: F8) -> I4:
        """Test the zones that each row's recipe names."""
        recipes = [self._recipes[number] for number in recipe.tolist()]
        counts = np.array([len(r.zones) for r in recipes])
        row = np.repeat(np.arange(len(recipes)), counts)
        zone = np.concatenate([r.zones for r in recipes])
        by_margin = np.concatenate([r.by_margin for r in recipes])
        passed = np.empty(len(row), dtype=np.bool_)
        by_cover = ~by_margin
        passed[by_cover] = shapely.intersects_xy(
            self._planes[zone[by_cover]], x_m[row[by_cover]], y_m[row[by_cover]]
        )
        tested, of = zone[by_margin], row[by_margin]
        margin_m = np.minimum(self._margin_m[tested], reach_m[of])
        passed[by_margin] = ~self.is_beyond(tested, x_m[of], y_m[of], margin_m)
        place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        table = np.zeros((len(recipes), int(counts.max())), dtype=np.bool_)
        table[row, place] = passed
        packed = np.packbits(table, axis=1)
        keys: list[bytes] = packed.view(f"V{packed.shape[1]}").ravel().tolist()
        return np.fromiter(map(self._result, recipe.tolist(), keys), dtype=np.int32, count=len(recipes))

    def _result(self, recipe: int, passed: bytes) -> int:
        """The set that a recipe and the outcome of its tests make."""
        # trailing zero bytes depend on the other rows of the batch
        key = (recipe, passed.rstrip(b"\0"))
        known = self._results.get(key)
        if known is None:
            made = self._recipes[recipe]
            bits: NDArray[np.uint8] = np.unpackbits(np.frombuffer(passed, dtype=np.uint8))[: len(made.zones)]
            zones = made.zones[: len(bits)][bits.astype(np.bool_)]
            known = self._results[key] = self.sets.number(made.certain | frozenset(zones.tolist()))
        return known
