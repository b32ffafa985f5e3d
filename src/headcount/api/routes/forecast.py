"""The forecast of a zone's counts."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query

from headcount.api.counts_lookup import feed_for
from headcount.api.media_types import Json
from headcount.api.middleware.identity import AnyCaller
from headcount.api.middleware.site_access import SiteInPath
from headcount.api.parameters import ZoneId
from headcount.api.public_counts import PublicCounts
from headcount.api.schemas.counts import ForecastResponse
from headcount.api.state import State, known_zone
from headcount.api.zone_forecasts import MAX_HOURS, ForecastQuery, zone_forecast

router = APIRouter(prefix="/v1", tags=["counts"])


@router.get(
    "/sites/{site}/zones/{zone}/forecast",
    summary="Get a forecast of one zone's counts",
    response_model=ForecastResponse,
    response_description="The forecast, from the next quarter of an hour on",
    openapi_extra={"x-problems": ["unknown-zone", "history-unreadable", "too-many-queries"]},
)
async def get_zone_forecast(
    site: SiteInPath,
    zone: ZoneId,
    state: State,
    caller: AnyCaller,
    hours: Annotated[float, Query(ge=0.25, le=MAX_HOURS, description="How far ahead.")] = 4,
    level: Annotated[
        float, Query(ge=0.5, le=0.95, description="Share of the counts that the interval should hold.")
    ] = 0.8,
) -> Json:
    """Return the expected mean count of each quarter of an hour, and an interval around it.

    The forecast rests on the counts of the last five weeks, from `from` to `at`. It is null where too few
    earlier forecasts could be checked, as in the first day of a deployment.

    Without the scope `counts:exact`, where small counts are hidden: it rests on the public counts of two weeks, and
    numbers are multiples of 5, or `"<5"`.
    """
    known_zone(site, zone)
    feed = feed_for(state, site, caller)
    public = feed if isinstance(feed, PublicCounts) else None
    query = ForecastQuery(zone, time.time(), hours, level)
    return Json(
        await state.history.run(lambda view: zone_forecast(state.quarters, view, site, public, query))
    )
