"""Arrivals, departures, dwell times and trips between zones."""

from __future__ import annotations

import csv
import io
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple, TypeVar

from fastapi import APIRouter, Depends, Query

from headcount.access.roles import Caller
from headcount.api.counts_lookup import corrected, feed_for
from headcount.api.live_sites import ServedSite
from headcount.api.media_types import Csv, Json
from headcount.api.middleware.identity import AnyCaller
from headcount.api.middleware.site_access import SiteInPath
from headcount.api.parameters import MAX_STEP_S, Moment, To, ZoneId
from headcount.api.public_counts import PublicCounts
from headcount.api.schemas import flows
from headcount.api.schemas.problems import invalid
from headcount.api.state import ApiState, State, known_zone_of_any_version
from headcount.counting.cell_disclosure import CellDisclosure
from headcount.counting.disclosure import as_public, disclosure_key
from headcount.counting.site_feature import BOUNDARY
from headcount.history.flows import DWELL_FROM_S, MAX_DWELL_S, OUTSIDE, UNKNOWN, FlowTable
from headcount.history.hours import HOUR_S
from headcount.history.reader import HistoryView
from headcount.history.series import FlowPeriods, Period, flow_periods
from headcount.messages.times import DAY_S, iso
from headcount.messages.topics import KINDS, Kind

T = TypeVar("T")
#: Numbers in one answer.
MAX_NUMBERS = 200_000
#: The periods of public answers: an hour for arrivals and departures, a day for the others. There are no others, or a
#: small number would follow from two that overlap.
PUBLIC_STEP_S: dict[FlowTable, int] = {
    "arrivals": HOUR_S,
    "departures": HOUR_S,
    "dwell": DAY_S,
    "trips": DAY_S,
}
#: Periods of the answer without `from`.
DEFAULT_PERIODS: dict[FlowTable, int] = {"arrivals": 24, "departures": 24, "dwell": 7, "trips": 1}
_FAILURES = ["unknown-zone", "history-unreadable", "too-many-queries"]

router = APIRouter(prefix="/v1", tags=["counts"])

FlowStep = Annotated[
    int | None,
    Query(
        ge=HOUR_S,
        le=MAX_STEP_S,
        multiple_of=HOUR_S,
        description="Seconds of a period, whole hours; periods begin at multiples of it, in UTC. Default, and "
        "only value without the scope `counts:exact`: 3600 for arrivals, 86400 for the others.",
    ),
]


FlowFrom = Annotated[
    Moment | None,
    Query(
        alias="from",
        description="Start; default: 24 hours, 7 days of dwell times, or 1 day of trips before `to`.",
    ),
]


class FlowSpan(NamedTuple):
    """The periods of flows that are wanted."""

    from_s: float | None
    to_s: float | None
    step_s: int | None


def _span(from_: FlowFrom = None, to: To = None, step: FlowStep = None) -> FlowSpan:
    return FlowSpan(from_, to, step)


Span = Annotated[FlowSpan, Depends(_span)]
Number = Callable[[float, Kind, FlowTable, str, str], int | str | None]


class _Answer(NamedTuple):
    """The periods of an answer, and each number as the caller may see it."""

    step_s: float
    heads: dict[float, dict[str, Any]]
    number: Number


@router.get(
    "/sites/{site}/zones/{zone}/arrivals",
    summary="Get one zone's arrivals and departures",
    response_model=flows.ArrivalsResponse,
    response_description="Arrivals and departures, oldest first",
    openapi_extra={"x-problems": _FAILURES},
)
async def get_arrivals(site: SiteInPath, zone: ZoneId, state: State, caller: AnyCaller, span: Span) -> Json:
    """Return how many devices entered and left a zone, by the hour, for up to 400 days.

    Without the scope `counts:exact`, where small counts are hidden: different people, in complete hours.
    """
    known_zone_of_any_version(site, zone)

    def render(answer: _Answer) -> Json:
        rows = [head | _both(answer, at_s, zone) for at_s, head in answer.heads.items()]
        return Json({"site": site.id, "zone": zone, "step_s": answer.step_s, "rows": rows})

    return await _flows(state, site, caller, ("arrivals", "departures"), span, render, zone)


