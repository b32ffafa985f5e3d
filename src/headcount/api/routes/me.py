"""A person's own data, for whoever shows the device's credentials: see, export, pause, erase."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends

from headcount.api.export import entry, export, seen
from headcount.api.middleware.device_authentication import Owner
from headcount.api.parameters import moment
from headcount.api.routes.commands import told
from headcount.api.routes.sites import Json
from headcount.api.routes.trace import Limit
from headcount.api.schemas import personal
from headcount.api.schemas.examples import failures, success
from headcount.api.schemas.problems import invalid
from headcount.api.services import Parts, parts_of
from headcount.devices.pseudonym_keys import daily_pseudonym
from headcount.devices.trace import DEFAULT_LIMIT
from headcount.messages.records import Device
from headcount.messages.times import iso

#: The actor in the audit log.
ITSELF = "the device itself"
#: Until when a pause may last.
MOST_PAUSE_S = 366 * 86_400.0

router = APIRouter(prefix="/v1/me", tags=["me"])
Running = Annotated[Parts, Depends(parts_of)]
#: In the API's description: who may ask.
_BY_DEVICE: dict[str, Any] = {"security": [{"device": []}]}
_ALWAYS = ("device-sign-in", "too-many-requests", "log-away")


@router.get(
    "",
    summary="What is known of my device",
    response_model=personal.MeShape,
    openapi_extra=_BY_DEVICE,
    responses={**success("What is known", personal.ME), **failures(*_ALWAYS)},
)
async def me(device: Owner, parts: Running) -> Json:
    """The registry's entry, where the device is counted now, its commands, and who has looked at it."""
    names = await parts.day_keys.pseudonyms_of(device.kind, device.id)
    found = await parts.tracer.trace(parts.nats, device.kind, device.id, limit=1, names=names)
    when = await seen(parts.registry, device)
    live = found.live or {}
    registered = entry(device)
    known = {name: registered[name] for name in ("status", "label", "groups", "aliases", "created", "resume")}
    answer = {
        "device": device.id,
        "site": device.site,
        "kind": device.kind,
        **known,
        "connected": when["connected"] if when is not None else None,
        "zones": live.get("zones", []),
        "last": _last(live),
        "commands": [told(command) for command in await parts.commands.of(device.id)],
        "looks": await parts.looks.at(parts.audit, names.values()),
    }
    return Json(msgspec.json.encode(answer))


@router.get(
    "/export",
    summary="Everything that is kept of my device",
    response_model=dict[str, Any],
    openapi_extra=_BY_DEVICE,
    responses={
        **success("One JSON document, to be kept", personal.EXPORT),
        **failures(*_ALWAYS, "history-unreadable", "too-many-queries"),
    },
)
async def everything(device: Owner, parts: Running) -> Json:
    """The registry's entry (not the secret), the log's hour as it was sent, 24 hours of history, and all else.

    Rows of the history carry a name of the day; they are found by the keys of the days, which are destroyed
    when nothing of a day is kept any more.
    """
    answer = await export(parts, device)
    await _record(parts, "person.export", device)
    named = {"content-disposition": 'attachment; filename="headcount-my-data.json"'}
    return Json(msgspec.json.encode(answer), headers=named)


@router.get(
    "/trace",
    summary="Why my device is counted or not",
    response_model=personal.TraceShape,
    openapi_extra=_BY_DEVICE,
    responses={
        **success("Its last messages, oldest first", personal.TRACE),
        **failures(*_ALWAYS, "invalid-parameter"),
    },
)
async def trace(device: Owner, parts: Running, limit: Limit = DEFAULT_LIMIT) -> Json:
    """The device's messages of the last hour, each with the rule that decided and its numbers."""
    names = await parts.day_keys.pseudonyms_of(device.kind, device.id)
    found = await parts.tracer.trace(parts.nats, device.kind, device.id, limit=limit, names=names)
    return Json(msgspec.json.encode(found))


@router.post(
    "/pause",
    summary="Count me no more, for a while",
    response_model=personal.StatusShape,
    openapi_extra=_BY_DEVICE,
    responses={**success("Paused", personal.PAUSED), **failures(*_ALWAYS, "invalid-parameter", "cross-site")},
)
async def pause(device: Owner, parts: Running, asked: personal.PauseAsked | None = None) -> Json:
    """From now on nothing the device sends is taken, and it leaves every zone; until `until`, for `for_s`, or until resumed."""
    asked = asked or personal.PauseAsked()
    until = _until(asked, time.time())
    paused = await parts.registry.pause(device.id, until)
    await _record(parts, "person.pause", device)
    return _status(paused)


@router.post(
    "/resume",
    summary="Count me again",
    response_model=personal.StatusShape,
    openapi_extra=_BY_DEVICE,
    responses={
        **success("Counted again, from its next fix on", {"status": "active", "resume": None}),
        **failures(*_ALWAYS, "cross-site"),
    },
)
async def resume(device: Owner, parts: Running) -> Json:
    """End a pause: the device is counted again from its next fix on. Nothing happens where there is none."""
    resumed = device if device.status == "active" else await parts.registry.enable(device.id)
    await _record(parts, "person.resume", device)
    return _status(resumed)


@router.delete(
    "",
    status_code=202,
    summary="Erase me",
    response_model=personal.ErasingShape,
    openapi_extra=_BY_DEVICE,
    responses={
        202: {
            "description": "It is being done, and can't be undone",
            "content": {"application/json": {"example": personal.ERASING}},
        },
        **failures(*_ALWAYS, "cross-site"),
    },
)
async def erase(device: Owner, parts: Running) -> Json:
    """Erase the device and everything that is kept of it: the credentials end here, at once."""
    await _record(parts, "person.erase", device)
    await parts.registry.remove(device.id)
    return Json(msgspec.json.encode(personal.ERASING), 202)


def _last(live: dict[str, Any]) -> dict[str, Any] | None:
    if not live:
        return None
    told_ = {name: live.get(name) for name in ("lat", "lon", "acc", "offline")}
    return {"t": live.get("last_t"), "verdict": live.get("last_verdict"), **told_}


def _until(asked: personal.PauseAsked, now_s: float) -> float | None:
    if asked.until is not None and asked.for_s is not None:
        raise invalid("until", "can't go with for_s")
    if asked.for_s is not None:
        return now_s + asked.for_s
    if asked.until is None:
        return None
    try:
        until = moment(asked.until)
    except ValueError as error:
        raise invalid("until", str(error)) from None
    if not now_s < until <= now_s + MOST_PAUSE_S:
        raise invalid("until", "is not within the next year")
    return until


async def _record(parts: Parts, action: str, device: Device) -> None:
    subject = await daily_pseudonym(parts.nats, device.kind, device.id)
    await parts.audit.record(action, ITSELF, subject, {"site": device.site})


def _status(device: Device) -> Json:
    resume_ = None if device.resume is None else iso(device.resume)
    return Json(msgspec.json.encode({"status": device.status, "resume": resume_}))
