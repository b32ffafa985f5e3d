"""Why a device is counted or not: each of its messages, the rule that decided, and the numbers; pure.

The verdicts and the memberships are the engine's own: a new engine processes the device's messages one
after the other. This module adds the numbers that the rules compare (docs/concepts/counting-rules.md):
times, distances and limits, up to the line of rule 1 that matched first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import shapely

from headcount.counting.engine import Engine
from headcount.counting.events import REASONS, Events, Reason
from headcount.counting.fix_columns import FIX, FORGET, OFFLINE, FixColumns
from headcount.counting.site import Site
from headcount.counting.verdicts import FORGET_S, FUTURE_S, IMPLAUSIBLE_RUN
from headcount.counting.zone_lookup import ZoneLookup
from headcount.messages.fixes import VERDICTS
from headcount.messages.topics import KINDS, Kind

#: Zones within NEAR_M, MAX_EDGES at most, are reported although the device is not a member of them.
NEAR_M = 50.0
MAX_EDGES = 5
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


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """A change of membership (rules 2 and 3)."""

    zone: str
    enter: bool  # else exit
    t_s: float
    reason: Reason


@dataclass(frozen=True, slots=True)
class ExplainedMessage:
    """The result of one message."""

    message: TracedMessage
    verdict: str | None  # None: it is no fix
    rule: str  # "1.9": line 9 of rule 1; "3": a status message; "6": a new version of the site; "forgotten"
    why: str  # one sentence, with the numbers
    checks: list[RuleCheck]
    edges: list[NearbyEdge]
    changes: list[MembershipChange]
    zones: list[str]  # memberships afterwards


@dataclass(slots=True)
class _Known:
    """The device's state as far as the rules use it."""

    last_t_s: float = math.nan
    position_t_s: float = math.nan
    x_m: float = math.nan
    y_m: float = math.nan
    acc_m: float = 0.0
    run: int = 0  # implausible fixes in a row
    implausible_t_s: float = math.nan  # of the last one
    zones: frozenset[str] = field(default_factory=frozenset)


