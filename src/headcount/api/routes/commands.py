"""Commands to devices."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from headcount.access.roles import Caller
from headcount.api.media_types import Json
from headcount.api.middleware.authorization import RequireScope
from headcount.api.middleware.site_access import KnownSiteId
from headcount.api.parameters import CommandId, DeviceId
from headcount.api.schemas import commands
from headcount.api.schemas.problems import UNKNOWN_COMMAND, ProblemError
from headcount.api.state import ApiState, State
from headcount.messages.records import DeviceCommand
from headcount.services.commands import command_as_json

router = APIRouter(prefix="/v1", tags=["devices"])
Reader = Annotated[Caller, Depends(RequireScope("devices:read"))]
Commander = Annotated[Caller, Depends(RequireScope("commands:write"))]
_PATH = "/sites/{site}/devices/{device}/commands"


@router.post(
    _PATH,
    status_code=201,
    summary="Send a command to a device",
    response_model=commands.CommandResponse,
    response_description="The command is queued",
    openapi_extra={"x-problems": ["unknown-device", "too-many-commands"]},
)
async def create_command(
    site: KnownSiteId, device: DeviceId, body: commands.CommandCreate, state: State, actor: Commander
) -> Response:
    """Queue a command. It is sent now, or when the device connects, until the device answers or it expires.

    `interval` with `interval_s`, `report` (a fix now), `pause` with `pause_s`, or `message` with `text`.
    """
    kind = await state.services.commands.target(device, site, body.kind, unregistered=state.settings.open)
    command = await state.services.commands.add(
        actor,
        site,
        kind,
        device,
        body.command,
        expires_s=body.expires_s,
        pause_s=body.pause_s,
        interval_s=body.interval_s,
        text=body.text,
    )
    return Json(command_as_json(command), 201)


@router.get(
    _PATH,
    summary="List a device's commands",
    response_model=commands.CommandListResponse,
    response_description="Newest first",
    openapi_extra={"x-problems": ["unknown-device"]},
)
async def list_commands(site: KnownSiteId, device: DeviceId, state: State, _: Reader) -> Json:
    """List commands that wait, and those that finished within the last day."""
    found = [each for each in await state.services.commands.of(device) if each.site == site]
    if not found:
        await state.services.commands.target(device, site, "person", unregistered=state.settings.open)
    return Json({"commands": list(map(command_as_json, found))})


@router.get(
    f"{_PATH}/{{command}}",
    summary="Get a command and its state",
    response_model=commands.CommandResponse,
    response_description="The command",
    openapi_extra={"x-problems": ["unknown-command"]},
)
async def get_command(
    site: KnownSiteId, device: DeviceId, command: CommandId, state: State, _: Reader
) -> Json:
    """Return one command; it is erased a day after it finished."""
    return Json(command_as_json(await _found(state, site, device, command)))


@router.delete(
    f"{_PATH}/{{command}}",
    status_code=204,
    summary="Withdraw a command",
    response_class=Response,
    response_description="The command is erased and no longer sent",
    openapi_extra={"x-problems": ["unknown-command"]},
)
async def delete_command(
    site: KnownSiteId, device: DeviceId, command: CommandId, state: State, actor: Commander
) -> Response:
    """Stop sending a command, and erase it. A device that has received it may still carry it out."""
    await state.services.commands.withdraw(actor, await _found(state, site, device, command))
    return Response(status_code=204)


async def _found(state: ApiState, site: str, device: str, command: str) -> DeviceCommand:
    found = await state.services.commands.get(device, command)
    if found is None or found.site != site:
        raise ProblemError(UNKNOWN_COMMAND, UNKNOWN_COMMAND.meaning)
    return found
