"""Who signs in as a device: its id, and its secret or a signed token, by HTTP Basic.

No cookie is made, and no answer asks a browser for a name and password: what browsers send by themselves
would be a right that pages of others could use.
"""

from __future__ import annotations

import base64
import binascii
import time
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends
from starlette.requests import Request

from headcount.api.middleware.authentication import base_url, too_many
from headcount.api.middleware.authorization import signed_in
from headcount.api.schemas.problems import CROSS_SITE, DEVICE_SIGN_IN, ProblemError
from headcount.api.state import state_of
from headcount.devices import credentials
from headcount.messages.records import Device
from headcount.messages.topics import HANDLE

#: Not `Basic`: browsers would ask for a password, and then send it by themselves.
CHALLENGE = {"www-authenticate": 'Device realm="headcount"'}
MOST_HEADER = 2048
#: Who is paused still owns the data; who is disabled may have lost the secret to somebody else.
ADMITTED = frozenset({"active", "paused"})


class ByDevice:
    """A dependency: the device whose credentials a request shows."""

    def __init__(self) -> None:
        """Know a hash that no secret fits."""
        self._nobody = credentials.hash_secret(credentials.new_secret())

    async def __call__(self, request: Request) -> Device:
        """The device.

        Raises:
            ProblemError: `device-sign-in`, `too-many-requests` after too many failures, or `cross-site`.
        """
        state = state_of(request)
        _same_origin(request, state.settings.public_url)
        id_, password = _basic(request)
        # by id as well: a whole campus may have one address, and guessing has no chance anyway
        failures, guessed = state.limits.failures, f"device {signed_in(request).key} {id_[:64]}"
        answer = failures.look(guessed, time.monotonic())
        if not answer.allowed:
            raise too_many("Too many authentications as this device have failed from your address.", answer)
        device = await state.services.registry.get(id_) if HANDLE.fullmatch(id_) else None
        # an unknown id takes as long as a wrong secret
        proven = credentials.verify_secret(password, device.secret if device is not None else self._nobody)
        if device is not None and not proven:
            proven = _by_token(device, password, credentials.token_key(state.settings.secret))
        here = device is not None and device.site == state.settings.site.id and device.status in ADMITTED
        if device is None or not proven or not here:
            failures.take(guessed, time.monotonic())
            raise ProblemError(DEVICE_SIGN_IN, DEVICE_SIGN_IN.meaning, headers=CHALLENGE)
        return device


Owner = Annotated[Device, Depends(ByDevice())]


def _basic(request: Request) -> tuple[str, str]:
    """Id and password; nothing usable is nobody."""
    given = request.headers.getlist("authorization")
    if len(given) != 1 or len(given[0]) > MOST_HEADER:
        return "", ""
    scheme, _, text = given[0].partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        id_, _, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return id_, password


def _by_token(device: Device, password: str, key: bytes) -> bool:
    claims = credentials.verify_token(key, password, time.time())
    return claims is not None and claims.device == device.id and claims.issued_s >= device.valid_from


def _same_origin(request: Request, public_url: str) -> None:
    """A browser may remember a password that stood in an address: other origins' pages have no use of it."""
    origin = request.headers.get("origin")
    if origin is None:
        return
    ours, theirs = urlsplit(base_url(request, public_url)), urlsplit(origin)
    if (ours.scheme, ours.netloc) != (theirs.scheme, theirs.netloc):
        raise ProblemError(CROSS_SITE, f"This comes from a page of another origin. {CROSS_SITE.meaning}")
