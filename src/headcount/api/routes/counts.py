"""Counts of all zones or of one, at a moment or over time."""

from __future__ import annotations

import time

import msgspec
from fastapi import APIRouter

from headcount.api.counts_lookup import counts_at, feed_for
from headcount.api.media_types import Json
from headcount.api.middleware.identity import AnyCaller
from headcount.api.parameters import DEFAULT_SPAN_S, MAX_ROWS, At, From, SiteId, Step, To, ZoneId
from headcount.api.public_counts import PublicCounts
from headcount.api.schemas import counts
from headcount.api.schemas.problems import NOT_RECORDED, ProblemError, invalid
from headcount.api.state import State, known_site, known_zone
from headcount.counting.disclosure import GRID_S
from headcount.history import queries
from headcount.messages.times import iso

router = APIRouter(prefix="/v1", tags=["counts"])
_FAILURES = ["not-recorded", "history-unreadable", "no-counts-yet", "too-many-queries"]


@router.get(
    "/sites/{site}/counts",
    summary="Get the counts of all zones",
    response_model=counts.CountsResponse,
    response_description="The counts, those of the boundary (`site`) first",
    openapi_extra={"x-problems": _FAILURES},
)
async def get_counts(site: SiteId, state: State, caller: AnyCaller, at: At = None) -> Json:
    """Return the counts of all zones now, or at a moment of the last 24 hours.

    `at` in the answer is the instant of these counts: the newest known one at or before the requested moment.
    There is one each second for the last five minutes, and one each 10 s before that.

    Without the scope `counts:exact`, where small counts are hidden: there is one each minute, small
    counts are `"<5"`, the others are rounded to multiples of 5, and the bounds of a count are null.
    """
    known_site(state, site)
    return Json(await counts_at(state, caller, at))


@router.get(
    "/sites/{site}/zones/{zone}",
    summary="Get the counts of one zone",
    response_model=counts.ZoneCountsResponse,
    response_description="The counts",
    openapi_extra={"x-problems": ["unknown-zone", *_FAILURES]},
)
async def get_zone_counts(site: SiteId, zone: ZoneId, state: State, caller: AnyCaller, at: At = None) -> Json:
    """Return the counts of one zone now, or at a moment of the last 24 hours, as in /counts."""
    known_zone(state, site, zone)
    answer = msgspec.json.decode(msgspec.json.encode(await counts_at(state, caller, at)))
    zones = {each["zone"]: each for each in answer.pop("zones")}
    if zone not in zones:
        raise ProblemError(NOT_RECORDED, f"Zone {zone!r} was not counted at {answer['at']}.")
    return Json(answer | zones[zone])


@router.get(
    "/sites/{site}/zones/{zone}/history",
    summary="Get one zone's counts over time",
    response_model=counts.ZoneHistoryResponse,
    response_description="The counts, oldest first",
    openapi_extra={"x-problems": ["unknown-zone", "history-unreadable", "too-many-queries"]},
)
async def get_zone_history(
    site: SiteId,
    zone: ZoneId,
    state: State,
    caller: AnyCaller,
    from_: From = None,
    to: To = None,
    step: Step = 60.0,
) -> Json:
    """Return the counts of one zone in steps of time: at the step's end, minimum, maximum and mean.

    Steps end at multiples of `step`. Those without a record are left out. The last minute may not
    be written yet: for the present, use the stream.

    Without the scope `counts:exact`, where small counts are hidden: `step` is a multiple of 60, `count`
    is as in /counts, and minimum, maximum and mean are null.
    """
    known_zone(state, site, zone)
    to_s = time.time() if to is None else to
    from_s = max(0.0, to_s - DEFAULT_SPAN_S) if from_ is None else from_
    if from_s > to_s:
        raise invalid("from", "is after `to`")
    if (to_s - from_s) / step > MAX_ROWS:
        raise invalid("step", f"gives more than {MAX_ROWS} rows; choose a longer step or a shorter span")
    data, feed = state.settings.data, feed_for(state, caller)
    if isinstance(feed, PublicCounts) and step % GRID_S:
        raise invalid("step", f"without the scope counts:exact, use a multiple of {GRID_S:g} s")

    def read() -> bytes:
        if isinstance(feed, PublicCounts):
            public = feed.history(data, zone, (from_s, to_s), step)
            rows = [{"at": iso(at_s), **row} for at_s, row in public]
        else:
            steps = queries.zone_history(data, zone, from_s, to_s, step)
            rows = [{"at": iso(each.at), "person": each.person, "vehicle": each.vehicle} for each in steps]
        head = {"site": site, "zone": zone, "from": iso(from_s), "to": iso(to_s), "step_s": step}
        return msgspec.json.encode({**head, "rows": rows})

    return Json(await state.history.run(read))
