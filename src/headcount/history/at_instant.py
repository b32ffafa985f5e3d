"""Where devices were at an instant (decision 0045): linear between near fixes, else the last one. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely

from headcount.counting.fix_columns import B1, F8, I8, U1, U8
from headcount.counting.site import EARTH_RADIUS_M, Site, Zone
from headcount.history.fix_rows import STEPS_PER_DEG, FixRows, joined
from headcount.history.manifest import Box
from headcount.messages.fixes import VERDICTS
from headcount.messages.topics import KINDS

#: Between fixes that are at most this far apart in time, a device moves in a straight line at constant speed.
MAX_GAP_S = 60.0
MAX_GAP_US = round(MAX_GAP_S * 1e6)
DAY_US = 86_400 * 10**6
ACCEPTED, INACCURATE = VERDICTS.index("accepted"), VERDICTS.index("inaccurate")
_LON_STEPS = 360 * STEPS_PER_DEG


@dataclass(frozen=True, slots=True)
class PresenceRules:
    """How long silent devices of a site stay present (rule 3); pairs are (person, vehicle)."""

    site: Site

    @property
    def base_s(self) -> float:
        """The longest hold outside zones with a longer one."""
        return max(self.site.hold_s)

    def long_zones(self, kind: int) -> list[Zone]:
        """The zones in which devices of a kind stay longer than on the rest of the site."""
        return [zone for zone in self.site.zones if zone.hold_s[kind] > self.site.hold_s[kind]]

    @property
    def longest_s(self) -> float:
        """The longest hold of all."""
        return max(max(zone.hold_s) for zone in self.site.zones)

    def long_boxes(self) -> tuple[Box, ...]:
        """Boxes of all positions of members of these zones."""
        zones = {zone.id: zone for kind in (0, 1) for zone in self.long_zones(kind)}
        boxes = []
        for zone in zones.values():
            west, south, east, north = zone.geometry.bounds
            margin = math.degrees((zone.leave_margin_m + 1) / EARTH_RADIUS_M)
            wide = margin / math.cos(math.radians(min(89.0, max(abs(south), abs(north)))))
            boxes.append((west - wide, south - margin, east + wide, north + margin))
        return tuple(boxes)

    def hold_us(self, kind: int, rows: FixRows, age_us: I8) -> F8:
        """The hold of devices at their last positions in microseconds: the longest of zones that may have them."""
        base_us = self.site.hold_s[kind] * 1e6
        found = np.full(len(rows), base_us)
        which = np.flatnonzero(age_us > base_us)
        if not len(which):
            return found
        at = self.site.project(rows.lat[which] / STEPS_PER_DEG, rows.lon[which] / STEPS_PER_DEG)
        points = shapely.points(*at)
        for zone in self.long_zones(kind):
            is_near = shapely.distance(zone.plane, points) <= zone.leave_margin_m
            found[which[is_near]] = np.maximum(found[which[is_near]], zone.hold_s[kind] * 1e6)
        return found


@dataclass(frozen=True, slots=True)
class Exits:
    """n exits of devices from a site, in no order."""

    device: U8
    kind: U1
    t_us: I8


@dataclass(frozen=True, slots=True)
class DevicePositions:
    """n devices with their position at an instant, as stored; of each its last fix."""

    fixes: FixRows
    lat: I8  # multiples of 1 / STEPS_PER_DEG degrees, rounded where a device is between two fixes
    lon: I8
    is_between: B1

    def __len__(self) -> int:
        return len(self.lat)

    def take(self, which: B1 | I8 | slice) -> DevicePositions:
        """Some of the devices."""
        return DevicePositions(
            self.fixes.take(which), self.lat[which], self.lon[which], self.is_between[which]
        )


def positions(rows: FixRows, exits: Exits, at_us: int, rules: PresenceRules) -> DevicePositions:
    """The positions of all present devices at an instant, in the order of kind and pseudonym.

    Args:
        rows: accepted and inaccurate fixes of the time in which a device can still be present, and of the
            MAX_GAP_S after the instant; others are ignored.
        exits: from the site, in the same time.
        at_us: the instant, Unix microseconds.
        rules: of the version of the site that was in effect.
    """
    parts = [_of_kind(rows.take(rows.kind == kind), exits, at_us, kind, rules) for kind in range(len(KINDS))]
    return DevicePositions(
        joined([part.fixes for part in parts]),
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("lat", "lon", "is_between")),
    )


def deciding(rows: FixRows, at_us: int, least: int, most: int) -> I8:
    """The rows of a span that may decide where a device was at an instant, as indices.

    Of neighbouring rows of a device in the order of time these are the last ones up to the instant and the
    first one after it. In a segment all rows of a device in a cell are neighbours.
    """
    is_wanted = (rows.t_us >= least) & (rows.t_us <= most)
    is_wanted &= (rows.verdict == ACCEPTED) | (rows.verdict == INACCURATE)
    index = np.flatnonzero(is_wanted)
    t_us, device, kind = rows.t_us[index], rows.device[index], rows.kind[index]
    run = np.zeros(len(index), np.int64)
    np.cumsum((device[1:] != device[:-1]) | (t_us[1:] <= t_us[:-1]) | (kind[1:] != kind[:-1]), out=run[1:])
    past, accepted = t_us <= at_us, rows.verdict[index] == ACCEPTED
    last, used, following = (np.flatnonzero(each) for each in (past & accepted, past, ~past & accepted))
    kept: B1 = np.zeros(len(index), np.bool_)
    for each in (last, used):
        kept[each[np.append(run[each[1:]] != run[each[:-1]], True)[: len(each)]]] = True
    kept[following[np.append(True, run[following[1:]] != run[following[:-1]])[: len(following)]]] = True
    return index[kept]


def without_position(rows: FixRows, at_us: int) -> U8:
    """The devices of which all fixes up to an instant are inaccurate."""
    past = rows.take(rows.t_us <= at_us)
    is_accepted = past.verdict == ACCEPTED
    return np.setdiff1d(past.device[past.verdict == INACCURATE], past.device[is_accepted])


def _of_kind(rows: FixRows, exits: Exits, at_us: int, kind: int, rules: PresenceRules) -> DevicePositions:
    is_used = (rows.verdict == ACCEPTED) | (rows.verdict == INACCURATE)
    # pseudonyms change at midnight UTC: a position of the day before may be that of any device
    is_used &= rows.t_us // DAY_US == at_us // DAY_US
    rows = rows.take(is_used)
    rows = rows.take(np.lexsort((-rows.seq, rows.t_us, rows.device)))
    past, accepted = rows.t_us <= at_us, rows.verdict == ACCEPTED
    last = rows.take(_last_of_each(rows, past & accepted))
    used = rows.take(_last_of_each(rows, past))
    following = rows.take(_first_of_each(rows, ~past & accepted))

    # rules 3 and 1 of the counts: presence ends with the hold, or with an exit
    age_us = at_us - last.t_us
    silence_us = at_us - used.t_us[np.searchsorted(used.device, last.device)]
    hold_us = rules.hold_us(kind, last, age_us)
    max_age_us = rules.site.max_position_age_s * 1e6
    oldest_us = np.where(silence_us < age_us, np.maximum(hold_us, max_age_us), hold_us)
    of_kind = exits.kind == kind
    left_us = _newest(last.device, exits.device[of_kind], exits.t_us[of_kind], at_us)
    is_present = (silence_us <= hold_us) & (age_us <= oldest_us) & (left_us <= last.t_us)
    last = last.take(is_present)

    left_next_us = _oldest(last.device, exits.device[of_kind], exits.t_us[of_kind], at_us)
    return _moved(last, following, left_next_us, at_us)


def _moved(last: FixRows, following: FixRows, left_us: I8, at_us: int) -> DevicePositions:
    """Positions between the last and the following fix of each device, where these are near in time.

    A device that leaves the site before its following fix stays at its last one.
    """
    if not len(following):
        return DevicePositions(last, last.lat, last.lon, np.zeros(len(last), np.bool_))
    then = following.take(np.minimum(np.searchsorted(following.device, last.device), len(following) - 1))
    gap_us = then.t_us - last.t_us
    is_between = (then.device == last.device) & (gap_us <= MAX_GAP_US) & (left_us > then.t_us)
    is_between &= at_us > last.t_us
    share = np.where(is_between, (at_us - last.t_us) / np.maximum(gap_us, 1), 0.0)
    east = then.lon - last.lon
    east -= _LON_STEPS * np.rint(east / _LON_STEPS).astype(np.int64)  # the shorter way round
    lat = last.lat + np.rint(share * (then.lat - last.lat)).astype(np.int64)
    lon = last.lon + np.rint(share * east).astype(np.int64)
    lon -= _LON_STEPS * ((lon > _LON_STEPS // 2).astype(np.int64) - (lon < -_LON_STEPS // 2))
    return DevicePositions(last, lat, lon, is_between)


def _last_of_each(rows: FixRows, which: B1) -> I8:
    """The last wanted row of each device; rows are in the order of device and time."""
    index = np.flatnonzero(which)
    device = rows.device[index]
    return index[np.flatnonzero(np.append(device[1:] != device[:-1], True))] if len(index) else index


def _first_of_each(rows: FixRows, which: B1) -> I8:
    index = np.flatnonzero(which)
    device = rows.device[index]
    return index[np.flatnonzero(np.append(True, device[1:] != device[:-1]))] if len(index) else index


def _newest(of: U8, device: U8, t_us: I8, at_us: int) -> I8:
    """The newest time at or before an instant of each of some devices; a time before all others if it has none."""
    return _extreme(of, device, t_us, t_us <= at_us, -1)


def _oldest(of: U8, device: U8, t_us: I8, at_us: int) -> I8:
    """The oldest time after an instant of each of some devices; a time after all others if it has none."""
    return _extreme(of, device, t_us, t_us > at_us, 1)


def _extreme(of: U8, device: U8, t_us: I8, which: B1, sign: int) -> I8:
    device, t_us = device[which], t_us[which]
    order = np.lexsort((sign * t_us, device))
    device, t_us = device[order], t_us[order]
    none = np.full(len(of), sign * 2**62, np.int64)
    if not len(device):
        return none
    index = np.minimum(np.searchsorted(device, of), len(device) - 1)
    return np.where(device[index] == of, t_us[index], none)
