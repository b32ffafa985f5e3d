"""A person's own data, for the holder of a device's credentials: see, export, pause, erase."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter

from headcount.api.media_types import Json
from headcount.api.middleware.device_authentication import AuthenticatedDevice
from headcount.api.parameters import DEFAULT_TRACE_LIMIT, TraceLimit, moment
from headcount.api.schemas import me, traces
from headcount.api.schemas.problems import invalid
from headcount.api.state import State
from headcount.messages.records import Device
from headcount.messages.times import iso_or_none

#: The longest pause.
MAX_PAUSE_S = 366 * 86_400.0

router = APIRouter(prefix="/v1/me", tags=["me"])


@router.get(
    "",
    summary="Get what is known about my device",
    response_model=me.MeResponse,
    response_description="What is known",
)
async def get_me(device: AuthenticatedDevice, state: State) -> Json:
    """Return the registry's entry, where the device is counted now, its commands, and who accessed it."""
    return Json(await state.personal.overview(device))


@router.get(
    "/export",
    summary="Export everything stored about my device",
    response_model=dict[str, Any],
    response_description="One JSON document, to be saved",
    openapi_extra={"x-problems": ["history-unreadable", "too-many-queries"]},
)
async def export_me(device: AuthenticatedDevice, state: State) -> Json:
    """Export the registry's entry (without the secret), the log's hour as it was sent and as fixes, 24 hours of history.

    Rows of the history carry a daily pseudonym. They are found by the keys of the days, which are destroyed
    when nothing of a day is stored any more.
    """
    named = {"content-disposition": 'attachment; filename="headcount-my-data.json"'}
    return Json(await state.personal.export(device), headers=named)


@router.get(
    "/trace",
    summary="Trace why my device is counted or not",
    response_model=traces.TraceResponse,
    response_description="Its last messages, oldest first",
)
async def get_my_trace(
    device: AuthenticatedDevice, state: State, limit: TraceLimit = DEFAULT_TRACE_LIMIT
) -> Json:
    """Return the device's messages of the last hour, each with the rule that decided and its numbers."""
    return Json(await state.traces.own(device, limit))


@router.post(
    "/pause",
    summary="Stop counting me for a while",
    response_model=me.PauseResponse,
    response_description="Paused",
)
async def pause_me(device: AuthenticatedDevice, state: State, body: me.PauseRequest | None = None) -> Json:
    """Reject what the device sends from now on and remove it from every zone.

    The pause lasts until `until`, for `for_s`, or until it is resumed.
    """
    until_s = _until(body or me.PauseRequest(), time.time())
    return _status(await state.personal.pause(device, until_s))


@router.post(
    "/resume",
    summary="Count me again",
    response_model=me.PauseResponse,
    response_description="Counted again, from the next fix",
)
async def resume_me(device: AuthenticatedDevice, state: State) -> Json:
    """End a pause: the device is counted again from its next fix. Without a pause, nothing changes."""
    return _status(await state.personal.resume(device))


@router.delete(
    "",
    status_code=202,
    summary="Erase me",
    response_model=me.ErasureResponse,
    response_description="The device is being erased; this cannot be undone",
)
async def erase_me(device: AuthenticatedDevice, state: State) -> Json:
    """Erase the device and everything stored about it. Its credentials are rejected from now on."""
    await state.personal.erase(device)
    detail = "Your name is erased now, everything else within a few minutes."
    return Json({"status": "erasing", "detail": detail}, 202)


def _until(body: me.PauseRequest, now_s: float) -> float | None:
    if body.until is not None and body.for_s is not None:
        raise invalid("until", "excludes for_s")
    if body.for_s is not None:
        return now_s + body.for_s
    if body.until is None:
        return None
    try:
        until_s = moment(body.until)
    except ValueError as error:
        raise invalid("until", str(error)) from None
    if not now_s < until_s <= now_s + MAX_PAUSE_S:
        raise invalid("until", "is not within the next year")
    return until_s


def _status(device: Device) -> Json:
    return Json({"status": device.status, "resume": iso_or_none(device.resume)})
