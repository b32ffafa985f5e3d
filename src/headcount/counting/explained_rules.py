"""Rule 1 of the counting rules for one fix: the numbers that its lines compare, and a sentence; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import shapely

from headcount.counting.fix_columns import FIX
from headcount.counting.site import Site
from headcount.counting.verdicts import FUTURE_S, IMPLAUSIBLE_RUN
from headcount.messages.fixes import VERDICTS
from headcount.messages.topics import KINDS

#: A time in another unit is within this of the receipt, once it is converted.
WRONG_UNIT_S = 10 * 365 * 86_400.0
#: Before 2001-09-09, there were no such devices.
EARLIEST_S = 1e9
#: `TracedMessage.what` of a new version of the site; the others are those of `FixColumns`.
SITE_CHANGE = 4
#: The verdicts in the order of the lines of rule 1; the first `outside` is that of coarse fixes.
LINES = (*VERDICTS[:6], "outside", *VERDICTS[6:])
COARSE_LINE = LINES.index("outside")


@dataclass(frozen=True, slots=True)
class TracedMessage:
    """A message of one device as the log has it; times in Unix seconds, missing or broken numbers NaN."""

    received_s: float
    what: int = FIX  # FIX, ONLINE, OFFLINE, FORGET, SITE_CHANGE
    t_s: float = math.nan
    lat_deg: float = math.nan
    lon_deg: float = math.nan
    acc_m: float = math.nan  # 0 or NaN = unknown
    problem: str = ""  # why it is no fix, where that is known


@dataclass(frozen=True, slots=True)
class RuleCheck:
    """A checked line of rule 1: whether it matched, and the two numbers it compares."""

    line: int  # in the table of rule 1, from 1
    verdict: str
    matched: bool
    value: float | None  # None: nothing to compare
    limit: float | None
    unit: str  # of both: s, m, or "" for those without numbers


@dataclass(frozen=True, slots=True)
class NearbyEdge:
    """A zone near a fix (rule 2)."""

    zone: str
    inside: bool  # whether the zone covers the position, its edge included
    edge_m: float  # to its edge: negative inside
    margin_m: float  # the distance outside up to which a member stays one, for this fix
    member_before: bool
    member: bool


@dataclass(slots=True)
class LastKnown:
    """The device's state as far as the rules use it."""

    last_t_s: float = math.nan
    position_t_s: float = math.nan
    x_m: float = math.nan
    y_m: float = math.nan
    acc_m: float = 0.0
    run: int = 0  # implausible fixes in a row
    implausible_t_s: float = math.nan  # of the last one
    zones: frozenset[str] = field(default_factory=frozenset)


