"""Exchange a one-time link or a claim code for a device's credentials. Open to everybody.

Wrong codes are limited by address, like failed authentications.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from headcount.api.media_types import Json
from headcount.api.middleware.identity import identity_of
from headcount.api.parameters import Code
from headcount.api.public_url import device_endpoint
from headcount.api.schemas import provisioning
from headcount.api.state import ApiState, State
from headcount.devices.provisioning import (
    DeviceEndpoint,
    RedeemedLink,
    owntracks_inline_link,
    owntracks_settings,
)
from headcount.errors import LinkRefusedError
from headcount.messages.topics import FIX_TOPIC

router = APIRouter(prefix="/v1/provision", tags=["provision"])


@router.post(
    "",
    summary="Exchange a link or code for credentials",
    response_model=provisioning.CredentialsResponse,
    response_description="The credentials, which cannot be read again",
    openapi_extra={"x-problems": ["link-refused"]},
)
async def redeem_code(body: provisioning.CodeRedemption, request: Request, state: State) -> Json:
    """Use up a code: get a device's id, a new secret for it, and the broker's endpoint.

    A link belongs to a device; a claim code registers a new one. A second use of a code is rejected.
    """
    endpoint = device_endpoint(request, state.settings)
    return Json(_credentials(await _redeem(body.code, request, state), endpoint))


@router.get(
    "/{code}.otrc",
    summary="Exchange a code for OwnTracks settings",
    response_model=provisioning.OwnTracksResponse,
    response_description="The app's settings, which include the credentials",
    openapi_extra={"x-problems": ["link-refused"]},
)
async def redeem_code_for_owntracks(code: Code, request: Request, state: State) -> Json:
    """Return the settings that the app OwnTracks requests when it opens a link or QR code.

    The address works once, and a program that previews links uses it up. Hand over the QR code or the
    link for the app, not this endpoint.
    """
    endpoint = device_endpoint(request, state.settings)
    redeemed = await _redeem(code, request, state)
    named = {"content-disposition": 'attachment; filename="headcount.otrc"'}
    return Json(owntracks_settings(redeemed, endpoint), headers=named)


async def _redeem(code: str, request: Request, state: ApiState) -> RedeemedLink:
    try:
        return await state.services.provisioning.redeem(code)
    except LinkRefusedError as error:
        key = f"provision {identity_of(request).key}"
        raise state.limits.failure(key, "Too many wrong codes from your address.") or error from None


def _credentials(redeemed: RedeemedLink, endpoint: DeviceEndpoint) -> dict[str, Any]:
    device = redeemed.device
    topic = FIX_TOPIC.format(site=device.site, kind=device.kind, device=device.id)
    return {
        "device": device.id,
        "secret": redeemed.secret,
        "site": device.site,
        "kind": device.kind,
        "topic": topic.removesuffix("/fix"),
        "mqtt": {"host": endpoint.host, "port": endpoint.mqtt_port, "tls": endpoint.tls},
        "websocket": endpoint.websocket,
        "owntracks": owntracks_inline_link(redeemed, endpoint),
    }
