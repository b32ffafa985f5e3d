"""Position → lower bound of the distance to the nearest outline, so most accuracy circles need no geometry."""

from __future__ import annotations

import math

import numpy as np
import shapely
from numpy.typing import NDArray

from headcount.counting.fix_columns import F8, I8
from headcount.counting.site import Site

#: Larger distances are reported as this: few accuracy circles are larger.
MAX_DISTANCE_M = 25.0
#: More than any rounding error, that of 32-bit floats included.
SLACK_M = 1e-3
#: Squares are about as large as the accuracy circles that matter; smaller ones take longer to compute.
SQUARE_M = 6.0
MAX_SQUARES = 1_000_000


class EdgeDistance:
    """A grid of squares over the site, each computed on its first use.

    All points of a square are at least as far from every zone's outline as its centre is, less half
    its diagonal.
    """

    def __init__(self, site: Site) -> None:
        #: The edges of all zones, each a line, and the index of its zone. A zone is long, so a tree of whole
        #: outlines would find many that are far from a position.
        self.edges, self.zone = _edges(np.array([zone.plane for zone in site.zones], dtype=object))
        self.tree = shapely.STRtree(self.edges)
        self._x0, self._y0, max_x, max_y = site.zones[0].plane.bounds
        width, height = max_x - self._x0, max_y - self._y0
        self._square_m = max(SQUARE_M, math.sqrt(width * height / MAX_SQUARES))
        self._columns = math.ceil(width / self._square_m)
        self._lines = math.ceil(height / self._square_m)
        #: metres, NaN = not computed; the last one stands for everything beyond the grid
        self._grid: NDArray[np.float32] = np.full(self._columns * self._lines + 1, np.nan, dtype=np.float32)
        self._grid[-1] = -np.inf

    def at_least_m(self, x_m: F8, y_m: F8) -> NDArray[np.float32]:
        """A lower bound of each position's distance to the nearest outline, which may be below 0."""
        column, line = (x_m - self._x0) / self._square_m, (y_m - self._y0) / self._square_m
        within = (column >= 0) & (column < self._columns) & (line >= 0) & (line < self._lines)
        square = np.full(len(x_m), len(self._grid) - 1)
        square[within] = line[within].astype(np.int64) * self._columns + column[within].astype(np.int64)
        found: NDArray[np.float32] = self._grid[square]
        new = np.unique(square[np.isnan(found)])
        if len(new):
            x_m = self._x0 + (new % self._columns + 0.5) * self._square_m
            y_m = self._y0 + (new // self._columns + 0.5) * self._square_m
            half_m = self._square_m * math.sqrt(0.5)
            distance_m = self._distance_m(x_m, y_m, MAX_DISTANCE_M + half_m)
            self._grid[new] = distance_m - half_m - SLACK_M
            found = self._grid[square]
        return found

    def _distance_m(self, x_m: F8, y_m: F8, most_m: float) -> F8:
        """Each position's distance to the nearest outline, or `most_m`."""
        points = shapely.points(x_m, y_m)
        row, edge = self.tree.query(points, predicate="dwithin", distance=most_m)
        found: F8 = np.full(len(points), most_m)
        np.minimum.at(found, row, shapely.distance(self.edges[edge], points[row]))
        return found


def _edges(planes: NDArray[np.object_]) -> tuple[NDArray[np.object_], I8]:
    rings, zone = shapely.get_parts(shapely.boundary(planes), return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    start = np.flatnonzero(ring[1:] == ring[:-1])
    edges: NDArray[np.object_] = shapely.linestrings(np.stack([points[start], points[start + 1]], axis=1))
    return edges, zone[ring[start]]
