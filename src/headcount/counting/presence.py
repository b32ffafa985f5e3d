"""Rules 2 and 3: where devices are present, and until when.

Every function changes the device table; a device may occur at most once in its columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headcount.counting import verdicts
from headcount.counting.device_table import DeviceTable, days
from headcount.counting.events import (
    COARSE,
    MOVED,
    NO_EVENTS,
    NO_ROW,
    OUTSIDE,
    REMOVED,
    SILENT,
    SITE,
    Events,
    changes,
)
from headcount.counting.fix_columns import F8, I4, I8, U1, ProjectedFixes
from headcount.counting.membership_sets import EMPTY
from headcount.counting.site import Site
from headcount.counting.zone_lookup import ZoneLookup


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """The state of one device."""

    present: bool
    zones: list[str]
    last_t_s: float | None
    x_m: float | None
    y_m: float | None
    acc_m: float
    offline: bool
    verdict: int


def expire(zones: ZoneLookup, table: DeviceTable, device: I4 | I8) -> Events:
    """Remove devices whose hold has ended from all their zones (rule 3)."""
    return _leave(zones, table, device, table.expires_s[device], SILENT)


def remove(zones: ZoneLookup, table: DeviceTable, device: I4, now_s: float) -> Events:
    """Remove devices from all their zones now and delete their state."""
    events = _leave(zones, table, device, np.full(len(device), now_s), REMOVED)
    reset(table, device)
    return events


def leave_site(zones: ZoneLookup, table: DeviceTable, device: I4, at_s: float) -> Events:
    """Remove devices from all their zones, as the site is removed (rule 6)."""
    device = device[table.zones[device] != EMPTY]
    return _leave(zones, table, device, np.full(len(device), at_s), SITE)


def _leave(zones: ZoneLookup, table: DeviceTable, device: I4 | I8, t_s: F8, why: int) -> Events:
    n = len(device)
    if not n:
        return NO_EVENTS
    events = changes(
        zones.sets,
        device.astype(np.int32),
        table.zones[device],
        np.full(n, EMPTY, dtype=np.int32),
        t_s,
        np.full(n, why, dtype=np.uint8),
        days(table.used_s[device]),
        np.full(n, NO_ROW, dtype=np.int32),
    )
    table.zones[device] = EMPTY
    table.expires_s[device] = np.inf
    table.moved[device] = True
    return events


def reset(table: DeviceTable, device: I4 | I8) -> None:
    """Delete the state of devices that are in no zone."""
    table.last_t_s[device] = np.nan
    table.used_s[device] = np.nan
    table.position_t_s[device] = np.nan
    table.x_m[device] = np.nan
    table.y_m[device] = np.nan
    table.acc_m[device] = 0.0
    table.implausible_run[device] = 0
    table.implausible_t_s[device] = np.nan
    table.offline_s[device] = np.inf


def place(zones: ZoneLookup, table: DeviceTable, fixes: ProjectedFixes, rows: I8) -> tuple[U1, Events]:
    """Apply fixes that passed rule 1, at these rows of the batch: new positions, new memberships.

    Returns:
        The final verdicts (`accepted` or `outside`), uint8 [n], and the events.
    """
    device, t_s = fixes.device, fixes.t_s
    old = table.zones[device]
    new = zones.move(old, fixes.cell, fixes.x_m, fixes.y_m, fixes.acc_m)
    on_site = zones.sets.on_site(new)
    verdict = np.where(on_site, np.uint8(verdicts.ACCEPTED), np.uint8(verdicts.OUTSIDE))
    new[~on_site] = EMPTY
    table.last_t_s[device] = t_s
    table.used_s[device] = fixes.received_s
    table.position_t_s[device] = t_s
    table.x_m[device] = fixes.x_m
    table.y_m[device] = fixes.y_m
    table.acc_m[device] = fixes.acc_m
    table.implausible_run[device] = 0
    table.offline_s[device] = np.inf
    table.zones[device] = new
    expires_s = t_s + zones.sets.hold_s[new, fixes.kind]
    expires_s[new == EMPTY] = np.inf
    table.expires_s[device] = expires_s
    table.moved[device] = True
    reason = np.where(on_site, np.uint8(MOVED), np.uint8(OUTSIDE))
    return verdict, _changes(zones, fixes, rows, old, new, reason)


def place_coarse(
    zones: ZoneLookup, table: DeviceTable, fixes: ProjectedFixes, rows: I8, verdict: U1
) -> Events:
    """Apply coarse fixes (`inaccurate` or `outside`): they end memberships, and leave the position unchanged."""
    device, reach_m = fixes.device, 2.0 * fixes.acc_m
    outside = verdict == verdicts.OUTSIDE
    old = table.zones[device]
    row, zone = zones.sets.members(old)
    far = outside[row]
    near = np.flatnonzero(~far)
    far[near] = zones.is_beyond(zone[near], fixes.x_m[row[near]], fixes.y_m[row[near]], reach_m[row[near]])
    new = zones.sets.without(old, row[far], zone[far])
    table.last_t_s[device] = fixes.t_s
    table.used_s[device] = fixes.received_s
    table.implausible_run[device[outside]] = 0
    table.offline_s[device] = np.inf
    table.zones[device] = new
    table.expires_s[device] = _expires(zones, table, device)
    table.moved[device[old != new]] = True
    reason = np.where(outside, np.uint8(OUTSIDE), np.uint8(COARSE))
    return _changes(zones, fixes, rows, old, new, reason)


def _changes(zones: ZoneLookup, fixes: ProjectedFixes, rows: I8, old: I4, new: I4, reason: U1) -> Events:
    """The events of fixes at these rows of the batch."""
    changed = np.flatnonzero(old != new)
    if not len(changed):
        return NO_EVENTS
    return changes(
        zones.sets,
        fixes.device[changed].astype(np.int32),
        old[changed],
        new[changed],
        fixes.t_s[changed],
        reason[changed],
        days(fixes.received_s[changed]),
        rows[changed].astype(np.int32),
    )


def apply_status(zones: ZoneLookup, table: DeviceTable, device: I8, offline_s: F8) -> None:
    """Store since when devices are offline (inf: online); end presence early where the site file is set so."""
    table.offline_s[device] = offline_s
    table.expires_s[device] = _expires(zones, table, device)


def place_again(
    before: ZoneLookup, zones: ZoneLookup, table: DeviceTable, device: I8, at_s: float
) -> tuple[Events, Events]:
    """Place the last positions of those of some devices that are present in the zones of the site's new version (rule 6).

    Returns:
        The exits, with the zones of `before`, and the entries, with those of `zones`.
    """
    _reproject(before.site, zones.site, table, device)
    device = device[table.zones[device] != EMPTY]
    old = table.zones[device]
    if not len(device):
        return NO_EVENTS, NO_EVENTS
    number = {zone.id: i for i, zone in enumerate(zones.site.zones)}
    same = np.array([number.get(zone.id, -1) for zone in before.site.zones])  # old zone → new one with its id
    row, zone = before.sets.members(old)
    carried = zones.sets.from_pairs(row[same[zone] >= 0], same[zone][same[zone] >= 0], len(device))
    x_m, y_m = table.x_m[device], table.y_m[device]
    new = zones.move(zones.sets.numbers(carried), zones.cells(x_m, y_m), x_m, y_m, table.acc_m[device])
    new[~zones.sets.on_site(new)] = EMPTY
    table.zones[device] = new
    ended = _expires(zones, table, device) < at_s
    new[ended] = EMPTY
    table.zones[device] = new
    table.expires_s[device] = _expires(zones, table, device)

    stayed_new = zones.sets.numbers(carried & zones.sets.bits[new])
    stays = (same[zone] >= 0) & zones.sets.has(stayed_new[row], np.maximum(same[zone], 0))
    stayed_old = before.sets.without(old, row[~stays], zone[~stays])
    n, slots = len(device), device.astype(np.int32)
    cause = (
        np.full(n, at_s),
        np.full(n, SITE, dtype=np.uint8),
        days(table.used_s[device]),
        np.full(n, NO_ROW, dtype=np.int32),
    )
    left = changes(before.sets, slots, old, stayed_old, *cause)
    return left, changes(zones.sets, slots, stayed_new, new, *cause)


def _reproject(before: Site, site: Site, table: DeviceTable, device: I8) -> None:
    """Move last positions to the plane of another version; most versions have the same."""
    if (before.lat0_deg, before.lon0_deg) != (site.lat0_deg, site.lon0_deg):
        degrees = before.unproject(table.x_m[device], table.y_m[device])
        table.x_m[device], table.y_m[device] = site.project(*degrees)


def _expires(zones: ZoneLookup, table: DeviceTable, device: I8) -> F8:
    """Until when devices stay present if they stop reporting now (rule 3)."""
    sets = table.zones[device]
    hold_s = zones.sets.hold_s[sets, table.kind[device]]
    # with a recent position, the second limit is never the smaller one
    oldest_s = table.position_t_s[device] + np.maximum(hold_s, zones.site.max_position_age_s)
    leaves = np.array(zones.site.on_offline_leave)[table.kind[device]]
    early_s = np.where(leaves, table.offline_s[device] + zones.site.offline_grace_s, np.inf)
    latest_s = np.minimum(np.minimum(table.last_t_s[device] + hold_s, oldest_s), early_s)
    return np.where(sets == EMPTY, np.inf, latest_s)
