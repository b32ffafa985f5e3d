"""Position → zones (rule 2): by the raster where it is certain, by exact geometry at the edges."""

from __future__ import annotations

import numpy as np
import shapely

from headcount.counting.edge_distance import EdgeDistance
from headcount.counting.fix_columns import B1, F8, I4, I8, U8
from headcount.counting.membership_sets import MembershipSets, pairs
from headcount.counting.raster import ZoneRaster
from headcount.counting.site import Site


class ZoneLookup:
    """The zones of a site, prepared for look-ups of many positions.

    One object serves any number of engines of the same site.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.sets = MembershipSets(site)
        self._raster = ZoneRaster(site)
        self._planes = np.array([zone.plane for zone in site.zones], dtype=object)
        shapely.prepare(self._planes)
        self._margin_m = np.array([zone.leave_margin_m for zone in site.zones])
        self._max_margin_m = float(self._margin_m.max())
        across = np.flatnonzero(self._margin_m >= self._raster.across_m)
        self._across: U8 = self.sets.from_pairs(np.zeros_like(across), across, 1)[0]
        # where neither edges nor margins matter, the cell's class alone decides
        raster = self._raster
        self._is_crossed: B1 = np.asarray(raster.inside_maybe.any(axis=1))
        whole = np.flatnonzero(~self._is_crossed)
        #: The set of the zones that cover each class, -1 where an edge may cross it.
        self._inside_set: I4 = np.full(len(self._is_crossed), -1, dtype=np.int32)
        self._inside_set[whole] = self.sets.numbers(raster.inside[whole])
        has_margin = raster.near_maybe.any(axis=1) | (raster.near != raster.inside).any(axis=1)
        #: The same, also -1 where a margin matters.
        self._plain_set: I4 = np.where(has_margin, np.int32(-1), self._inside_set)
        self.sets.pin()
        #: Members for which the margin surely suffices: if it reaches across a cell, and as far as every zone's own.
        self._kept: U8 = np.stack([raster.inside_maybe & self._across, raster.near])
        #: The zones of which a member may stay one, though they may not cover the position.
        self._around: U8 = raster.inside_maybe | raster.near | raster.near_maybe
        self._edge_distance = EdgeDistance(site)

    def cells(self, x_m: F8, y_m: F8) -> I4:
        """The class of each position's cell, for `move`: positions in the site's plane, length n."""
        return self._raster.lookup(x_m, y_m)

    def is_on_site(self, x_m: F8, y_m: F8) -> B1:
        """Which positions the site covers: bool [n]."""
        return self._covers(np.zeros(len(x_m), dtype=np.int64), x_m, y_m)

    def _covers(self, zone: I8, x_m: F8, y_m: F8) -> B1:
        return np.asarray(shapely.intersects_xy(self._planes[zone], x_m, y_m))

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
        # no margin matters to a device that is in the very zones that cover the cell
        stays = self._inside_set[cell[rest]] == old[rest]
        new[rest[stays]] = old[rest[stays]]
        rest = rest[~stays]
        if len(rest):
            new[rest] = self._near_edges(old[rest], cell[rest], x_m[rest], y_m[rest], acc_m[rest])
        return new

    def _near_edges(self, old: I4, cell: I4, x_m: F8, y_m: F8, acc_m: F8) -> I4:
        """The same as `move` for cells in which an edge or a margin may end."""
        raster, sets = self._raster, self.sets
        reach_m = np.where(acc_m > 0.0, self.site.leave_margin_acc * acc_m, np.inf)
        before, maybe = sets.bits[old], raster.inside_maybe[cell]
        kept = self._kept[(reach_m >= self._max_margin_m).astype(np.intp), cell]
        kept[reach_m < raster.across_m] = 0
        new = raster.inside[cell] | before & kept
        by_margin = before & self._around[cell] & ~new
        row, zone = pairs(maybe & ~(new | by_margin))
        covers = self._covers(zone, x_m[row], y_m[row])
        tested = [(row[covers], zone[covers])]
        row, zone = pairs(by_margin)
        if len(row):
            margin_m = np.minimum(self._margin_m[zone], reach_m[row])
            stays = ~self.is_beyond(zone, x_m[row], y_m[row], margin_m)
            tested.append((row[stays], zone[stays]))
        for row, zone in tested:
            sets.add_pairs(new, row, zone)
        moved = (new != before).any(axis=1)
        found = old.copy()
        found[moved] = sets.numbers(new[moved])
        return found

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
        cell = self.cells(x_m, y_m)
        # far from all outlines and in the very zones that cover the position, the circle is in these alone
        plain = ~self._is_crossed[cell] & (acc_m <= self._edge_distance.at_least_m(x_m, y_m))
        plain &= (self._raster.inside[cell] == self.sets.bits[sets]).all(axis=1)
        easy, hard = np.flatnonzero(plain), np.flatnonzero(~plain)
        easy_row, easy_zone = self.sets.members(sets[easy])
        row, zone, high_row, high_zone = self._tested(
            sets[hard], cell[hard], x_m[hard], y_m[hard], acc_m[hard]
        )
        low_row = np.concatenate([easy[easy_row], hard[row]])
        return low_row, np.concatenate([easy_zone, zone]), hard[high_row], high_zone

    def _tested(self, sets: I4, cell: I4, x_m: F8, y_m: F8, acc_m: F8) -> tuple[I8, I8, I8, I8]:
        """The same as `certainty`, by geometry."""
        n = len(sets)
        covers = self._raster.inside[cell]
        row, zone = pairs(self._raster.inside_maybe[cell])
        inside = self._covers(zone, x_m[row], y_m[row])
        covers |= self.sets.from_pairs(row[inside], zone[inside], n)
        points = shapely.points(x_m, y_m)
        row, edge = self._edge_distance.tree.query(points, predicate="dwithin", distance=acc_m)
        zone = self._edge_distance.zone[edge]
        within = self.sets.from_pairs(row, zone, n)
        crossing = shapely.distance(self._edge_distance.edges[edge], points[row]) < acc_m[row]
        crossed = self.sets.from_pairs(row[crossing], zone[crossing], n)
        members = self.sets.bits[sets]
        return *pairs(members & covers & ~crossed), *pairs((covers | within) & ~members)
