"""Sites, their counts now and before, and one zone's history."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from fastapi.responses import Response

from headcount.access.roles import Caller
from headcount.api.count_views import Counts, age_s, counts, feed_for
from headcount.api.live_counts import CountsSnapshot
from headcount.api.media_types import GEOJSON, GeoJson, Json
from headcount.api.middleware.authorization import caller_of
from headcount.api.parameters import DEFAULT_SPAN_S, MAX_ROWS, At, From, Moment, SiteId, Step, To, ZoneId
from headcount.api.public_counts import PublicCounts
from headcount.api.schemas import examples, responses
from headcount.api.schemas.examples import failures, success, told
from headcount.api.schemas.problems import NO_COUNTS, NOT_RECORDED, ProblemError, invalid
from headcount.api.state import ApiState, State, known_site, known_zone
from headcount.counting.disclosure import GRID_S
from headcount.counting.site import Site
from headcount.history import queries
from headcount.messages.times import iso

#: A moment so far ahead is still now: clocks differ.
AHEAD_S = 5.0

router = APIRouter(prefix="/v1", tags=["counts"])
Asking = Annotated[Caller, Depends(caller_of)]


@router.get(
    "/sites",
    summary="The sites",
    response_model=responses.SitesShape,
    responses=success("The sites that are counted here", examples.SITES),
)
async def sites(state: State) -> Response:
    """All sites, with the addresses of what there is of them."""
    return Json(msgspec.json.encode({"sites": [_summary(state.settings.site)]}))


@router.get(
    "/sites/{site}",
    summary="A site's outline and zones as GeoJSON",
    response_class=GeoJson,
    response_model=responses.SiteShape,
    responses={**success("The site file", examples.SITE, GEOJSON), **failures("unknown-site")},
)
async def site_geojson(site: SiteId, state: State) -> Response:
    """The site's boundary and its zones, with names, types and capacities, as GeoJSON."""
    return GeoJson(msgspec.json.encode(known_site(state, site).geojson))


@router.get(
    "/sites/{site}/counts",
    summary="The numbers of all zones",
    response_model=responses.CountsShape,
    responses={
        **told("The numbers, the boundary's (`site`) first", examples.COUNTS, examples.PUBLIC_COUNTS),
        **failures(
            "unknown-site",
            "not-recorded",
            "invalid-parameter",
            "history-unreadable",
            "no-counts-yet",
            "too-many-queries",
        ),
    },
)
async def site_counts(site: SiteId, state: State, asking: Asking, at: At = None) -> Response:
    """The numbers of all zones now, or at a moment of the last 24 hours.

    `at` in the answer is the instant whose numbers these are: the newest that is known at or before
    the moment asked for. Of the last five minutes there is one each second, before that one each 10 s.

    Without the scope `counts:exact`, where small counts are hidden: there is one each minute, small
    counts are `"<5"`, the others are rounded to multiples of 5, and what surrounds a count is null.
    """
    known_site(state, site)
    return Json(msgspec.json.encode(await _counts(state, asking, at)))


@router.get(
    "/sites/{site}/zones/{zone}",
    summary="The numbers of one zone",
    response_model=responses.ZoneCountShape,
    responses={
        **told("The numbers", examples.ZONE_COUNT, examples.PUBLIC_ZONE_COUNT),
        **failures(
            "unknown-site",
            "unknown-zone",
            "not-recorded",
            "invalid-parameter",
            "history-unreadable",
            "no-counts-yet",
            "too-many-queries",
        ),
    },
)
async def zone_count(site: SiteId, zone: ZoneId, state: State, asking: Asking, at: At = None) -> Response:
    """The numbers of one zone now, or at a moment of the last 24 hours; what is told is as in /counts."""
    known_zone(state, site, zone)
    answer = msgspec.json.decode(msgspec.json.encode(await _counts(state, asking, at)))
    numbers = {each["zone"]: each for each in answer.pop("zones")}
    if zone not in numbers:
        raise ProblemError(NOT_RECORDED, f"Zone {zone!r} wasn't counted at {answer['at']}.")
    return Json(msgspec.json.encode(answer | numbers[zone]))


