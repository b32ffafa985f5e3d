"""Commands to devices."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response

from headcount.access.audit_log import Value
from headcount.access.roles import Caller
from headcount.api.middleware.authorization import Require
from headcount.api.parameters import DeviceId, SiteId
from headcount.api.routes.sites import Json
from headcount.api.schemas import personal
from headcount.api.schemas.examples import failures, success
from headcount.api.schemas.problems import (
    TOO_MANY_COMMANDS,
    UNKNOWN_COMMAND,
    UNKNOWN_DEVICE,
    ProblemError,
    invalid,
)
from headcount.api.services import Parts, known_site, parts_of
from headcount.devices.pseudonym_keys import daily_pseudonym
from headcount.errors import DeviceError
from headcount.messages.records import Command
from headcount.messages.times import iso
from headcount.messages.topics import Kind

router = APIRouter(prefix="/v1", tags=["devices"])
Running = Annotated[Parts, Depends(parts_of)]
Reader = Annotated[Caller, Depends(Require("devices:read"))]
Commander = Annotated[Caller, Depends(Require("commands:write"))]
CommandId = Annotated[
    str, Path(max_length=64, description="The command's id.", examples=["5f0c2b9a7d13e486"])
]
_PATH = "/sites/{site}/devices/{device}/commands"


@router.post(
    _PATH,
    status_code=201,
    summary="Command a device",
    response_model=personal.CommandShape,
    responses={
        201: {
            "description": "It is queued",
            "content": {"application/json": {"example": personal.COMMAND | {"state": "queued"}}},
        },
        **failures("unknown-site", "unknown-device", "invalid-parameter", "too-many-commands", "log-away"),
    },
)
async def command(
    site: SiteId, device: DeviceId, asked: personal.CommandAsked, parts: Running, who: Commander
) -> Response:
    """Queue a command: it is sent now, or when the device comes, until it answers or time is over.

    `interval` with `interval_s`, `report` (a fix now), `pause` with `pause_s`, or `message` with `text`.
    """
    known_site(parts, site)
    kind = await _kind(parts, site, device, asked.kind)
    now_s = time.time()
    try:
        made = await parts.commands.add(
            site,
            kind,
            device,
            asked.command,
            now_s=now_s,
            expires_s=asked.expires_s,
            interval_s=asked.interval_s,
            until=None if asked.pause_s is None else now_s + asked.pause_s,
            text=asked.text,
        )
    except DeviceError as error:
        if error.device == "command":
            raise ProblemError(TOO_MANY_COMMANDS, f"{error.problem.capitalize()}. {error.remedy}.") from error
        raise invalid(error.device, f"{error.problem}. {error.remedy}") from error
    await _record(parts, "command.add", who, made)
    return Json(msgspec.json.encode(told(made)), 201)


@router.get(
    _PATH,
    summary="A device's commands",
    response_model=personal.CommandsShape,
    responses={
        **success("Newest first", personal.COMMANDS),
        **failures("unknown-site", "unknown-device", "invalid-parameter", "log-away"),
    },
)
async def commands(site: SiteId, device: DeviceId, parts: Running, who: Reader) -> Json:
    """Commands that wait, and those that were finished within the last day."""
    del who
    known_site(parts, site)
    found = [each for each in await parts.commands.of(device) if each.site == site]
    if not found:
        await _kind(parts, site, device, "person")
    return Json(msgspec.json.encode({"commands": list(map(told, found))}))


@router.get(
    f"{_PATH}/{{command}}",
    summary="A command, and what became of it",
    response_model=personal.CommandShape,
    responses={
        **success("The command", personal.COMMAND),
        **failures("unknown-site", "unknown-command", "invalid-parameter", "log-away"),
    },
)
async def one(site: SiteId, device: DeviceId, command: CommandId, parts: Running, who: Reader) -> Json:
    """One command; it is erased a day after it was finished."""
    del who
    known_site(parts, site)
    return Json(msgspec.json.encode(told(await _found(parts, site, device, command))))


@router.delete(
    f"{_PATH}/{{command}}",
    status_code=204,
    summary="Withdraw a command",
    response_class=Response,
    responses={
        204: {"description": "It is sent no more, and erased"},
        **failures("unknown-site", "unknown-command", "invalid-parameter", "log-away"),
    },
)
async def withdraw(
    site: SiteId, device: DeviceId, command: CommandId, parts: Running, who: Commander
) -> Response:
    """Send a command no more, and erase it. A device that has it already may still do what it says."""
    known_site(parts, site)
    found = await _found(parts, site, device, command)
    await parts.commands.withdraw(device, command)
    await _record(parts, "command.withdraw", who, found)
    return Response(status_code=204)


async def _record(parts: Parts, action: str, who: Caller, command: Command) -> None:
    subject = await daily_pseudonym(parts.nats, command.kind, command.device)
    detail: dict[str, Value] = {"site": command.site, "command": command.command, "id": command.id}
    await parts.audit.record(action, who.subject, subject, detail)


def told(command: Command) -> dict[str, Any]:
    """A command as the API has it."""
    moments = {name: getattr(command, name) for name in ("created", "expires", "until", "sent", "answered")}
    return {
        "id": command.id,
        "command": command.command,
        "state": command.state,
        "interval_s": command.interval_s,
        "text": command.text,
        "answer": command.answer,
    } | {name: None if t_s is None else iso(t_s) for name, t_s in moments.items()}


async def _kind(parts: Parts, site: str, device: str, asked: Kind | None) -> Kind:
    """The kind of a device that can be commanded: a registered one, or, where all is open, any."""
    registered = await parts.registry.get(device)
    if registered is not None and registered.site == site and registered.status != "erasing":
        return registered.kind
    if registered is None and parts.sources.open:
        if asked is None:
            raise invalid("kind", "this device isn't registered: say whether it is a person or a vehicle")
        return asked
    raise ProblemError(UNKNOWN_DEVICE, f"Site {site!r} has no device {device!r}.")


async def _found(parts: Parts, site: str, device: str, command: str) -> Command:
    found = await parts.commands.get(device, command)
    if found is None or found.site != site:
        raise ProblemError(UNKNOWN_COMMAND, UNKNOWN_COMMAND.meaning)
    return found
