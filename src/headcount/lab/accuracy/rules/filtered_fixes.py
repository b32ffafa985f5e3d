"""Filter, then polygon, as in Traccar: fixes with a poor accuracy or an impossible speed are dropped."""

from __future__ import annotations

import numpy as np

from headcount.counting.fix_columns import B1, F8, I8
from headcount.lab.accuracy.error_model import ReceivedFixes, rounds
from headcount.lab.accuracy.zone_geometry import ZoneGeometry

#: Traccar has no defaults for its filters; these are ours for a campus.
MAX_ACC_M, MAX_SPEED_MPS = 50.0, 20.0


def filtered_fixes(fixes: ReceivedFixes, zones: ZoneGeometry) -> B1:
    """The zones after each fix. Shape [F, Z]."""
    kept = _last_kept(fixes)
    found = zones.cover(fixes.x_m, fixes.y_m)[np.maximum(kept, 0)]
    found[kept < 0] = False
    return found


def _last_kept(fixes: ReceivedFixes) -> I8:
    """For each fix: the last one of its device that passed, -1 before the first."""
    last: I8 = np.full(int(fixes.device.max(initial=0)) + 1, -1)
    kept = np.empty(len(fixes), np.int64)
    for rows in rounds(fixes.device):
        device = fixes.device[rows]
        before = last[device]
        passes = fixes.acc_m[rows] <= MAX_ACC_M
        passes &= (before < 0) | (
            _distance_m(fixes, before, rows) <= MAX_SPEED_MPS * (fixes.t_s[rows] - fixes.t_s[before])
        )
        last[device] = kept[rows] = np.where(passes, rows, before)
    return kept


def _distance_m(fixes: ReceivedFixes, a: I8, b: I8) -> F8:
    return np.hypot(fixes.x_m[a] - fixes.x_m[b], fixes.y_m[a] - fixes.y_m[b])