class Explainer:
    """Follows one device from its first message, and explains each of them."""

    def __init__(self, zones: ZoneLookup, kind: Kind, device: str) -> None:
        """Start without state of the device; `zones` must not be used elsewhere meanwhile."""
        self._kind = KINDS.index(kind)
        self._key = f"{kind}.{device}".encode()
        self._engine = Engine(zones.site, zones)
        self._known = _Known()
        self._use(zones.site)

    def _use(self, site: Site) -> None:
        self._site = site
        self._planes = np.array([zone.plane for zone in site.zones], dtype=object)

    @property
    def zones(self) -> list[str]:
        """The zones of which the device is a member now."""
        return [zone.id for zone in self._site.zones if zone.id in self._known.zones]

    def explain(
        self,
        messages: Iterable[TracedMessage],
        *,
        last: int | None = None,
        versions: Sequence[tuple[float, ZoneLookup]] = (),
        until_s: float = -math.inf,
    ) -> Iterator[ExplainedMessage]:
        """Each message's explanation, in order, and those of site changes that move the device.

        Args:
            messages: in the order in which they were received.
            last: explain only that number of newest messages.
            versions: of the site, with the instants at which they take effect, in their order.
            until_s: also apply versions that take effect after the last message, up to this instant.
        """
        messages, later = list(messages), deque(versions)
        first = 0 if last is None else len(messages) - last
        for number, message in enumerate(messages):
            while later and later[0][0] < message.received_s:
                yield from self._change_site(*later.popleft())
            explained = self._explain(message, detailed=number >= first)
            if explained is not None:
                yield explained
        while later and later[0][0] <= until_s:
            yield from self._change_site(*later.popleft())

    def _change_site(self, at_s: float, zones: ZoneLookup) -> Iterator[ExplainedMessage]:
        """Rule 6, explained if it changes anything for the device."""
        left, entered = self._engine.change_site(zones, at_s)
        changes = self._changes(left)
        self._use(zones.site)
        changes += self._changes(entered)
        state = self._engine.find(self._key)
        if state is not None:
            self._known.zones = frozenset(state.zones)
            if state.x_m is not None and state.y_m is not None:
                self._known.x_m, self._known.y_m = state.x_m, state.y_m
        if changes:
            why = "A new version of the site took effect: the last position is placed in its zones."
            message = TracedMessage(at_s, SITE_CHANGE)
            yield ExplainedMessage(message, None, "6", why, [], [], changes, self.zones)

    def advance(self, now_s: float) -> list[MembershipChange]:
        """The exits before `now_s` because the device stopped reporting (rule 3)."""
        changes = self._changes(self._engine.advance(now_s))
        if changes:
            self._known.zones = frozenset()
        return changes

    def _explain(self, message: TracedMessage, *, detailed: bool) -> ExplainedMessage | None:
        changes = self.advance(message.received_s)
        if message.what == FORGET:
            return self._explain_removal(message, changes)
        step = self._engine.step(_columns(message), self._engine.slots([self._key]))
        changes += self._changes(step.events)
        before = self._known
        if not before.zones and before.last_t_s < message.received_s - FORGET_S:
            before = self._known = _Known()
        state = self._engine.find(self._key)
        zones = frozenset(state.zones if state is not None else ())
        code = int(step.verdicts[0])
        verdict = VERDICTS[code] if message.what == FIX else None
        explained = self._detailed(message, verdict, zones, changes) if detailed else None
        self._update_known(message, verdict, zones)
        return explained

    def _explain_removal(self, message: TracedMessage, changes: list[MembershipChange]) -> ExplainedMessage:
        changes += [
            MembershipChange(zone, enter=False, t_s=message.received_s, reason="removed")
            for zone in self.zones
        ]
        self._engine, self._known = Engine(self._site, self._engine.zones), _Known()
        why = "The device was paused or erased: its state is deleted."
        return ExplainedMessage(message, None, "forgotten", why, [], [], changes, [])

    def _detailed(
        self,
        message: TracedMessage,
        verdict: str | None,
        zones: frozenset[str],
        changes: list[MembershipChange],
    ) -> ExplainedMessage:
        order = [zone.id for zone in self._site.zones if zone.id in zones]
        if verdict is None:
            why = _status_text(self._site, self._kind, message, bool(zones))
            return ExplainedMessage(message, None, "3", why, [], [], changes, order)
        measured = _Measurements(self._site, self._kind, self._known, message)
        line = measured.line(verdict)
        is_placed = verdict in ("accepted", "outside") and line != COARSE_LINE
        edges = self._edges(measured, zones) if is_placed else []
        why = measured.text(line, edges)
        return ExplainedMessage(
            message, verdict, f"1.{line + 1}", why, measured.checks(line), edges, changes, order
        )

    def _edges(self, measured: _Measurements, zones: frozenset[str]) -> list[NearbyEdge]:
        """The boundary, the zones that the device was or is a member of, and the nearest of the others."""
        point = shapely.points(measured.x_m, measured.y_m)
        outside_m = shapely.distance(self._planes, point)
        covers = shapely.intersects_xy(self._planes, measured.x_m, measured.y_m)
        concerned = self._known.zones | zones
        site = self._site.zones
        others = [int(i) for i in np.argsort(outside_m) if site[i].id not in concerned and i != 0]
        near = [i for i in others if outside_m[i] <= NEAR_M][:MAX_EDGES]
        chosen = [i for i in range(len(site)) if i == 0 or site[i].id in concerned]
        return [
            NearbyEdge(
                site[i].id,
                bool(covers[i]),
                0.0 - float(shapely.distance(shapely.boundary(self._planes[i]), point))
                if covers[i]
                else float(outside_m[i]),
                measured.margin_m(site[i].leave_margin_m),
                site[i].id in self._known.zones,
                site[i].id in zones,
            )
            for i in chosen + near
        ]

    def _update_known(self, message: TracedMessage, verdict: str | None, zones: frozenset[str]) -> None:
        known = self._known
        known.zones = zones
        if verdict == "implausible":
            known.run += 1
            known.implausible_t_s = message.t_s
        if verdict in ("inaccurate", "outside", "accepted"):
            known.last_t_s = message.t_s
        if verdict in ("outside", "accepted"):
            known.run = 0
        if verdict in ("outside", "accepted") and not _is_coarse(self._site, message):
            known.x_m, known.y_m = _projected(self._site, message)
            known.position_t_s, known.acc_m = message.t_s, _accuracy(message)

    def _changes(self, events: Events) -> list[MembershipChange]:
        columns = (events.zone, events.enter, events.t_s, events.reason)
        return [
            MembershipChange(self._site.zones[zone].id, enter, t_s, REASONS[reason])
            for zone, enter, t_s, reason in zip(*(column.tolist() for column in columns), strict=True)
        ]


