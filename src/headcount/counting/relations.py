"""Equations between counts that follow from a site's geometry.

A device in a zone is also in every zone around it. So, where A and B lie in C and don't overlap,
`count(C) = count(A) + count(B) + rest`. The rest, the devices in C but neither in A nor in B, is a
count too, though an unpublished one. Anyone who knows the map knows these equations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray

from headcount.counting.site import Site

#: Share of an area that is ignored: outlines drawn by hand don't meet exactly.
TOLERANCE = 0.01
#: Maximum number of families of zones without overlap among zones that overlap in a chain.
MAX_FAMILIES = 64
#: No bound.
UNBOUNDED = 1 << 40
MAX_ROUNDS = 100

I8 = NDArray[np.int64]
Sign = int
#: Signs and variables of a sum that is 0.
Equation = tuple[tuple[Sign, int], ...]


@dataclass(frozen=True, slots=True)
class CountRelations:
    """Sums of counts that are 0. Variables 0 to Z-1 are the zones, those after them are rests."""

    zones: int
    names: tuple[str, ...]  # of all variables
    order: tuple[int, ...]  # zones, inner ones before outer ones
    around: tuple[tuple[int, ...], ...]  # for each zone, those that contain it
    rows: I8 = field(repr=False)  # of each term: its equation, its variable, its sign; by equation
    variables: I8 = field(repr=False)
    signs: I8 = field(repr=False)
    starts: I8 = field(repr=False)  # the first term of each equation

    def narrow(self, low: I8, high: I8) -> tuple[I8, I8]:
        """The bounds that follow from these: interval propagation, until nothing changes.

        Args:
            low: int64 [variables], inclusive.
            high: the same; `UNBOUNDED` where nothing is known.

        Returns:
            New bounds; some low is above its high where the given ones contradict each other.
        """
        low, high = low.copy(), high.copy()
        if not len(self.rows):
            return low, high
        plus = self.signs > 0
        for _ in range(MAX_ROUNDS):
            before_low, before_high = low.copy(), high.copy()
            least = np.where(plus, low[self.variables], -high[self.variables])
            most = np.where(plus, high[self.variables], -low[self.variables])
            others_least = np.add.reduceat(least, self.starts)[self.rows] - least
            others_most = np.add.reduceat(most, self.starts)[self.rows] - most
            np.maximum.at(low, self.variables, np.where(plus, -others_most, others_least))
            np.minimum.at(high, self.variables, np.where(plus, -others_least, others_most))
            if (low > high).any() or (np.array_equal(low, before_low) and np.array_equal(high, before_high)):
                break
        return low, high


def relations(site: Site) -> CountRelations:
    """All equations of a site that interval propagation can use; some seconds for thousands of zones."""
    return _ZoneCover(site).relations()


class _ZoneCover:
    """Which zones contain or overlap each other, and the equations found so far."""

    def __init__(self, site: Site) -> None:
        self._shapes = [zone.plane for zone in site.zones]
        self._areas = shapely.area(np.array(self._shapes, dtype=object))
        self._names = [zone.id for zone in site.zones]
        self._equations: list[Equation] = []
        self._around, self._overlaps = self._overlay()
        self._inside: list[set[int]] = [set() for _ in self._shapes]
        for zone, around in enumerate(self._around):
            for other in around:
                self._inside[other].add(zone)

    def relations(self) -> CountRelations:
        zones = len(self._shapes)
        for zone in range(zones):
            self._divide(zone)
        terms = [(row, *term) for row, equation in enumerate(self._equations) for term in equation]
        rows, signs, variables = np.array(terms, dtype=np.int64).reshape(-1, 3).T
        order = sorted(range(zones), key=lambda zone: (len(self._inside[zone]), self._areas[zone], zone))
        return CountRelations(
            zones=zones,
            names=tuple(self._names),
            order=tuple(order),
            around=tuple(tuple(sorted(zones)) for zones in self._around),
            rows=rows,
            variables=variables,
            signs=signs,
            starts=np.flatnonzero(np.diff(rows, prepend=-1)),
        )

    def _overlay(self) -> tuple[list[set[int]], list[set[int]]]:
        """For each zone: those around it, and those that overlap it without one being in the other."""
        count = len(self._shapes)
        # a device outside the boundary is in no zone, so the boundary is around all zones, whatever their shape
        around: list[set[int]] = [{0} if zone else set() for zone in range(count)]
        overlaps: list[set[int]] = [set() for _ in range(count)]
        tree = shapely.STRtree(self._shapes)
        for a, b in tree.query(self._shapes, predicate="intersects").T.tolist():
            if not 0 < a < b:
                continue
            common = shapely.area(shapely.intersection(self._shapes[a], self._shapes[b]))
            a_in_b = common >= (1 - TOLERANCE) * self._areas[a]
            b_in_a = common >= (1 - TOLERANCE) * self._areas[b]
            if b_in_a:  # of twins the first one counts as the outer
                around[b].add(a)
            elif a_in_b:
                around[a].add(b)
            elif common > TOLERANCE * min(self._areas[a], self._areas[b]):
                overlaps[a].add(b)
                overlaps[b].add(a)
        return around, overlaps

    def _divide(self, zone: int) -> None:
        """`zone = its parts + rest`; parts are zones directly in it, or unions of those that overlap."""
        inside = self._inside[zone]
        children = {child for child in inside if not (self._around[child] & inside)}
        if not children:
            return
        groups = self._groups(children)
        parts = [group[0] if len(group) == 1 else self._unite(zone, group) for group in groups]
        self._equate(zone, parts, covered=self._covers(children, zone), name="elsewhere")

    def _groups(self, zones: set[int]) -> Iterator[list[int]]:
        """Zones that overlap, directly or through others, together."""
        left = set(zones)
        while left:
            group, new = set(), {min(left)}
            while new:
                group |= new
                new = {other for zone in new for other in self._overlaps[zone] & zones} - group
            left -= group
            yield sorted(group)

    def _unite(self, zone: int, group: list[int]) -> int:
        """A variable for the union of overlapping zones, with all its equations."""
        names = "+".join(self._names[z] for z in group)
        union = self._variable(f"{names} in {self._names[zone]}")
        shape = shapely.union_all([self._shapes[z] for z in group])
        for family in self._families({*group, *(i for z in group for i in self._inside[z])}):
            covered = self._covers(family, shape)
            self._equate(union, sorted(family), covered=covered, name="elsewhere")
        # counted more than once: with two zones, the devices in both
        both = self._variable(f"{names} twice")
        self._equations.append((*((1, z) for z in group), (-1, union), (-1, both)))
        if len(group) == 2:
            for common in self._inside[group[0]] & self._inside[group[1]]:
                self._equate(both, [common], covered=False, name="elsewhere")
        return union

    def _families(self, zones: set[int]) -> list[set[int]]:
        """Largest sets of zones without overlap (Bron and Kerbosch 1973, over compatible zones)."""
        goes_with = {
            zone: zones - {zone} - self._overlaps[zone] - self._around[zone] - self._inside[zone]
            for zone in zones
        }
        found: list[set[int]] = []

        def grow(family: set[int], candidates: set[int], done: set[int]) -> None:
            if len(found) >= MAX_FAMILIES:
                return
            if not candidates and not done:
                found.append(family)
                return
            pivot = max(candidates | done, key=lambda z: (len(goes_with[z] & candidates), -z))
            for zone in sorted(candidates - goes_with[pivot]):
                grow(family | {zone}, candidates & goes_with[zone], done & goes_with[zone])
                candidates = candidates - {zone}
                done = done | {zone}

        grow(set(), zones, set())
        return found

    def _covers(self, zones: Iterable[int], whole: int | shapely.Geometry) -> bool:
        shape = self._shapes[whole] if isinstance(whole, int) else whole
        rest = shapely.difference(shape, shapely.union_all([self._shapes[zone] for zone in zones]))
        return bool(shapely.area(rest) <= TOLERANCE * shapely.area(shape))

    def _equate(self, whole: int, parts: list[int], *, covered: bool, name: str) -> None:
        terms = [(-1, whole), *((1, part) for part in parts)]
        if not covered:
            terms.append((1, self._variable(f"{self._names[whole]} {name}")))
        self._equations.append(tuple(terms))

    def _variable(self, name: str) -> int:
        self._names.append(name)
        return len(self._names) - 1
