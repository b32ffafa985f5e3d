"""Stays of devices in zones."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from headcount.access.roles import Caller
from headcount.api.media_types import Json
from headcount.api.middleware.authorization import Reason, RequireScope
from headcount.api.middleware.device_authentication import AuthenticatedDevice
from headcount.api.middleware.site_access import SiteInPath
from headcount.api.parameters import DEFAULT_SPAN_S, From, To, ZoneId
from headcount.api.schemas import flows
from headcount.api.schemas.problems import invalid
from headcount.api.state import State, known_zone_of_any_version
from headcount.messages.topics import Kind

MAX_STAYS = 10_000

router = APIRouter(prefix="/v1")
Watcher = Annotated[Caller, Depends(RequireScope("positions:read"))]


@router.get(
    "/sites/{site}/zones/{zone}/stays",
    tags=["positions"],
    summary="List the stays in a zone",
    response_model=flows.StaysResponse,
    response_description="The stays, by device and beginning",
    openapi_extra={"x-problems": ["unknown-zone", "history-unreadable", "too-many-queries"]},
)
async def list_stays(
    site: SiteInPath,
    zone: ZoneId,
    state: State,
    actor: Watcher,
    reason: Reason = None,
    from_: From = None,
    to: To = None,
    kind: Annotated[Kind | None, Query(description="Only this kind.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_STAYS, description="Maximum number of stays.")] = 1000,
) -> Json:
    """List when each device was in a zone, under daily pseudonyms, in the last 24 hours.

    A reason is required (header `Headcount-Reason`, or `reason`). It goes into the audit log. Pseudonyms
    change at midnight UTC: a stay over midnight has no end under one and no beginning under the next.
    """
    known_zone_of_any_version(site, zone)
    if reason is None:
        raise invalid("reason", "is required for the stays of devices; it goes into the audit log")
    to_s = time.time() if to is None else to
    from_s = max(0.0, to_s - DEFAULT_SPAN_S) if from_ is None else from_
    if from_s > to_s:
        raise invalid("from", "is after `to`")
    found, truncated = await state.stays.in_zone(actor, site.id, zone, (from_s, to_s), kind, reason, limit)
    return Json({"site": site.id, "zone": zone, "truncated": truncated, "stays": found})


@router.get(
    "/me/stays",
    tags=["me"],
    summary="List when my device was in which zone",
    response_model=flows.OwnStaysResponse,
    response_description="The stays of the last day",
    openapi_extra={"x-problems": ["history-unreadable", "too-many-queries"]},
)
async def list_my_stays(device: AuthenticatedDevice, state: State) -> Json:
    """List the stays of the device in the zones of its site, those over midnight as one."""
    return Json({"site": device.site, "stays": await state.stays.own(device)})