@router.get(
    "/sites/{site}/arrivals.csv",
    summary="Get the arrivals and departures of all zones as CSV",
    response_class=Csv,
    response_description="A row for each zone and period, with the columns zone, from, to, person_arrivals, "
    "person_departures, vehicle_arrivals, vehicle_departures; hidden numbers are empty",
    openapi_extra={"x-problems": _FAILURES[1:]},
)
async def get_arrivals_csv(site: SiteInPath, state: State, caller: AnyCaller, span: Span) -> Csv:
    """Return the same as /zones/{zone}/arrivals for all zones as a table."""
    zones = [BOUNDARY, *_zones(site)]

    def render(answer: _Answer) -> Csv:
        def lines() -> Iterator[list[object]]:
            yield ["zone", "from", "to", *(f"{kind}_{table}" for kind in KINDS for table in _BOTH)]
            for zone in zones:
                for at_s, head in answer.heads.items():
                    numbers = _both(answer, at_s, zone)
                    cells = (_csv(numbers[kind][table]) for kind in KINDS for table in _BOTH)
                    yield [zone, head["from"], head["to"], *cells]

        return _table(lines())

    return await _flows(state, site, caller, _BOTH, span, render, size=4 * len(zones))


@router.get(
    "/sites/{site}/zones/{zone}/dwell-times",
    summary="Get how long stays in one zone are",
    response_model=flows.DwellTimesResponse,
    response_description="The number of stays by their length, oldest first",
    openapi_extra={"x-problems": _FAILURES},
)
async def get_dwell_times(
    site: SiteInPath, zone: ZoneId, state: State, caller: AnyCaller, span: Span
) -> Json:
    """Return the lengths of the stays that ended, by the day, for up to 400 days.

    Stays over midnight (UTC), when pseudonyms change, are of unknown length. Without the scope
    `counts:exact`, where small counts are hidden: different people, in complete days.
    """
    known_zone_of_any_version(site, zone)

    def of_kind(answer: _Answer, at_s: float, kind: Kind) -> dict[str, Any]:
        ends = [*DWELL_FROM_S[1:], MAX_DWELL_S]
        bins = [
            {"from_s": low, "to_s": high, "stays": answer.number(at_s, kind, "dwell", zone, str(low))}
            for low, high in zip(DWELL_FROM_S, ends, strict=True)
        ]
        return {"bins": bins, "unknown": answer.number(at_s, kind, "dwell", zone, UNKNOWN)}

    def render(answer: _Answer) -> Json:
        rows = [
            head | {kind: of_kind(answer, at_s, kind) for kind in KINDS}
            for at_s, head in answer.heads.items()
        ]
        return Json({"site": site.id, "zone": zone, "step_s": answer.step_s, "rows": rows})

    return await _flows(state, site, caller, ("dwell",), span, render, zone, size=2 * len(DWELL_FROM_S))


@router.get(
    "/sites/{site}/origin-destination",
    summary="Get the trips between zones",
    response_model=flows.OriginDestinationResponse,
    response_description="A matrix for each period, oldest first",
    openapi_extra={"x-problems": _FAILURES[1:]},
)
async def get_origin_destination(site: SiteInPath, state: State, caller: AnyCaller, span: Span) -> Json:
    """Return how many devices went from one zone to another, by the day, for up to 400 days.

    A trip leads from a zone that a device left to each zone that it entered next. Without the scope
    `counts:exact`, where small counts are hidden: different people, in complete days.
    """
    zones = [*_zones(site), OUTSIDE]

    def render(answer: _Answer) -> Json:
        rows = [
            head
            | {
                kind: [[answer.number(at_s, kind, "trips", a, b) for b in zones] for a in zones]
                for kind in KINDS
            }
            for at_s, head in answer.heads.items()
        ]
        return Json({"site": site.id, "step_s": answer.step_s, "zones": zones, "rows": rows})

    return await _flows(state, site, caller, ("trips",), span, render, size=2 * len(zones) ** 2)


@router.get(
    "/sites/{site}/origin-destination.csv",
    summary="Get the trips between zones as CSV",
    response_class=Csv,
    response_description="A row for each period, origin and destination with a trip that may be shown, with the "
    "columns from, to, origin, destination, person, vehicle; hidden numbers are empty",
    openapi_extra={"x-problems": _FAILURES[1:]},
)
async def get_origin_destination_csv(site: SiteInPath, state: State, caller: AnyCaller, span: Span) -> Csv:
    """Return the same as /origin-destination as a table."""
    zones = [*_zones(site), OUTSIDE]

    def render(answer: _Answer) -> Csv:
        def lines() -> Iterator[list[object]]:
            yield ["from", "to", "origin", "destination", *KINDS]
            for at_s, head in answer.heads.items():
                for origin in zones:
                    for destination in zones:
                        cells = [
                            _csv(answer.number(at_s, kind, "trips", origin, destination)) for kind in KINDS
                        ]
                        if any(cells):
                            yield [head["from"], head["to"], origin, destination, *cells]

        return _table(lines())

    return await _flows(state, site, caller, ("trips",), span, render, size=2 * len(zones) ** 2)


