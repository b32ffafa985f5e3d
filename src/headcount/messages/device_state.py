"""Requests for what a counting worker knows about a device."""

from __future__ import annotations

import msgspec

from headcount.messages.topics import Kind


class DeviceStateRequest(msgspec.Struct):
    """A request on DEVICE_STATE_SUBJECT (JSON); the reply is DeviceState, `null` where it is unknown."""

    site: str
    kind: Kind
    device: str


class DeviceState(msgspec.Struct):
    """The state of a device at the worker of its partition."""

    present: bool
    zones: list[str]
    last_t: float | None  # event time of the last fix that was used, Unix seconds
    lat: float | None
    lon: float | None
    acc: float | None  # metres
    offline: bool  # its last will was received after its last fix
    last_verdict: str | None  # of VERDICTS
