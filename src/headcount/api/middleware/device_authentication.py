"""Authenticate a device by HTTP Basic: its id, and its secret or a signed token.

No cookie is set, and no response makes a browser ask for a password: browsers would send it automatically,
also for pages of other origins.
"""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPBasic
from starlette.exceptions import HTTPException
from starlette.requests import Request

from headcount.api.middleware.identity import identity_of
from headcount.api.public_url import is_same_origin
from headcount.api.schemas.problems import CROSS_SITE, DEVICE_SIGN_IN, ProblemError
from headcount.api.state import state_of
from headcount.devices import credentials
from headcount.messages.records import Device
from headcount.messages.topics import HANDLE

#: Not `Basic`: browsers would ask for a password, and then send it automatically.
CHALLENGE = {"www-authenticate": 'Device realm="headcount"'}
MAX_HEADER = 2048
#: The owner of a paused device still owns its data; a disabled device's secret may be in other hands.
ACCEPTED_STATUSES = frozenset({"active", "paused"})

_basic = HTTPBasic(auto_error=False)


class DeviceAuthentication:
    """A dependency: the device whose credentials a request has."""

    def __init__(self) -> None:
        self._no_secret = credentials.hash_secret(credentials.new_secret())

    async def __call__(self, request: Request) -> Device:
        """Return the device.

        Raises:
            ProblemError: `device-sign-in`, `too-many-requests` after too many failures, or `cross-site`.
        """
        state = state_of(request)
        # a browser may remember a password from an address; pages of other origins must not use it
        if "origin" in request.headers and not is_same_origin(request, state.settings.public_url):
            detail = f"This comes from a page of another origin. {CROSS_SITE.meaning}"
            raise ProblemError(CROSS_SITE, detail)
        id_, password = await _credentials(request)
        # per id, too: a whole campus may share one address, and guessing is hopeless anyway
        key = f"device {identity_of(request).key} {id_[:64]}"
        device = await state.services.registry.get(id_) if HANDLE.fullmatch(id_) else None
        # an unknown id takes as long as a wrong secret
        proven = credentials.verify_secret(password, device.secret if device else self._no_secret)
        if device is not None and not proven:
            proven = _is_signed(device, password, credentials.token_key(state.settings.secret))
        # the site may be removed: its devices' owners can still export and erase their data
        if device is None or not proven or device.status not in ACCEPTED_STATUSES:
            state.limits.refused_devices.take(identity_of(request).key, time.monotonic())
            detail = "Too many authentications as this device have failed from your address."
            raise state.limits.failure(key, detail) or ProblemError(
                DEVICE_SIGN_IN, DEVICE_SIGN_IN.meaning, headers=CHALLENGE
            )
        return device


#: A parameter of endpoints: the authenticated device.
AuthenticatedDevice = Annotated[Device, Depends(DeviceAuthentication())]


async def _credentials(request: Request) -> tuple[str, str]:
    """Return id and password; both empty if they are missing or malformed."""
    given = request.headers.getlist("authorization")
    if len(given) != 1 or len(given[0]) > MAX_HEADER:
        return "", ""
    try:
        found = await _basic(request)
    except HTTPException:
        return "", ""
    return ("", "") if found is None else (found.username, found.password)


def _is_signed(device: Device, password: str, key: bytes) -> bool:
    claims = credentials.verify_token(key, password, time.time())
    return claims is not None and claims.device == device.id and claims.issued_s >= device.valid_from
