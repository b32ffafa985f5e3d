"""A raster over the site: for most positions the zones are known without any geometry.

The site's bounding box is cut into square cells. For each cell and zone one of three things is
certain or not: every point of the cell is in the zone, none is, or the zone's edge may cross the
cell; and the same for the zone widened by its leave margin. Cells with the same answers for every
zone share a *class*. Where hundreds of zones overlap, nearly each cell has a class of its own: cells are then made
larger until the classes are few enough. The answers come from the distance between the cell's centre and the zone:
no point of a cell is farther from its centre than half its diagonal.

Large squares are tried first and only the undecided ones are quartered, so the number of
distances computed grows with the length of the edges, not with the area.
"""

from __future__ import annotations

import math

import numpy as np
import shapely

from headcount.counting.fix_columns import F8, I4, I8, U1, U8
from headcount.counting.membership_sets import WORD_BITS
from headcount.counting.site import Site, Zone

#: The smallest cell; GPS noise makes finer ones pointless.
CELL_M = 2.0
MAX_CELLS = 4_000_000
#: Of the facts about all classes.
MAX_FACT_BYTES = 32 << 20
#: Squares of 2^LEVELS cells a side are tried first.
LEVELS = 6
#: Allowance for rounding errors where a fact counts as certain.
SLACK_M = 1e-6

IN, IN_MAYBE, NEAR, NEAR_MAYBE = 1, 2, 4, 8


