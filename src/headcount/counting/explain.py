"""Why a device is counted or not: each of its messages, the rule that decided, and the numbers; pure.

The verdicts and the memberships are the engine's own: a new engine processes the device's messages one
after the other. `explained_rules` adds the numbers that the rules compare (docs/concepts/counting-rules.md).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from headcount.counting.engine import Engine
from headcount.counting.events import REASONS, Events, Reason
from headcount.counting.explained_rules import (
    COARSE_LINE,
    SITE_CHANGE,
    LastKnown,
    Measurements,
    NearbyEdge,
    RuleCheck,
    TracedMessage,
    accuracy,
    is_coarse,
    projected,
)
from headcount.counting.fix_columns import FIX, FORGET, OFFLINE, FixColumns
from headcount.counting.site import Site
from headcount.counting.verdicts import FORGET_S
from headcount.counting.zone_lookup import ZoneLookup
from headcount.messages.fixes import VERDICTS
from headcount.messages.topics import KINDS, Kind

#: Zones within NEAR_M, MAX_EDGES at most, are reported although the device is not a member of them.
NEAR_M = 50.0
MAX_EDGES = 5


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


class Explainer:
    """Follows one device from its first message, and explains each of them."""

    def __init__(self, zones: ZoneLookup, kind: Kind, device: str) -> None:
        """Start without state of the device; `zones` must not be used elsewhere meanwhile."""
        self._kind = KINDS.index(kind)
        self._key = f"{kind}.{device}".encode()
        self._engine = Engine(zones.site, zones)
        self._known = LastKnown()
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
            before = self._known = LastKnown()
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
        self._engine, self._known = Engine(self._site, self._engine.zones), LastKnown()
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
        measured = Measurements(self._site, self._kind, self._known, message)
        line = measured.line(verdict)
        is_placed = verdict in ("accepted", "outside") and line != COARSE_LINE
        edges = self._edges(measured, zones) if is_placed else []
        why = measured.text(line, edges)
        return ExplainedMessage(
            message, verdict, f"1.{line + 1}", why, measured.checks(line), edges, changes, order
        )

    def _edges(self, measured: Measurements, zones: frozenset[str]) -> list[NearbyEdge]:
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
        if verdict in ("outside", "accepted") and not is_coarse(self._site, message):
            known.x_m, known.y_m = projected(self._site, message)
            known.position_t_s, known.acc_m = message.t_s, accuracy(message)

    def _changes(self, events: Events) -> list[MembershipChange]:
        columns = (events.zone, events.enter, events.t_s, events.reason)
        return [
            MembershipChange(self._site.zones[zone].id, enter, t_s, REASONS[reason])
            for zone, enter, t_s, reason in zip(*(column.tolist() for column in columns), strict=True)
        ]


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
