"""Which positions are reported: those that change counts, and others by time, distance and heading."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from headcount.device.positions import DevicePosition
from headcount.device.site_areas import BOUNDARY, DeviceKind, SiteAreas, distance_m

#: `left`: the device left the site. `zones`: the zones that count it change. `first`: no site is known yet.
ReportReason = Literal["left", "zones", "first", "requested", "time", "distance", "heading"]
#: Reasons for which a fix changes counts, and is kept in a full buffer.
COUNTED_REASONS = frozenset({"left", "zones"})
#: Times are published in milliseconds.
MIN_STEP_S = 0.001
#: A device that stays reports this often within its hold, so that one lost fix does not end its presence.
FIXES_PER_HOLD = 3


@dataclass(frozen=True, slots=True)
class ReportRules:
    """The limits for a report that changes no count."""

    interval_s: float = 60.0  # a report after this time, also of a device that does not move
    distance_m: float = 25.0  # a report after this distance, if both positions are more accurate
    heading_deg: float = 60.0  # a report after this change of course …
    heading_kmh: float = 3.0  # … at this speed or a higher one
    gap_s: float = 5.0  # no report by distance or heading sooner than this


DEFAULT_RULES: dict[DeviceKind, ReportRules] = {
    "person": ReportRules(),
    "vehicle": ReportRules(distance_m=100.0, heading_deg=30.0, heading_kmh=10.0, gap_s=2.0),
}


@dataclass(frozen=True, slots=True)
class ReportState:
    """The memory of a device, with which it decides about its next position."""

    zones: frozenset[str] = frozenset()  # zones that count the device after its last report
    last: DevicePosition | None = None  # the last reported position
    placed: DevicePosition | None = None  # the last reported one that is not coarse
    interval_s: float | None = None  # set by the command `interval`
    paused_until: float = -math.inf  # set by the command `pause`
    is_requested: bool = False  # set by the command `report`


class Reporter:
    """Decides about each position of a device, in the order of time.

    Without a site each position counts as on site.
    """

    def __init__(
        self, kind: DeviceKind, rules: ReportRules | None = None, state: ReportState | None = None
    ) -> None:
        self.rules = rules or DEFAULT_RULES[kind]
        self.state = state or ReportState()
        self.site: SiteAreas | None = None

    def judge(self, position: DevicePosition) -> ReportReason | None:
        """Why to report a position, None if not to; a reported one is remembered."""
        state, site = self.state, self.site
        last = state.last
        if position.t < state.paused_until or (last and position.t - last.t < MIN_STEP_S):
            return None
        before = state.zones
        if site and last and position.t > last.t + site.hold_s(before):
            before = frozenset()  # the hold has expired: the system does not count the device any more
        is_coarse = site is not None and site.is_coarse(position)
        if site and state.placed and not is_coarse and site.is_implausible(state.placed, position):
            return None
        after = site.move(before, position) if site else frozenset()
        reason = self._reason(before, after, position)
        if reason is None:
            self.state = replace(state, zones=before)
        else:
            placed = state.placed if is_coarse else position
            self.state = replace(state, zones=after, last=position, placed=placed, is_requested=False)
        return reason

    def request(self) -> None:
        """Report the next position on site whatever the rules."""
        self.state = replace(self.state, is_requested=True)

    @property
    def is_off_site(self) -> bool:
        """Whether the device is silent because it is not on the site."""
        return self.site is not None and not self.state.zones

    def _reason(
        self, before: frozenset[str], after: frozenset[str], position: DevicePosition
    ) -> ReportReason | None:
        state, rules = self.state, self.rules
        if self.site:
            if BOUNDARY not in after:
                return "left" if before else None
            if after != before:
                return "zones"
        if state.last is None:
            return "first"
        if state.is_requested:
            return "requested"
        elapsed_s = position.t - state.last.t
        if state.interval_s is not None:
            return "time" if elapsed_s >= state.interval_s else None
        if elapsed_s >= self._interval_s(after):
            return "time"
        if elapsed_s < rules.gap_s:
            return None
        far_m = max(rules.distance_m, position.acc_m, state.last.acc_m)
        if distance_m(state.last, position) >= far_m:
            return "distance"
        return "heading" if self._turns(state.last, position) else None

    def _interval_s(self, zones: frozenset[str]) -> float:
        if self.site is None:
            return self.rules.interval_s
        return max(self.rules.gap_s, min(self.rules.interval_s, self.site.hold_s(zones) / FIXES_PER_HOLD))

    def _turns(self, last: DevicePosition, position: DevicePosition) -> bool:
        if last.cog is None or position.cog is None or (position.vel or 0.0) < self.rules.heading_kmh:
            return False
        turn = abs(position.cog - last.cog) % 360
        return min(turn, 360 - turn) >= self.rules.heading_deg