class ZoneRaster:
    """Position → class of its cell. Class 0 is everything beyond the raster: near no zone.

    The facts about the classes are sets of zones as bits, uint64 [classes, words]: the zones that cover the whole
    cell (`inside`), whose edge may cross it (`inside_maybe`), within whose leave margin the whole cell is (`near`,
    `inside` included), and whose margin may end in it (`near_maybe`).
    """

    def __init__(self, site: Site) -> None:
        """Compute the raster of a site (about 0.1 s for 100 zones)."""
        min_x, min_y, max_x, max_y = site.zones[0].plane.bounds
        pad = site.zones[0].leave_margin_m + 2 * CELL_M
        width, height = max_x - min_x + 2 * pad, max_y - min_y + 2 * pad
        self._x0, self._y0 = min_x - pad, min_y - pad
        self._words = -(-len(site.zones) // WORD_BITS)
        self.cell_m = max(CELL_M, math.sqrt(width * height / MAX_CELLS))
        while not self._make(site, width, height):
            self.cell_m *= 2
        #: No point of a cell that a zone's edge crosses is farther from the zone.
        self.across_m = 2 * (self.cell_m * math.sqrt(0.5) + SLACK_M)
        self.inside, self.inside_maybe, self.near, self.near_maybe = self._facts

    def _make(self, site: Site, width: float, height: float) -> bool:
        """Compute the classes of all cells; False: there are too many."""
        block = 2**LEVELS
        self._columns = math.ceil(width / self.cell_m / block) * block
        self._lines = math.ceil(height / self.cell_m / block) * block
        #: Flat grid with one cell more at the end, for positions beyond the raster.
        self._grid: I4 = np.zeros(self._columns * self._lines + 1, dtype=np.int32)
        # memory is used as classes are added
        room = max(MAX_FACT_BYTES // (4 * 8 * self._words), 1)
        self._facts: U8 = np.zeros((4, room, self._words), dtype=np.uint64)
        self._classes = 1
        if not all(self._add(index, zone) for index, zone in enumerate(site.zones)):
            return False
        self._drop_unused()
        self._facts = self._facts[:, : self._classes].copy()
        return True

    def _drop_unused(self) -> None:
        """Renumber the classes that cells have."""
        used = np.zeros(self._classes, dtype=np.bool_)
        used[self._grid] = True
        used[0] = True
        self._grid = (np.cumsum(used) - 1).astype(np.int32)[self._grid]
        kept = self._facts[:, : self._classes][:, used]
        self._classes = kept.shape[1]
        self._facts[:, : self._classes] = kept

    def lookup(self, x_m: F8, y_m: F8) -> I4:
        """The class of each position's cell; positions in metres of the site's plane, length n."""
        column = (x_m - self._x0) / self.cell_m
        line = (y_m - self._y0) / self.cell_m
        within = (column >= 0) & (column < self._columns) & (line >= 0) & (line < self._lines)
        # positions beyond are moved to the extra cell before the cast, which can't hold any float
        column = np.where(within, column, 0.0)
        line = np.where(within, line, 0.0)
        cell = line.astype(np.int64) * self._columns + column.astype(np.int64)
        cell[~within] = len(self._grid) - 1
        found: I4 = self._grid[cell]
        return found

    def _add(self, index: int, zone: Zone) -> bool:
        """Refine the classes by one more zone; False: there are too many."""
        cells, flags = self._cover(zone)
        for is_second_try in (False, True):
            distinct, where = np.unique(self._grid[cells].astype(np.int64) << 4 | flags, return_inverse=True)
            end = self._classes + len(distinct)
            if end <= self._facts.shape[1]:
                break
            if is_second_try:
                return False
            self._drop_unused()
        new = self._facts[:, distinct >> 4]
        for fact, bit in zip(new, (IN, IN_MAYBE, NEAR, NEAR_MAYBE), strict=True):
            fact[(distinct & bit) != 0, index // WORD_BITS] |= np.uint64(1 << index % WORD_BITS)
        self._facts[:, self._classes : end] = new
        self._grid[cells] = (self._classes + where).astype(np.int32)
        self._classes = end
        return True

    def _cover(self, zone: Zone) -> tuple[I8, U1]:
        """Flat cell numbers near a zone, and the flags of each."""
        size = 2**LEVELS
        reach = zone.leave_margin_m + self.cell_m
        min_x, min_y, max_x, max_y = zone.plane.bounds
        span = size * self.cell_m
        first_column = max(0, math.floor((min_x - reach - self._x0) / span))
        last_column = min(self._columns // size - 1, math.floor((max_x + reach - self._x0) / span))
        first_line = max(0, math.floor((min_y - reach - self._y0) / span))
        last_line = min(self._lines // size - 1, math.floor((max_y + reach - self._y0) / span))
        grid = np.meshgrid(
            np.arange(first_column, last_column + 1) * size, np.arange(first_line, last_line + 1) * size
        )
        column, line = grid[0].ravel(), grid[1].ravel()
        shapely.prepare(zone.plane)
        edge = zone.plane.boundary
        cells: list[I8] = []
        flags: list[U1] = []
        while len(column):
            flag = self._flags(zone, edge, column, line, size)
            decided = (flag & (IN_MAYBE | NEAR_MAYBE)) == 0 if size > 1 else np.ones(len(flag), np.bool_)
            kept = decided & (flag != 0)
            steps = np.arange(size)
            block = (steps[:, None] * self._columns + steps[None, :]).ravel()
            corner = line[kept] * self._columns + column[kept]
            cells.append((corner[:, None] + block[None, :]).ravel())
            flags.append(np.repeat(flag[kept], size * size))
            size //= 2
            column, line = column[~decided], line[~decided]
            column = (column[:, None] + np.array([0, size, 0, size])[None, :]).ravel()
            line = (line[:, None] + np.array([0, 0, size, size])[None, :]).ravel()
        return np.concatenate(cells), np.concatenate(flags)

    def _flags(self, zone: Zone, edge: shapely.Geometry, column: I8, line: I8, size: int) -> U1:
        """The flags of squares of `size` cells a side with these lower left corners."""
        x_m = self._x0 + (column + size / 2) * self.cell_m
        y_m = self._y0 + (line + size / 2) * self.cell_m
        half_m = size * self.cell_m * math.sqrt(0.5) + SLACK_M
        inside = shapely.intersects_xy(zone.plane, x_m, y_m)
        to_edge = shapely.distance(edge, shapely.points(x_m, y_m))
        to_zone = np.where(inside, 0.0, to_edge)
        crossed = to_edge <= half_m
        flag = np.zeros(len(x_m), dtype=np.uint8)
        flag[inside & ~crossed] = IN | NEAR
        flag[crossed] |= IN_MAYBE
        near = to_zone + half_m <= zone.leave_margin_m
        flag[near] |= NEAR
        flag[~near & ((flag & NEAR) == 0) & (to_zone - half_m <= zone.leave_margin_m)] |= NEAR_MAYBE
        return flag
