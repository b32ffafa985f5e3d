"""Why a single device is counted or not."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from headcount.access.roles import Caller
from headcount.api.media_types import Json
from headcount.api.middleware.authorization import Reason, RequireScope
from headcount.api.middleware.site_access import KnownSiteId
from headcount.api.parameters import DEFAULT_TRACE_LIMIT, DeviceId, TraceLimit
from headcount.api.schemas import traces
from headcount.api.schemas.problems import invalid
from headcount.api.state import State
from headcount.messages.topics import Kind

router = APIRouter(prefix="/v1", tags=["devices"])
Watcher = Annotated[Caller, Depends(RequireScope("positions:read"))]


@router.get(
    "/sites/{site}/devices/{device}/trace",
    summary="Trace why a device is counted or not",
    response_model=traces.TraceResponse,
    response_description="Its last messages, oldest first, each with the rule that decided",
    openapi_extra={"x-problems": ["unknown-device"]},
)
async def get_device_trace(
    site: KnownSiteId,
    device: DeviceId,
    state: State,
    actor: Watcher,
    reason: Reason = None,
    kind: Annotated[
        Kind | None,
        Query(description="Of a device that is not registered; default: the kind with most messages."),
    ] = None,
    limit: TraceLimit = DEFAULT_TRACE_LIMIT,
) -> Json:
    """Judge a device's messages of the last hour again, with the numbers that decided.

    They are read from the log and given to an engine that starts without state at `since`; `live` is the
    state of the counting worker, and `agrees` whether both place the device in the same zones.

    A reason is required (header `Headcount-Reason`, or `reason`). It goes into the audit log.
    """
    if reason is None:
        raise invalid("reason", "is required for a single device's positions; it goes into the audit log")
    trace = await state.traces.of(actor, site, device, reason, kind, limit)
    return Json(trace)
