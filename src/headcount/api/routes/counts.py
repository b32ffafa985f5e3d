"""Counts of all zones or of one, at a moment or over time."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from fastapi import APIRouter
from msgspec.structs import asdict

from headcount.access.roles import Caller
from headcount.api.counts_lookup import corrected, counts_at, feed_for
from headcount.api.live_sites import ServedSite
from headcount.api.media_types import Csv, Json
from headcount.api.middleware.identity import AnyCaller
from headcount.api.middleware.site_access import SiteInPath
from headcount.api.parameters import DEFAULT_SPAN_S, MAX_ROWS, At, HistorySteps, Steps, ZoneId, Zones
from headcount.api.public_counts import PublicCounts
from headcount.api.schemas import counts
from headcount.api.schemas.problems import NOT_RECORDED, ProblemError, invalid
from headcount.api.state import ApiState, State, known_zone, known_zone_of_any_version
from headcount.api.stream_reader import zone_indices
from headcount.counting.disclosure import GRID_S
from headcount.history import series
from headcount.history.count_queries import zones_history
from headcount.history.reader import HistoryView
from headcount.messages.times import iso
from headcount.messages.topics import KINDS

T = TypeVar("T")
router = APIRouter(prefix="/v1", tags=["counts"])
_HISTORY_FAILURES = ["history-unreadable", "too-many-queries"]
_SUMMARY = ("count", "min", "max", "mean")
_FAILURES = ["not-recorded", "history-unreadable", "no-counts-yet", "too-many-queries"]


@router.get(
    "/sites/{site}/counts",
    summary="Get the counts of all zones",
    response_model=counts.CountsResponse,
    response_description="The counts, those of the boundary (`site`) first",
    openapi_extra={"x-problems": _FAILURES},
)
async def get_counts(site: SiteInPath, state: State, caller: AnyCaller, at: At = None) -> Json:
    """Return the counts of all zones now, or at a moment of the last 24 hours.

    `at` in the answer is the instant of these counts: the newest known one at or before the requested moment.
    There is one each second for the last five minutes, and one each 10 s before that.

    Without the scope `counts:exact`, where small counts are hidden: there is one each minute, small
    counts are `"<5"`, the others are rounded to multiples of 5, and the bounds of a count are null.
    """
    return Json(await counts_at(state, site, caller, at))


@router.get(
    "/sites/{site}/zones/{zone}",
    summary="Get the counts of one zone",
    response_model=counts.ZoneCountsResponse,
    response_description="The counts",
    openapi_extra={"x-problems": ["unknown-zone", *_FAILURES]},
)
async def get_zone_counts(
    site: SiteInPath, zone: ZoneId, state: State, caller: AnyCaller, at: At = None
) -> Json:
    """Return the counts of one zone now, or at a moment of the last 24 hours, as in /counts."""
    (known_zone if at is None else known_zone_of_any_version)(site, zone)
    answer = msgspec.json.decode(msgspec.json.encode(await counts_at(state, site, caller, at)))
    zones = {each["zone"]: each for each in answer.pop("zones")}
    if zone not in zones:
        raise ProblemError(NOT_RECORDED, f"Zone {zone!r} was not counted at {answer['at']}.")
    return Json(answer | zones[zone])


@router.get(
    "/sites/{site}/zones/{zone}/history",
    summary="Get one zone's counts over time",
    response_model=counts.ZoneHistoryResponse,
    response_description="The counts, oldest first",
    openapi_extra={"x-problems": ["unknown-zone", *_HISTORY_FAILURES]},
)
async def get_zone_history(
    site: SiteInPath,
    zone: ZoneId,
    state: State,
    caller: AnyCaller,
    steps: Steps,
) -> Json:
    """Return the counts of one zone in steps of time: at the step's end, minimum, maximum and mean.

    Steps end at multiples of `step`. Those without a record are left out. Counts before the last 24 hours are
    stored by the minute, for 400 days: there, `step` is a multiple of 60. The last minute may not
    be written yet: for the present, use the stream.

    Without the scope `counts:exact`, where small counts are hidden: `step` is a multiple of 60, `count`
    is as in /counts, and minimum, maximum and mean are null.
    """
    known_zone_of_any_version(site, zone)
    return await _history(state, site, caller, [zone], steps, lambda head, rows: Json(head | rows[0]))


@router.get(
    "/sites/{site}/history",
    summary="Get the counts of several zones over time",
    response_model=counts.HistoryResponse,
    response_description="The counts of each zone, oldest first",
    openapi_extra={"x-problems": _HISTORY_FAILURES},
)
async def get_history(
    site: SiteInPath,
    state: State,
    caller: AnyCaller,
    steps: Steps,
    zones: Zones = None,
) -> Json:
    """Return the counts of zones in steps of time, as /zones/{zone}/history does for one; default: of all zones."""
    wanted = _ids(site, zones)
    return await _history(state, site, caller, wanted, steps, lambda head, rows: Json(head | {"zones": rows}))


@router.get(
    "/sites/{site}/history.csv",
    summary="Get the counts of several zones over time as CSV",
    response_class=Csv,
    response_description="A row for each zone and step, with the columns zone, at, person_count, person_min, "
    "person_max, person_mean, and the same of vehicles; hidden numbers are empty",
    openapi_extra={"x-problems": _HISTORY_FAILURES},
)
async def get_history_csv(
    site: SiteInPath,
    state: State,
    caller: AnyCaller,
    steps: Steps,
    zones: Zones = None,
) -> Csv:
    """Return the same as /history as a table, for spreadsheets and data analysis."""

    def render(_: dict[str, Any], found: list[dict[str, Any]]) -> Csv:
        lines = io.StringIO(newline="")
        table = csv.writer(lines)
        table.writerow(["zone", "at", *(f"{kind}_{name}" for kind in KINDS for name in _SUMMARY)])
        for zone in found:
            for row in zone["rows"]:
                numbers = [row[kind][name] for kind in KINDS for name in _SUMMARY]
                table.writerow([zone["zone"], row["at"], *numbers])
        return Csv(lines.getvalue())

    return await _history(state, site, caller, _ids(site, zones), steps, render)


def _ids(site: ServedSite, zones: str | None) -> list[str]:
    return [site.live.zones[index] for index in zone_indices(site.live, zones)]


async def _history(
    state: ApiState,
    site: ServedSite,
    caller: Caller,
    zones: list[str],
    steps: HistorySteps,
    render: Callable[[dict[str, Any], list[dict[str, Any]]], T],
) -> T:
    """Return what `render` makes of the head of an answer and its zones, in the query's thread."""
    to_s = time.time() if steps.to_s is None else steps.to_s
    from_s = max(0.0, to_s - DEFAULT_SPAN_S) if steps.from_s is None else steps.from_s
    step = steps.step_s
    if from_s > to_s:
        raise invalid("from", "is after `to`")
    if (to_s - from_s) / step * len(zones) > MAX_ROWS:
        problem = f"gives more than {MAX_ROWS} rows; choose a longer step, a shorter span or fewer zones"
        raise invalid("step", problem)
    feed = feed_for(state, site, caller)
    if isinstance(feed, PublicCounts) and step % GRID_S:
        raise invalid("step", f"without the scope counts:exact, use a multiple of {GRID_S:g} s")

    def read(view: HistoryView) -> T:
        rows: dict[str, list[dict[str, Any]]]
        from_minutes = series.needs_minutes(view, from_s, step, site=site.id)
        if isinstance(feed, PublicCounts):
            rows = {
                zone: [
                    {"at": iso(at_s), **row} for at_s, row in feed.history(view, zone, (from_s, to_s), step)
                ]
                for zone in zones
            }
        else:
            query = series.zones_history if from_minutes else zones_history
            found = query(view, zones, from_s, to_s, step, site=site.id)
            rows = {
                zone: [
                    {"at": iso(each.at), "person": asdict(each.person), "vehicle": asdict(each.vehicle)}
                    for each in steps
                ]
                for zone, steps in found.items()
            }
        newest = series.correction(view, "minutes", from_s, to_s, site=site.id) if from_minutes else None
        head = {"site": site.id, "from": iso(from_s), "to": iso(to_s), "step_s": step, **corrected(newest)}
        return render(head, [{"zone": zone, "rows": rows[zone]} for zone in zones])

    return await state.history.run(read)
