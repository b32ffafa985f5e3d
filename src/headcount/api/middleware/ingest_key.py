"""Authenticate a device by its ingest key, for apps that cannot send a header."""

from __future__ import annotations

import time

from starlette.requests import Request

from headcount.api.middleware.device_authentication import ACCEPTED_STATUSES
from headcount.api.middleware.identity import identity_of
from headcount.api.schemas.problems import UNKNOWN_INGEST_KEY, ProblemError
from headcount.api.state import state_of
from headcount.devices import credentials
from headcount.messages.records import Device


async def device_of_ingest_key(request: Request, key: str) -> Device:
    """Return the device of an ingest key.

    Raises:
        ProblemError: `unknown-ingest-key`, or `too-many-requests` after too many failures of its address.
    """
    state, address = state_of(request), identity_of(request).key
    id_, secret = credentials.split_ingest_key(key) or ("", "")
    device = await state.services.registry.get(id_) if id_ else None
    proven = device is not None and credentials.verify_secret(secret, device.ingest_key)
    if device is not None and proven and device.status in ACCEPTED_STATUSES:
        return device
    state.limits.refused_devices.take(address, time.monotonic())
    detail = "Too many requests with unknown ingest keys came from your address."
    raise state.limits.failure(f"ingest key {address}", detail) or ProblemError(
        UNKNOWN_INGEST_KEY, UNKNOWN_INGEST_KEY.meaning
    )
