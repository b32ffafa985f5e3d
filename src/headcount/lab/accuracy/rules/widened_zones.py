"""Accuracy widens the zone, as in Home Assistant.

A zone is a candidate if the accuracy circle reaches it. Of the candidates the nearest counts; where zones cover
the position, all of them do. The boundary of the site is widened likewise.
"""

from __future__ import annotations

import numpy as np

from headcount.counting.fix_columns import B1
from headcount.lab.accuracy.error_model import ReceivedFixes
from headcount.lab.accuracy.zone_geometry import ZoneGeometry

#: Larger circles are cut.
MAX_REACH_M = 100.0


def widened_zones(fixes: ReceivedFixes, zones: ZoneGeometry) -> B1:
    """The zones after each fix. Shape [F, Z]."""
    apart_m = np.maximum(-zones.distance_m(fixes.x_m, fixes.y_m, MAX_REACH_M), 0.0)
    reaches = apart_m <= np.minimum(fixes.acc_m, 0.99 * MAX_REACH_M)[:, np.newaxis]
    nearest_m = apart_m[:, 1:].min(axis=1, keepdims=True)
    reaches[:, 1:] &= apart_m[:, 1:] == nearest_m
    return np.asarray(reaches & reaches[:, :1])
