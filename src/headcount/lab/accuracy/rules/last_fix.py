"""Last fix in polygon: a device is in the zones that cover its last position."""

from __future__ import annotations

from headcount.counting.fix_columns import B1
from headcount.lab.accuracy.error_model import ReceivedFixes
from headcount.lab.accuracy.zone_geometry import ZoneGeometry


def last_fix(fixes: ReceivedFixes, zones: ZoneGeometry) -> B1:
    """The zones after each fix. Shape [F, Z]."""
    return zones.cover(fixes.x_m, fixes.y_m)
