"""Rule 1: the verdict of a fix."""

from __future__ import annotations

import numpy as np

from headcount.counting.device_table import DeviceTable
from headcount.counting.fix_columns import B1, F8, I4, I8, U1, FixColumns, ProjectedFixes
from headcount.counting.site import Site
from headcount.counting.zone_lookup import ZoneLookup
from headcount.messages.fixes import VERDICTS

(MALFORMED, INVALID, FUTURE, DUPLICATE, OUT_OF_ORDER, LATE, INACCURATE, IMPLAUSIBLE, OUTSIDE, ACCEPTED) = (
    range(len(VERDICTS))
)
#: Not judged yet; also the verdict of a status message, which is no fix.
NONE = 255

FUTURE_S = 60.0
#: The fix after this many implausible ones in a row is used: the device really is there.
IMPLAUSIBLE_RUN = 2
#: The state of a device in no zone whose last used fix is older than this is deleted.
FORGET_S = 86_400.0


def without_state(fixes: FixColumns, slots: I4) -> U1:
    """The verdicts that don't depend on the device's state: uint8 [n], NONE where they do."""
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(fixes.t_s + fixes.lat_deg + fixes.lon_deg)
        verdict = np.full(len(fixes), NONE, dtype=np.uint8)
        verdict[fixes.t_s > fixes.received_s + FUTURE_S] = FUTURE
        beyond = (np.abs(fixes.lat_deg) > 90.0) | (np.abs(fixes.lon_deg) > 180.0)
        verdict[beyond | ((fixes.lat_deg == 0.0) & (fixes.lon_deg == 0.0))] = INVALID
    if not finite.all():
        # a sum of finite numbers may overflow: check each where the sum isn't finite
        each = np.isfinite(fixes.t_s) & np.isfinite(fixes.lat_deg) & np.isfinite(fixes.lon_deg)
        verdict[~each] = MALFORMED
    verdict[slots < 0] = MALFORMED
    verdict[fixes.what != 0] = NONE
    return verdict


def of_the_fix_alone(
    zones: ZoneLookup, known: U1, kind: U1, received_s: F8, t_s: F8, x_m: F8, y_m: F8, acc_m: F8
) -> U1:
    """The best possible verdict of each fix without the device's state, where it isn't `known` already.

    It is `late`, `outside` of a coarse fix, `inaccurate`, or `accepted`, which may still be `outside`.
    """
    site = zones.site
    verdict = np.full(len(kind), ACCEPTED, dtype=np.uint8)
    # in the reverse order of the rules, so that the first that matches stays; NaN matches nothing
    coarse = np.flatnonzero((acc_m > site.max_accuracy_m) & (known == NONE))
    if len(coarse):
        far = zones.is_beyond(np.zeros_like(coarse), x_m[coarse], y_m[coarse], 2.0 * acc_m[coarse])
        verdict[coarse] = np.where(far, np.uint8(OUTSIDE), np.uint8(INACCURATE))
    verdict[t_s + np.array(site.hold_s)[kind] < received_s] = LATE
    return verdict


def with_state(site: Site, table: DeviceTable, fixes: ProjectedFixes) -> U1:
    """The verdict of each fix, as far as rule 2 isn't needed; the `outside` of accurate fixes is `accepted` here.

    Args:
        site: its limits.
        table: the devices' state before the fix.
        fixes: at most one per device.

    Returns:
        uint8 [n].
    """
    device, t_s = fixes.device, fixes.t_s
    last_t_s = table.last_t_s[device]
    distance_m = np.hypot(fixes.x_m - table.x_m[device], fixes.y_m - table.y_m[device])
    elapsed_s = t_s - table.position_t_s[device]
    reach_m = np.array(site.max_speed_mps)[fixes.kind] * elapsed_s + fixes.acc_m + table.acc_m[device]
    verdict = fixes.verdict.copy()
    # in the reverse order of the rules again; `late` and coarse fixes come before `implausible`
    jump = distance_m > reach_m
    if jump.any():
        jump &= (verdict == ACCEPTED) & (table.implausible_run[device] < IMPLAUSIBLE_RUN)
        verdict[jump] = IMPLAUSIBLE
    verdict[t_s < last_t_s] = OUT_OF_ORDER
    verdict[(t_s == last_t_s) | (t_s == table.implausible_t_s[device])] = DUPLICATE
    return verdict


def forgotten(table: DeviceTable, device: I4 | I8, now_s: F8 | float) -> B1:
    """Which devices are in no zone and were last seen more than a day before `now_s`."""
    old: B1 = table.last_t_s[device] < now_s - FORGET_S
    if old.any():
        old &= table.zones[device] == 0
    return old


def stored(zones: ZoneLookup, verdict: U1, fixes: ProjectedFixes) -> B1:
    """Which fixes belong in the history: bool [n]."""
    found: B1 = (verdict == ACCEPTED) | (verdict == INACCURATE)
    past = np.flatnonzero((verdict == LATE) | (verdict == OUT_OF_ORDER))
    if len(past):
        found[past] = zones.is_on_site(fixes.x_m[past], fixes.y_m[past])
    return found
