"""Rules 2 and 3: who is where, and until when.

Every function changes the roster for devices that occur at most once in its columns.
"""

from __future__ import annotations

import numpy as np

from headcount.counting import verdicts
from headcount.counting.device_table import Roster
from headcount.counting.events import MOVED, NO_EVENTS, NO_ROW, OUTSIDE, REMOVED, SILENT, Events, changes
from headcount.counting.fix_batch import F8, I4, I8, U1, Prepared
from headcount.counting.membership_sets import EMPTY
from headcount.counting.pseudonym_source import days
from headcount.counting.zone_lookup import Zones


def expire(zones: Zones, roster: Roster, device: I4 | I8) -> Events:
    """Let these devices, whose time has passed, leave all their zones (rule 3)."""
    return _leave(zones, roster, device, roster.expires_s[device], SILENT)


def remove(zones: Zones, roster: Roster, device: I4, now_s: float) -> Events:
    """Let these devices leave all their zones now, and be as if never heard of."""
    events = _leave(zones, roster, device, np.full(len(device), now_s), REMOVED)
    reset(roster, device)
    return events


def _leave(zones: Zones, roster: Roster, device: I4 | I8, t_s: F8, why: int) -> Events:
    n = len(device)
    if not n:
        return NO_EVENTS
    events = changes(
        zones.sets,
        device.astype(np.int32),
        roster.zones[device],
        np.full(n, EMPTY, dtype=np.int32),
        t_s,
        np.full(n, why, dtype=np.uint8),
        days(roster.used_s[device]),
        np.full(n, NO_ROW, dtype=np.int32),
    )
    roster.zones[device] = EMPTY
    roster.expires_s[device] = np.inf
    roster.moved[device] = True
    return events


def reset(roster: Roster, device: I4 | I8) -> None:
    """Make these devices as if never heard of (they are in no zone)."""
    roster.last_t_s[device] = np.nan
    roster.used_s[device] = np.nan
    roster.position_t_s[device] = np.nan
    roster.x_m[device] = np.nan
    roster.y_m[device] = np.nan
    roster.acc_m[device] = 0.0
    roster.implausible_run[device] = 0
    roster.offline[device] = False


def place(zones: Zones, roster: Roster, fixes: Prepared, rows: I8) -> tuple[U1, Events]:
    """Use fixes that rule 1 let through, which are these rows of the batch: new positions, new memberships.

    Returns:
        The final verdicts (`accepted` or `outside`), uint8 [n], and the events.
    """
    device, t_s = fixes.device, fixes.t_s
    old = roster.zones[device]
    new = zones.move(old, fixes.cell, fixes.x_m, fixes.y_m)
    on_site = zones.sets.member[new, 0]
    verdict = np.where(on_site, np.uint8(verdicts.ACCEPTED), np.uint8(verdicts.OUTSIDE))
    new[~on_site] = EMPTY
    roster.last_t_s[device] = t_s
    roster.used_s[device] = fixes.received_s
    roster.position_t_s[device] = t_s
    roster.x_m[device] = fixes.x_m
    roster.y_m[device] = fixes.y_m
    roster.acc_m[device] = fixes.acc_m
    roster.implausible_run[device] = 0
    roster.offline[device] = False
    roster.zones[device] = new
    expires_s = t_s + zones.sets.hold_s[new, fixes.kind]
    expires_s[new == EMPTY] = np.inf
    roster.expires_s[device] = expires_s
    roster.moved[device] = True
    changed = np.flatnonzero(old != new)
    if not len(changed):
        return verdict, NO_EVENTS
    reason = np.where(on_site[changed], np.uint8(MOVED), np.uint8(OUTSIDE))
    return verdict, changes(
        zones.sets,
        device[changed].astype(np.int32),
        old[changed],
        new[changed],
        t_s[changed],
        reason,
        days(fixes.received_s[changed]),
        rows[changed].astype(np.int32),
    )


def keep_alive(zones: Zones, roster: Roster, device: I8, t_s: F8, received_s: F8) -> None:
    """Use inaccurate fixes: the devices live, their positions stay."""
    roster.last_t_s[device] = t_s
    roster.used_s[device] = received_s
    roster.offline[device] = False
    roster.expires_s[device] = _expires(zones, roster, device, roster.zones[device], t_s)


def hear_status(zones: Zones, roster: Roster, device: I8, offline: U1, received_s: F8) -> None:
    """Remember last wills (`offline` true) and greetings; end a presence early where the site says so."""
    roster.offline[device] = offline
    held_s = _expires(zones, roster, device, roster.zones[device], roster.last_t_s[device])
    leaves = np.array(zones.site.on_offline_leave)[roster.kind[device]] & (offline != 0)
    early_s = np.where(leaves, received_s + zones.site.offline_grace_s, np.inf)
    present = roster.zones[device] != EMPTY
    roster.expires_s[device] = np.where(present, np.minimum(held_s, early_s), np.inf)


def _expires(zones: Zones, roster: Roster, device: I8, sets: I4, t_s: F8) -> F8:
    """Until when devices in these sets stay, if they fall silent after t_s."""
    return np.where(sets == EMPTY, np.inf, t_s + zones.sets.hold_s[sets, roster.kind[device]])