@router.get(
    "/sites/{site}/zones/{zone}/history",
    summary="One zone's counts over time",
    response_model=responses.HistoryShape,
    responses={
        **told("The counts, oldest first", examples.HISTORY, examples.PUBLIC_HISTORY),
        **failures(
            "unknown-site", "unknown-zone", "invalid-parameter", "history-unreadable", "too-many-queries"
        ),
    },
)
async def zone_history(
    site: SiteId,
    zone: ZoneId,
    state: State,
    asking: Asking,
    from_: From = None,
    to: To = None,
    step: Step = 60.0,
) -> Response:
    """The counts of one zone in steps of time: at the step's end, least, most and mean within it.

    Steps end at multiples of `step`. Those without a record are left out. The newest minute may not
    be written yet: for the present, use the stream.

    Without the scope `counts:exact`, where small counts are hidden: `step` is a multiple of 60, `count`
    is as in /counts, and least, most and mean are null.
    """
    known_zone(state, site, zone)
    to_s = time.time() if to is None else to
    from_s = max(0.0, to_s - DEFAULT_SPAN_S) if from_ is None else from_
    if from_s > to_s:
        raise invalid("from", "is after `to`")
    if (to_s - from_s) / step > MAX_ROWS:
        raise invalid("step", f"gives more than {MAX_ROWS} rows; take a longer one or a shorter span")

    data, seen = state.settings.data, feed_for(state, asking)
    if isinstance(seen, PublicCounts) and step % GRID_S:
        raise invalid("step", f"without the scope counts:exact, use a multiple of {GRID_S:g} s")

    def ask() -> bytes:
        head = {"site": site, "zone": zone, "from": iso(from_s), "to": iso(to_s), "step_s": step}
        if isinstance(seen, PublicCounts):
            public = seen.history(data, zone, (from_s, to_s), step)
            return msgspec.json.encode({**head, "rows": [{"at": iso(at_s), **row} for at_s, row in public]})
        buckets = queries.zone_history(data, zone, from_s, to_s, step)
        rows = [{"at": iso(b.at), "person": b.person, "vehicle": b.vehicle} for b in buckets]
        return msgspec.json.encode({**head, "rows": rows})

    return Json(await state.history.run(ask))


async def _counts(state: ApiState, asking: Caller, at: Moment | None) -> Counts:
    """The numbers now, or at a moment: from memory where it reaches so far, else from the history."""
    now_s = time.time()
    if at is not None and at > now_s + AHEAD_S:
        raise invalid("at", "is in the future")
    seen = feed_for(state, asking)
    if isinstance(seen, PublicCounts):
        return await _public_counts(state, seen, at, now_s)
    return await _exact_counts(state, at, now_s)


async def _public_counts(state: ApiState, seen: PublicCounts, at: float | None, now_s: float) -> Counts:
    snapshot, asked_s = seen.snapshot, now_s if at is None else at
    # just started: what was told before is in the history
    if snapshot is None or asked_s < snapshot.total.at:
        snapshot = await state.history.run(lambda: seen.at(state.settings.data, asked_s))
    if snapshot is not None:
        return counts(state.settings.site.id, snapshot, asked_s)
    if at is None:
        wait_s = str(seen.seconds_to_next(now_s))
        text = f"What everybody may see changes each minute; the first numbers come in {wait_s} s."
        raise ProblemError(NO_COUNTS, text, headers={"retry-after": wait_s})
    raise _nothing_recorded(at)


async def _exact_counts(state: ApiState, at: float | None, now_s: float) -> Counts:
    site, live = state.settings.site.id, state.live
    snapshot = live.snapshot
    if at is None:
        if snapshot is None:
            raise ProblemError(NO_COUNTS, NO_COUNTS.meaning, headers={"retry-after": "1"})
        return counts(site, snapshot, now_s)
    if snapshot is not None and at >= snapshot.total.at:
        return counts(site, snapshot, at)
    total = live.remembered(at)
    if total is not None:
        return counts(site, CountsSnapshot(0, total, live.zones), at)
    return await _recorded(state, at)


async def _recorded(state: ApiState, at: float) -> Counts:
    found = await state.history.run(lambda: queries.counts_at(state.settings.data, at))
    if found is None:
        raise _nothing_recorded(at)
    at_s, zones = found
    return Counts(
        site=state.settings.site.id,
        at=iso(at_s),
        partitions_fresh=state.settings.partitions,
        partitions_total=state.settings.partitions,
        age_s=age_s(at_s, at),
        zones=[msgspec.Raw(msgspec.json.encode(zone)) for zone in zones],
    )


def _nothing_recorded(at: float) -> ProblemError:
    return ProblemError(NOT_RECORDED, f"Nothing is recorded at or before {iso(at)}. {NOT_RECORDED.meaning}")


def _summary(site: Site) -> dict[str, Any]:
    here = f"/v1/sites/{site.id}"
    return {
        "id": site.id,
        "name": site.name,
        "timezone": site.timezone,
        "zones": len(site.zones),
        "bbox": list(site.zones[0].geometry.bounds),
        "links": {
            "self": here,
            "counts": f"{here}/counts",
            "stream": f"{here}/stream",
            "websocket": f"{here}/ws",
        },
    }