_BOTH: tuple[FlowTable, FlowTable] = ("arrivals", "departures")


def _both(answer: _Answer, at_s: float, zone: str) -> dict[str, dict[str, int | str | None]]:
    return {kind: {table: answer.number(at_s, kind, table, zone, "") for table in _BOTH} for kind in KINDS}


def _zones(site: ServedSite) -> list[str]:
    """The zones that the site has or had, without the boundary."""
    ids = dict.fromkeys(zone.id for version in reversed(site.versions.all) for zone in version.site.zones)
    return [zone for zone in ids if zone != BOUNDARY]


async def _flows(
    state: ApiState,
    site: ServedSite,
    caller: Caller,
    tables: tuple[FlowTable, ...],
    span: FlowSpan,
    render: Callable[[_Answer], T],
    zone: str | None = None,
    size: int = 4,
) -> T:
    """Return what `render` makes of flows, in the query's thread; `size`: numbers in a period."""
    is_public = isinstance(feed_for(state, site, caller), PublicCounts)
    usual_s = PUBLIC_STEP_S[tables[0]]
    step_s = span.step_s or usual_s
    if is_public and step_s != usual_s:
        raise invalid("step", f"without the scope counts:exact, use {usual_s}")
    to_s = time.time() if span.to_s is None else span.to_s
    from_s = to_s - DEFAULT_PERIODS[tables[0]] * step_s if span.from_s is None else span.from_s
    if from_s > to_s:
        raise invalid("from", "is after `to`")
    if (to_s - from_s) / step_s * size > MAX_NUMBERS:
        raise invalid(
            "from", f"gives more than {MAX_NUMBERS} numbers; choose a longer step or a shorter span"
        )

    def read(view: HistoryView) -> T:
        found = {
            table: flow_periods(view, table, max(0.0, from_s), to_s, step_s, site=site.id, zone=zone)
            for table in tables
        }
        heads = {
            at_s: _head(at_s, step_s, period)
            for at_s, period in found[tables[0]].periods.items()
            if period.is_closed or not is_public
        }
        number = _public_numbers(state, site, found) if is_public else _exact_numbers(found)
        return render(_Answer(step_s, heads, number))

    return await state.history.run(read)


def _head(at_s: float, step_s: float, period: Period) -> dict[str, Any]:
    span = {"from": iso(at_s), "to": iso(at_s + step_s)}
    return {**span, "closed": period.is_closed, **corrected(period.correction)}


def _exact_numbers(found: dict[FlowTable, FlowPeriods]) -> Number:
    events: dict[tuple[float, Kind, FlowTable, str, str], int] = defaultdict(int)
    for table, periods in found.items():
        for flow in periods.flows:
            events[flow.from_s, flow.kind, table, flow.zone, flow.other] = flow.events
    return lambda *cell: events[cell]


def _public_numbers(state: ApiState, site: ServedSite, found: dict[FlowTable, FlowPeriods]) -> Number:
    smallest = state.settings.smallest_shown
    disclosure = CellDisclosure(smallest, disclosure_key(state.settings.secret.encode()))
    people: dict[tuple[float, Kind, FlowTable, str, str], int] = defaultdict(int)
    for table, periods in found.items():
        for flow in periods.flows:
            people[flow.from_s, flow.kind, table, flow.zone, flow.other] = flow.people

    def number(*cell: Any) -> int | str | None:
        at_s, kind, table, zone, other = cell
        name = f"{site.id}|{table}|{kind}|{zone}|{other}|{at_s:.0f}"
        return as_public(disclosure.publish(name, people[cell]), smallest)

    return number


def _csv(number: int | str | None) -> int | str:
    return number if isinstance(number, int) else ""


def _table(lines: Iterator[list[object]]) -> Csv:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(lines)
    return Csv(text.getvalue())