class Measurements:
    """The numbers that rule 1 compares for one fix."""

    def __init__(self, site: Site, kind: int, known: LastKnown, message: TracedMessage) -> None:
        self.site, self.kind, self.known, self.message = site, kind, known, message
        self.x_m, self.y_m = projected(site, message)
        self.acc_m = accuracy(message)
        self.ahead_s = message.t_s - message.received_s
        self.since_s = message.t_s - known.last_t_s
        self.elapsed_s = message.t_s - known.position_t_s
        self.again = message.t_s == known.implausible_t_s
        #: from the site, of a coarse fix
        self.outside_m = self.reach_m = math.nan
        if is_coarse(site, message) and math.isfinite(self.x_m + self.y_m):
            self.reach_m = 2 * self.acc_m
            self.outside_m = float(shapely.distance(site.zones[0].plane, shapely.points(self.x_m, self.y_m)))
        self.distance_m = float(np.hypot(self.x_m - known.x_m, self.y_m - known.y_m))
        self.allowed_m = site.max_speed_mps[kind] * self.elapsed_s + self.acc_m + known.acc_m

    def margin_m(self, own_m: float) -> float:
        """The margin of a zone for this fix."""
        return min(own_m, self.site.leave_margin_acc * self.acc_m) if self.acc_m else own_m

    def line(self, verdict: str) -> int:
        """The index in LINES of the line that matched."""
        if verdict == "outside" and is_coarse(self.site, self.message):
            return COARSE_LINE
        return len(LINES) - 1 - LINES[::-1].index(verdict)

    def checks(self, decided: int) -> list[RuleCheck]:
        """The lines of rule 1 up to the one that matched."""
        site, message = self.site, self.message
        lines: tuple[tuple[float, float, str], ...] = (
            (math.nan, math.nan, ""),
            (math.nan, math.nan, ""),
            (self.ahead_s, FUTURE_S, "s"),
            (0.0 if self.again else self.since_s, 0.0, "s"),
            (self.since_s, 0.0, "s"),
            (message.received_s - message.t_s, site.hold_s[self.kind], "s"),
            (self.outside_m, self.reach_m, "m"),
            (self.acc_m, site.max_accuracy_m, "m"),
            (self.distance_m, self.allowed_m, "m"),
            (math.nan, math.nan, ""),
            (math.nan, math.nan, ""),
        )
        return [
            RuleCheck(n + 1, LINES[n], n == decided, _finite(value), _finite(limit), unit)
            for n, (value, limit, unit) in enumerate(lines[: decided + 1])
        ]

    def text(self, line: int, edges: Sequence[NearbyEdge]) -> str:
        """One sentence."""
        site, message, known = self.site, self.message, self.known
        verdict = "coarse" if line == COARSE_LINE else LINES[line]
        match verdict:
            case "malformed":
                why = message.problem or "it isn't JSON with the finite numbers tst, lat and lon"
                return f"It is not a fix: {why}."
            case "invalid":
                place = f"{message.lat_deg:g}°, {message.lon_deg:g}°"
                return (
                    f"{place} is out of range, or the 0, 0 of a receiver without a position.{self._swapped()}"
                )
            case "future":
                allowed = (
                    f"Its time is {_shown(self.ahead_s)} s after its receipt; {FUTURE_S:g} s are allowed."
                )
                return allowed + self._unit()
            case "duplicate":
                return f"Its time is that of the last {'implausible' if self.again else 'used'} fix."
            case "out_of_order":
                return f"Its time is {_shown(-self.since_s)} s before that of the last used fix."
            case "late":
                held_s = site.hold_s[self.kind]
                clock = " Is the clock of the device set?" if message.t_s < EARLIEST_S else ""
                return f"It was {_shown(-self.ahead_s)} s old when it came; a {KINDS[self.kind]} is held for {held_s:g} s.{clock}"
            case "coarse":
                return (
                    f"It is {self.outside_m:.1f} m outside the boundary, more than twice its accuracy of "
                    f"{_shown(self.acc_m, 0)} m.{self._swapped()}"
                )
            case "inaccurate":
                return (
                    f"Its accuracy is {_shown(self.acc_m, 0)} m; {site.max_accuracy_m:g} m are allowed. It extends the hold, "
                    "and enters no zone."
                )
            case "implausible":
                return (
                    f"It is {self.distance_m:.1f} m from the last used position, {self.elapsed_s:.1f} s before: "
                    f"{site.max_speed_mps[self.kind]:g} m/s, and {self.acc_m + known.acc_m:.0f} m of both accuracies, "
                    f"allow {self.allowed_m:.1f} m. It is number {known.run + 1} in a row; number "
                    f"{IMPLAUSIBLE_RUN + 1} is used.{self._swapped()}"
                )
        return self._place(edges) + (self._swapped() if verdict == "outside" else "")

    def _unit(self) -> str:
        """A hint at a time that is not in seconds."""
        for factor, unit in ((1e3, "milli"), (1e6, "micro"), (1e9, "nano")):
            if abs(self.message.t_s / factor - self.message.received_s) < WRONG_UNIT_S:
                return f" It is in {unit}seconds: send seconds since 1970."
        return ""

    def _swapped(self) -> str:
        """A hint at a position whose coordinates are swapped."""
        swapped = replace(self.message, lat_deg=self.message.lon_deg, lon_deg=self.message.lat_deg)
        x_m, y_m = projected(self.site, swapped)
        inside = bool(shapely.intersects_xy(self.site.zones[0].plane, x_m, y_m))
        return " With lat and lon swapped, it would be inside the site." if inside else ""

    def _place(self, edges: Sequence[NearbyEdge]) -> str:
        boundary = edges[0]
        far = self.distance_m > self.allowed_m
        jump = (
            f" Too far from the last position, but the {IMPLAUSIBLE_RUN} before were so too." if far else ""
        )
        if not boundary.member:
            if boundary.member_before:
                return f"It is {boundary.edge_m:.1f} m outside the boundary; the margin is {boundary.margin_m:.4g} m.{jump}"
            return f"It is {boundary.edge_m:.1f} m outside the boundary, and wasn't on site.{jump}"
        kept = [f"{e.zone} ({e.edge_m:.1f} m outside)" for e in edges if e.member and not e.inside]
        inside = [e.zone for e in edges if e.member and e.inside]
        parts = [f"inside {', '.join(inside)}"] if inside else []
        parts += [f"still within the margin of {', '.join(kept)}"] if kept else []
        return f"It is {' and '.join(parts)}.{jump}"


def projected(site: Site, message: TracedMessage) -> tuple[float, float]:
    """Its position in the site's plane."""
    x_m, y_m = site.project(np.array([message.lat_deg]), np.array([message.lon_deg]))
    return float(x_m[0]), float(y_m[0])


def accuracy(message: TracedMessage) -> float:
    """Its accuracy, 0 = unknown."""
    return message.acc_m if 0.0 < message.acc_m < math.inf else 0.0


def is_coarse(site: Site, message: TracedMessage) -> bool:
    """Whether its accuracy is above the site's limit."""
    return accuracy(message) > site.max_accuracy_m


def _shown(value: float, decimals: int = 1) -> str:
    return f"{value:.{decimals}f}" if abs(value) < 1e12 else f"{value:g}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