class _Measurements:
    """The numbers that rule 1 compares for one fix."""

    def __init__(self, site: Site, kind: int, known: _Known, message: TracedMessage) -> None:
        self.site, self.kind, self.known, self.message = site, kind, known, message
        self.x_m, self.y_m = _projected(site, message)
        self.acc_m = _accuracy(message)
        self.ahead_s = message.t_s - message.received_s
        self.since_s = message.t_s - known.last_t_s
        self.elapsed_s = message.t_s - known.position_t_s
        self.again = message.t_s == known.implausible_t_s
        #: from the site, of a coarse fix
        self.outside_m = self.reach_m = math.nan
        if _is_coarse(site, message) and math.isfinite(self.x_m + self.y_m):
            self.reach_m = 2 * self.acc_m
            self.outside_m = float(shapely.distance(site.zones[0].plane, shapely.points(self.x_m, self.y_m)))
        self.distance_m = float(np.hypot(self.x_m - known.x_m, self.y_m - known.y_m))
        self.allowed_m = site.max_speed_mps[kind] * self.elapsed_s + self.acc_m + known.acc_m

    def margin_m(self, own_m: float) -> float:
        """The margin of a zone for this fix."""
        return min(own_m, self.site.leave_margin_acc * self.acc_m) if self.acc_m else own_m

    def line(self, verdict: str) -> int:
        """The index in LINES of the line that matched."""
        if verdict == "outside" and _is_coarse(self.site, self.message):
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
        x_m, y_m = _projected(self.site, swapped)
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


def _status_text(site: Site, kind: int, message: TracedMessage, present: bool) -> str:
    if message.what != OFFLINE:
        return "The device is online. That changes neither its position nor its hold."
    if site.on_offline_leave[kind] and present:
        return f"The device is offline; without a fix, it leaves after {site.offline_grace_s:g} s."
    return "The device is offline. That is shown, but its hold continues."


def _columns(message: TracedMessage) -> FixColumns:
    numbers = (message.received_s, message.t_s, message.lat_deg, message.lon_deg, message.acc_m)
    columns = np.array(numbers, dtype=np.float64).reshape(-1, 1)
    return FixColumns(np.array([message.what], dtype=np.uint8), *columns)


def _projected(site: Site, message: TracedMessage) -> tuple[float, float]:
    x_m, y_m = site.project(np.array([message.lat_deg]), np.array([message.lon_deg]))
    return float(x_m[0]), float(y_m[0])


def _accuracy(message: TracedMessage) -> float:
    """Its accuracy, 0 = unknown."""
    return message.acc_m if 0.0 < message.acc_m < math.inf else 0.0


def _is_coarse(site: Site, message: TracedMessage) -> bool:
    return _accuracy(message) > site.max_accuracy_m


def _shown(value: float, decimals: int = 1) -> str:
    return f"{value:.{decimals}f}" if abs(value) < 1e12 else f"{value:g}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
