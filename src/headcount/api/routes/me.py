"""A person's own data, for the holder of a device's credentials: see, export, pause, erase."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from fastapi import APIRouter

from headcount.api.media_types import Json
from headcount.api.middleware.device_authentication import AuthenticatedDevice
from headcount.api.parameters import DEFAULT_TRACE_LIMIT, TraceLimit, moment
from headcount.api.schemas import me, traces
from headcount.api.schemas.problems import failures, invalid
from headcount.api.state import State
from headcount.messages.records import Device
from headcount.messages.times import iso, iso_or_none
from headcount.services.commands import command_as_json
from headcount.services.devices import seen_as_json
from headcount.services.personal import PersonalExport

#: The longest pause.
MAX_PAUSE_S = 366 * 86_400.0

router = APIRouter(prefix="/v1/me", tags=["me"])
#: For OpenAPI: the device authenticates itself.
_BY_DEVICE: dict[str, Any] = {"security": [{"device": []}]}
_ALWAYS = ("device-sign-in", "too-many-requests", "log-away")


@router.get(
    "",
    summary="Get what is known about my device",
    response_model=me.MeResponse,
    openapi_extra=_BY_DEVICE,
    response_description="What is known",
    responses=failures(*_ALWAYS),
)
async def get_me(device: AuthenticatedDevice, state: State) -> Json:
    """Return the registry's entry, where the device is counted now, its commands, and who accessed it."""
    found = await state.personal.overview(device)
    registered = _entry(device)
    known = {name: registered[name] for name in ("status", "label", "groups", "aliases", "created", "resume")}
    answer = {
        "device": device.id,
        "site": device.site,
        "kind": device.kind,
        **known,
        "connected": None if found.seen is None else found.seen.connected,
        "zones": found.live.get("zones", []),
        "last": _last(found.live),
        "commands": [command_as_json(command) for command in found.commands],
        "looks": found.accesses,
    }
    return Json(answer)


@router.get(
    "/export",
    summary="Export everything stored about my device",
    response_model=dict[str, Any],
    openapi_extra=_BY_DEVICE,
    response_description="One JSON document, to be saved",
    responses=failures(*_ALWAYS, "history-unreadable", "too-many-queries"),
)
async def export_me(device: AuthenticatedDevice, state: State) -> Json:
    """Export the registry's entry (without the secret), the log's hour as it was sent, 24 hours of history.

    Rows of the history carry a daily pseudonym. They are found by the keys of the days, which are destroyed
    when nothing of a day is stored any more.
    """
    answer = _export(device, await state.personal.export(device))
    named = {"content-disposition": 'attachment; filename="headcount-my-data.json"'}
    return Json(answer, headers=named)


@router.get(
    "/trace",
    summary="Trace why my device is counted or not",
    response_model=traces.TraceResponse,
    openapi_extra=_BY_DEVICE,
    response_description="Its last messages, oldest first",
    responses=failures(*_ALWAYS, "invalid-parameter"),
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
    openapi_extra=_BY_DEVICE,
    response_description="Paused",
    responses=failures(*_ALWAYS, "invalid-parameter", "cross-site"),
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
    openapi_extra=_BY_DEVICE,
    response_description="Counted again, from the next fix",
    responses=failures(*_ALWAYS, "cross-site"),
)
async def resume_me(device: AuthenticatedDevice, state: State) -> Json:
    """End a pause: the device is counted again from its next fix. Without a pause, nothing changes."""
    return _status(await state.personal.resume(device))


@router.delete(
    "",
    status_code=202,
    summary="Erase me",
    response_model=me.ErasureResponse,
    openapi_extra=_BY_DEVICE,
    response_description="The device is being erased; this cannot be undone",
    responses=failures(*_ALWAYS, "cross-site"),
)
async def erase_me(device: AuthenticatedDevice, state: State) -> Json:
    """Erase the device and everything stored about it. Its credentials are rejected from now on."""
    await state.personal.erase(device)
    detail = "Your name is erased now, everything else within a few minutes."
    return Json({"status": "erasing", "detail": detail}, 202)


def _entry(device: Device) -> dict[str, Any]:
    """The registry's entry without the hash of the secret."""
    entry: dict[str, Any] = msgspec.to_builtins(device)
    entry.pop("secret")
    for name in ("created", "changed", "valid_from", "resume"):
        entry[name] = iso(entry[name]) if entry[name] else None
    return entry


def _export(device: Device, found: PersonalExport) -> dict[str, Any]:
    return {
        "exported": iso(time.time()),
        "registry": _entry(device),
        "seen": seen_as_json(found.seen),
        "names": {str(day): name for day, name in found.pseudonyms.items()},
        "log": {"since": iso(found.log_since_s), "messages": found.log},
        "memberships": [change for line in found.trace.lines for change in line.changes] + found.trace.left,
        "history": found.history,
        "now": found.trace.live,
        "commands": [command_as_json(command) for command in found.commands],
        "looks": found.accesses,
    }


def _last(live: dict[str, Any]) -> dict[str, Any] | None:
    if not live:
        return None
    position = {name: live.get(name) for name in ("lat", "lon", "acc", "offline")}
    return {"t": live.get("last_t"), "verdict": live.get("last_verdict"), **position}


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
