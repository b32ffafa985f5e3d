"""Memberships after each fix → devices in zones at instants; the hold is the same for all rules that are not ours."""

from __future__ import annotations

import numpy as np

from headcount.counting.fix_columns import B1, F8, I8, U1
from headcount.lab.accuracy.error_model import ReceivedFixes
from headcount.lab.accuracy.movement import Movement
from headcount.lab.accuracy.zone_geometry import ZoneGeometry


def true_members(movement: Movement, zones: ZoneGeometry) -> B1:
    """The zones in which devices truly are, by geometry alone. Shape [T, N, Z]."""
    return np.array([zones.cover(x, y) for x, y in zip(movement.x_m, movement.y_m, strict=True)])


def members_at(found: B1, fixes: ReceivedFixes, kind: U1, zones: ZoneGeometry, at_s: F8) -> B1:
    """The devices in zones at instants, until their hold ends.

    Args:
        found: the zones after each fix, [F, Z].
        fixes: the fixes, in the order of receipt.
        kind: of each device, [N].
        zones: their holds count from a device's last fix; of several zones, the longest one counts.
        at_s: the instants, [T].

    Returns:
        bool [T, N, Z].
    """
    hold_s = np.where(found, zones.hold_s[:, kind[fixes.device]].T, 0.0).max(axis=1)
    until_s = fixes.t_s + hold_s
    last: I8 = np.full(len(kind), -1)
    members = np.zeros((len(at_s), len(kind), len(zones)), np.bool_)
    start = 0
    for index, stop in enumerate(np.searchsorted(fixes.received_s, at_s, side="right").tolist()):
        # of several rows of a device, the last one stays
        last[fixes.device[start:stop]] = np.arange(start, stop)
        start = stop
        device = np.flatnonzero(last >= 0)
        device = device[until_s[last[device]] >= at_s[index]]
        members[index, device] = found[last[device]]
    return members
