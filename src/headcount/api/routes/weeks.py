"""The typical week of a zone, and its counts by day and hour."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Query

from headcount.api.counts_lookup import corrected, feed_for
from headcount.api.live_sites import ServedSite
from headcount.api.media_types import Json
from headcount.api.middleware.identity import AnyCaller
from headcount.api.middleware.site_access import SiteInPath
from headcount.api.parameters import MAX_STEP_S, Moment, To, ZoneId
from headcount.api.public_counts import PublicCounts
from headcount.api.schemas import weeks
from headcount.api.schemas.problems import invalid
from headcount.api.state import ApiState, State, known_zone_of_any_version
from headcount.history.reader import HistoryView
from headcount.history.series import Correction, correction, quarter_means
from headcount.history.weeks import HIDDEN, HOURS, heat_map, typical_week
from headcount.messages.times import DAY_S, iso
from headcount.messages.topics import KINDS, Kind

#: The days of a heat map without `from`.
DEFAULT_DAYS = 28
_WEEK_S = 7 * DAY_S
_FAILURES = ["unknown-zone", "history-unreadable", "too-many-queries"]
#: Numbers of each kind and local day.
_Days = dict[Kind, dict[date, list[float | None]]]

router = APIRouter(prefix="/v1", tags=["counts"])

MapFrom = Annotated[Moment | None, Query(alias="from", description="Start; default: 28 days before `to`.")]
Weeks = Annotated[int, Query(alias="weeks", ge=1, le=57, description="Number of weeks that end at `to`.")]


@router.get(
    "/sites/{site}/zones/{zone}/typical-week",
    summary="Get one zone's typical week",
    response_model=weeks.TypicalWeekResponse,
    response_description="168 hours with median and quartiles",
    openapi_extra={"x-problems": _FAILURES},
)
async def get_typical_week(
    site: SiteInPath, zone: ZoneId, state: State, caller: AnyCaller, number: Weeks = 8, to: To = None
) -> Json:
    """Return the median and the quartiles of the counts in each hour of the week, over the last weeks.

    Hours and weekdays are those of the site's time zone.
    """
    known_zone_of_any_version(site, zone)
    to_s = time.time() if to is None else to
    from_s = max(0.0, to_s - number * _WEEK_S)

    def read(view: HistoryView) -> Json:
        days, newest = _days(site, view, zone, (from_s, to_s), is_public=is_public)
        found = {kind: typical_week(days[kind]) for kind in KINDS}
        hours = [
            {"weekday": place // HOURS + 1, "hour": place % HOURS}
            | {kind: _quartiles(state, *found[kind][place]) for kind in KINDS}
            for place in range(7 * HOURS)
        ]
        head = {"site": site.id, "zone": zone, "from": iso(from_s), "to": iso(to_s)}
        return Json({**head, "time_zone": site.site.timezone, **corrected(newest), "hours": hours})

    is_public = isinstance(feed_for(state, site, caller), PublicCounts)
    return await state.history.run(read)


@router.get(
    "/sites/{site}/zones/{zone}/heat-map",
    summary="Get one zone's counts by day and hour",
    response_model=weeks.HeatMapResponse,
    response_description="24 numbers a day, oldest first",
    openapi_extra={"x-problems": _FAILURES},
)
async def get_heat_map(
    site: SiteInPath, zone: ZoneId, state: State, caller: AnyCaller, from_: MapFrom = None, to: To = None
) -> Json:
    """Return the mean count of each day and hour, for up to 400 days; default: the last 28 days.

    Hours and days are those of the site's time zone.
    """
    known_zone_of_any_version(site, zone)
    to_s = time.time() if to is None else to
    from_s = max(0.0, to_s - DEFAULT_DAYS * DAY_S) if from_ is None else from_
    if from_s > to_s:
        raise invalid("from", "is after `to`")
    if to_s - from_s > MAX_STEP_S:
        raise invalid("from", f"is more than {MAX_STEP_S // DAY_S} days before `to`")

    def read(view: HistoryView) -> Json:
        found, newest = _days(site, view, zone, (from_s, to_s), is_public=is_public)
        nothing: list[float | None] = [None] * HOURS
        days = [
            {"date": day.isoformat()}
            | {kind: [_shown(state, number) for number in found[kind].get(day, nothing)] for kind in KINDS}
            for day in sorted({day for kind in KINDS for day in found[kind]})
        ]
        head = {"site": site.id, "zone": zone, "time_zone": site.site.timezone}
        return Json({**head, **corrected(newest), "days": days})

    is_public = isinstance(feed_for(state, site, caller), PublicCounts)
    return await state.history.run(read)


def _days(
    site: ServedSite,
    view: HistoryView,
    zone: str,
    span_s: tuple[float, float],
    *,
    is_public: bool,
) -> tuple[_Days, Correction | None]:
    """Return the numbers of each local day, and the newest version of the minutes behind them."""
    numbers: Mapping[Kind, Mapping[float, float]]
    if is_public and isinstance(site.public, PublicCounts):
        numbers = site.public.half_hours(view, zone, span_s)
    else:
        numbers = quarter_means(view, zone, *span_s, site=site.id)
    local = site.site.timezone
    return {kind: heat_map(numbers[kind], local) for kind in KINDS}, correction(
        view, "minutes", *span_s, site=site.id
    )


def _quartiles(state: ApiState, days: int, quartiles: list[float | None]) -> dict[str, Any]:
    lower, median, upper = (_shown(state, number) for number in quartiles)
    return {"days": days, "lower": lower, "median": median, "upper": upper}


def _shown(state: ApiState, number: float | None) -> float | str | None:
    if number == HIDDEN:
        return f"<{state.settings.smallest_shown}"
    return None if number is None else round(number, 2)
