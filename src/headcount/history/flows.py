"""Arrivals, departures, dwell times and trips between zones, by the hour and without pseudonyms. Pure.

A trip from one zone to another: the device left the first and entered the second at the next instant at which it
entered any zone. Its other ends are `outside`: a device that enters the site came from there, and one that
leaves the site before it enters a zone went there. The boundary itself is neither origin nor destination.

Beside the number of events, a cell has the number of people that public answers are made of: each pseudonym
is in a cell once a day, and in no more than MAX_CELLS cells of a table a day, the first ones. One person changes
these numbers by 1 in MAX_CELLS cells (bounded contribution: Wilson et al., "Differentially private SQL
with bounded user contribution", 2020).
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal, NamedTuple

from headcount.counting.site_feature import BOUNDARY
from headcount.history.stays import US, PairedEvent, ZoneEvent, paired
from headcount.messages.times import DAY_S

FlowTable = Literal["arrivals", "departures", "dwell", "trips"]
#: Cells of a table in which one pseudonym counts on one day.
MAX_CELLS = 24
#: The lower bounds of dwell times, in seconds. A stay longer than MAX_DWELL_S is of unknown length.
DWELL_FROM_S = (0, 60, 300, 900, 1800, 3600, 7200, 14_400, 28_800)
MAX_DWELL_S = 12 * 3600
#: The dwell time of a departure whose arrival is not known, or too long ago.
UNKNOWN = "unknown"
#: The other end of a trip that begins or ends off site.
OUTSIDE = "outside"
_HOUR_US = 3600 * US
_MAX_US = MAX_DWELL_S * US


class FlowCell(NamedTuple):
    """A cell of a table."""

    site: str
    kind: str
    table: FlowTable
    zone: str  # of trips, the origin
    other: str  # of trips the destination, of dwell times their lower bound or `unknown`, else empty


class FlowNumbers(NamedTuple):
    """The numbers of a cell."""

    events: int
    people: int  # pseudonyms that are in it for the first time of the day


def needed_from_s(hour_s: float) -> float:
    """Where the events begin that the flows of an hour depend on: its day, and the longest dwell time."""
    return min(hour_s - MAX_DWELL_S, hour_s // DAY_S * DAY_S)


def flows(events: Iterable[ZoneEvent], hour_s: float) -> dict[FlowCell, FlowNumbers]:
    """The flows of an hour, from the events since `needed_from_s`."""
    from_us = round(hour_s * US)
    to_us = from_us + _HOUR_US
    total: dict[FlowCell, int] = defaultdict(int)
    people: dict[FlowCell, int] = defaultdict(int)
    for _, own in paired(events):
        if own[-1].event.t_us < from_us:
            continue
        day = None
        counted: dict[FlowTable, set[tuple[FlowCell, int]]] = {}
        for t_us, cell in _occurrences(own):
            if t_us >= to_us:
                break
            if day != t_us // (DAY_S * US):
                day, counted = t_us // (DAY_S * US), defaultdict(set)
            if t_us >= from_us:
                total[cell] += 1
            # arrivals and departures are published by the hour, the others by the day
            period = t_us // _HOUR_US if cell.table in ("arrivals", "departures") else 0
            cells = counted[cell.table]
            if (cell, period) not in cells and len(cells) < MAX_CELLS:
                cells.add((cell, period))
                people[cell] += t_us >= from_us
    return {cell: FlowNumbers(number, people[cell]) for cell, number in sorted(total.items())}


def _occurrences(own: list[PairedEvent]) -> Iterable[tuple[int, FlowCell]]:
    """One device's entries of all tables, in order."""
    pending: list[tuple[int, str]] = []  # departures, from which no zone was entered yet
    origins: list[tuple[int, str]] = []
    entered_us: int | None = None

    for event, since_us in own:
        t_us, (site, kind, zone) = event.t_us, (event.site, event.kind, event.zone)
        if event.is_enter:
            yield t_us, FlowCell(site, kind, "arrivals", zone, "")
            if zone == BOUNDARY:
                pending, entered_us = [(t_us, OUTSIDE)], None
                continue
            if t_us != entered_us:
                origins, pending, entered_us = pending, [], t_us
            for left_us, origin in origins:
                if t_us - left_us <= _MAX_US:
                    yield t_us, FlowCell(site, kind, "trips", origin, zone)
            continue
        yield t_us, FlowCell(site, kind, "departures", zone, "")
        yield t_us, FlowCell(site, kind, "dwell", zone, dwell(since_us, t_us))
        if zone != BOUNDARY:
            pending.append((t_us, zone))
            continue
        for left_us, origin in pending:
            if origin != OUTSIDE and t_us - left_us <= _MAX_US:
                yield t_us, FlowCell(site, kind, "trips", origin, OUTSIDE)
        pending = []


def dwell(since_us: int | None, to_us: int) -> str:
    """The lower bound of a stay's length, as text; `unknown` if it is not known or too long."""
    if since_us is None or to_us - since_us > _MAX_US:
        return UNKNOWN
    seconds = (to_us - since_us) // US
    return str(DWELL_FROM_S[bisect.bisect_right(DWELL_FROM_S, seconds) - 1])
