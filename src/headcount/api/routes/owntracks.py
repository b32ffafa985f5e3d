"""The HTTP mode of the app OwnTracks."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from headcount.api.media_types import Json
from headcount.api.middleware.device_authentication import AuthenticatedDevice
from headcount.api.schemas import owntracks
from headcount.api.schemas.problems import DEVICE_TOO_OFTEN, TOO_OFTEN, ProblemError
from headcount.api.state import ApiState, State
from headcount.errors import LogError
from headcount.messages.records import Device
from headcount.services.owntracks import NO_MESSAGES

router = APIRouter(prefix="/v1", tags=["fixes"])
_MESSAGE: dict[str, Any] = {
    "type": "object",
    "required": ["_type"],
    "properties": {"_type": {"type": "string"}},
}


@router.post(
    "/owntracks",
    summary="Send messages of OwnTracks",
    response_model=list[owntracks.OwnTracksMessage] | owntracks.OwnTracksMessage,
    response_description="Commands for the app, as an array, or as an encrypted message if the device has a key",
    openapi_extra={
        "x-problems": ["too-many-fixes"],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"anyOf": [_MESSAGE, {"type": "array", "maxItems": 100, "items": _MESSAGE}]},
                    "example": {"_type": "location", "lat": 52.6735, "lon": -8.5731, "tst": 1795532550},
                }
            },
        },
    },
)
async def create_owntracks(request: Request, device: AuthenticatedDevice, state: State) -> Json:
    """Take a message, or an array of messages, of the app OwnTracks in HTTP mode.

    The answer comes when the log has all positions on disk. Messages that can never be stored get 200, too, since
    the Android app repeats anything else. The credentials name the device; `X-Limit-U`, `X-Limit-D` and `topic`
    do not.
    """
    payload, decoded = state.owntracks.decode(device, await request.body())
    if not _is_counted(state, device):
        return Json(NO_MESSAGES)
    try:
        state.limits.take_fixes(device, len(decoded))
    except ProblemError as error:
        # the iOS app drops a message that is answered with 4xx
        if error.kind is not TOO_OFTEN:
            raise
        raise ProblemError(DEVICE_TOO_OFTEN, DEVICE_TOO_OFTEN.meaning, headers=error.headers) from error
    receipts = await state.owntracks.store(device, decoded)
    state.metrics.http.count_fixes("owntracks", receipts)
    return Json(await state.owntracks.reply(device, payload))


def _is_counted(state: ApiState, device: Device) -> bool:
    """Whether the site of a device is counted; fixes of a removed one would be stored in vain."""
    if state.live.named(device.site) is not None:
        return True
    if not state.sites.is_read:
        raise LogError("the sites have not been read yet")
    return False
