"""Two fences: a device enters through an inner fence and leaves through an outer one (usual with Tile38)."""

from __future__ import annotations

import numpy as np

from headcount.counting.fix_columns import B1
from headcount.lab.accuracy.error_model import ReceivedFixes
from headcount.lab.accuracy.zone_geometry import ZoneGeometry

#: The inner fence is this far inside the outline, the outer one this far outside.
INNER_M, OUTER_M = 5.0, 15.0


def two_fences(fixes: ReceivedFixes, zones: ZoneGeometry) -> B1:
    """The zones after each fix. Shape [F, Z]."""
    order = np.argsort(fixes.device, kind="stable")
    distance_m = zones.distance_m(fixes.x_m[order], fixes.y_m[order], 2 * OUTER_M)
    inner, outer = distance_m >= INNER_M, distance_m < -OUTER_M
    # the last row that decides: inside, outside, or the device's first
    first = np.diff(fixes.device[order], prepend=-1) != 0
    row = np.arange(len(order), dtype=np.int32)[:, np.newaxis]
    decided = np.maximum.accumulate(np.where(inner | outer | first[:, np.newaxis], row, 0), axis=0)
    found = np.empty_like(inner)
    found[order] = np.take_along_axis(inner, decided, axis=0)
    return np.asarray(found & found[:, :1])
