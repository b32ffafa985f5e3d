"""How somebody with a one-time link or a claim code gets a device's credentials, once. Open to everybody.

Whoever shows codes that aren't any is limited by address, like whoever fails to sign in.
"""

from __future__ import annotations

import math
import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Request

from headcount.api.middleware.authorization import signed_in
from headcount.api.routes.devices import address_of
from headcount.api.routes.sites import Json
from headcount.api.schemas import devices
from headcount.api.schemas.examples import failures, success
from headcount.api.schemas.problems import LINK_REFUSED, TOO_OFTEN, ProblemError
from headcount.api.services import Parts, parts_of
from headcount.devices.one_time_links import MAX_CODE_CHARS
from headcount.devices.provisioning import DeviceEndpoint, owntracks_settings
from headcount.devices.pseudonym_keys import daily_pseudonym
from headcount.errors import LinkRefusedError
from headcount.messages.records import Device
from headcount.messages.topics import FIX_TOPIC

router = APIRouter(prefix="/v1/provision", tags=["provision"])
Running = Annotated[Parts, Depends(parts_of)]
_REFUSED = ("link-refused", "invalid-parameter")


@router.post(
    "",
    summary="Credentials for a one-time link or claim code",
    response_model=devices.ProvisionedShape,
    responses={
        **success("The credentials: told here and never again", devices.PROVISIONED),
        **failures(*_REFUSED),
    },
)
async def provisioned(body: devices.Redemption, request: Request, parts: Running) -> Json:
    """Use up a code: a device's id and a new secret for it, and where the broker is.

    A link leads to its device; a claim code makes a new one. The second who shows the same code is refused.
    """
    address = address_of(request, parts)
    device, secret = await _redeemed(body.code, request, parts)
    return Json(msgspec.json.encode(_told(device, secret, address)))


@router.get(
    "/{code}.otrc",
    summary="The same as OwnTracks' settings",
    response_model=devices.OwnTracksShape,
    responses={
        **success("The app's settings, the credentials among them", devices.OWNTRACKS),
        **failures(*_REFUSED),
    },
)
async def otrc(
    code: Annotated[str, Path(max_length=MAX_CODE_CHARS, description="The code; it is used up by asking.")],
    request: Request,
    parts: Running,
) -> Json:
    """What the app OwnTracks asks for when a link or QR code is opened with it.

    It works once, so a program that looks at links before people do uses it up: hand over the QR code, or
    the link for the app, not this address.
    """
    address = address_of(request, parts)
    device, secret = await _redeemed(code, request, parts)
    named = {"content-disposition": 'attachment; filename="headcount.otrc"'}
    return Json(msgspec.json.encode(owntracks_settings(device, secret, address)), headers=named)


async def _redeemed(code: str, request: Request, parts: Parts) -> tuple[Device, str]:
    failures_, key = parts.limits.failures, f"provision {signed_in(request).key}"
    answer = failures_.look(key, time.monotonic())
    if not answer.allowed:
        wait_s = max(1, math.ceil(answer.retry_s))
        detail = f"Too many codes from your address were none. Try again in {wait_s} s."
        raise ProblemError(TOO_OFTEN, detail, headers={"retry-after": str(wait_s)})
    try:
        device, secret = await parts.links.redeem(code)
    except LinkRefusedError as error:
        failures_.take(key, time.monotonic())
        raise ProblemError(LINK_REFUSED, LINK_REFUSED.meaning) from error
    subject = await daily_pseudonym(parts.nats, device.kind, device.id)
    await parts.audit.record(
        "device.provision", "a link", subject, {"site": device.site, "kind": device.kind}
    )
    return device, secret


def _told(device: Device, secret: str, address: DeviceEndpoint) -> dict[str, Any]:
    topic = FIX_TOPIC.format(site=device.site, kind=device.kind, device=device.id)
    return {
        "device": device.id,
        "secret": secret,
        "site": device.site,
        "kind": device.kind,
        "topic": topic.removesuffix("/fix"),
        "mqtt": {"host": address.host, "port": address.mqtt_port, "tls": address.tls},
        "websocket": address.websocket,
    }
