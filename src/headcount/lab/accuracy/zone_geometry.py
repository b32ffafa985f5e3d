"""Positions and zones by plain geometry, for the truth and for rules that are not ours."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from headcount.counting.fix_columns import B1, F8, I8
from headcount.counting.site import Site

#: Bounds of the classes of zones in square metres, the outer boundary apart.
CLASS_BOUNDS_M2 = (1000.0, 2000.0, 5000.0, 20_000.0)
CLASSES = (
    "below 1 000 m²",
    "1 000 to 2 000 m²",
    "2 000 to 5 000 m²",
    "5 000 to 20 000 m²",
    "above 20 000 m²",
)
WHOLE_SITE = "whole site"


class ZoneGeometry:
    """The zones of a site; zone 0 is the boundary, outside of which a position is in no zone."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._planes = np.array([zone.plane for zone in site.zones], dtype=object)
        shapely.prepare(self._planes)
        self._outlines = shapely.boundary(self._planes)
        self._tree = shapely.STRtree(self._planes)
        #: float64 [Z]
        self.area_m2: F8 = shapely.area(self._planes)
        #: float64 [Z, 2 kinds]
        self.hold_s: F8 = np.array([zone.hold_s for zone in site.zones])

    def __len__(self) -> int:
        return len(self._planes)

    def classes(self) -> dict[str, I8]:
        """The zones of each class of sizes that has any."""
        size = np.searchsorted(CLASS_BOUNDS_M2, self.area_m2, side="right")
        size[0] = len(CLASSES)
        names = (*CLASSES, WHOLE_SITE)
        return {
            name: np.flatnonzero(size == index) for index, name in enumerate(names) if (size == index).any()
        }

    def cover(self, x_m: F8, y_m: F8) -> B1:
        """Which zones cover each position. Shape [n, Z]."""
        found = np.zeros((len(x_m), len(self)), np.bool_)
        row, zone = self._tree.query(shapely.points(x_m, y_m), predicate="intersects")
        found[row, zone] = True
        return found & found[:, :1]

    def distance_m(self, x_m: F8, y_m: F8, reach_m: float) -> NDArray[np.float32]:
        """Signed distance of each position to each outline, positive inside, within ±`reach_m`. Shape [n, Z]."""
        points = shapely.points(x_m, y_m)
        found = np.full((len(x_m), len(self)), -reach_m, np.float32)
        row, zone = self._tree.query(points, predicate="dwithin", distance=reach_m)
        outline_m = np.minimum(shapely.distance(self._outlines[zone], points[row]), reach_m)
        inside = shapely.intersects_xy(self._planes[zone], x_m[row], y_m[row])
        found[row, zone] = np.where(inside, outline_m, -outline_m)
        return found
