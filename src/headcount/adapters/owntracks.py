"""OwnTracks: `owntracks/{user}/{device}` (and `…/event` for transitions) → canonical messages.

    _type location    → fix
    _type transition  → fix at the position where the region was entered or left
    _type lwt         → status `offline`
    every other type  → ignored (encrypted, waypoint(s), card, cmd, configuration, steps, beacon, …)

Source: OwnTracks booklet, docs/tech/json.md. A payload may also be an array of objects. The app reports the
accuracy of the phone's system; a message names its system only by keys that one of the apps sends.
"""

from __future__ import annotations

import re
from typing import Any

from headcount.adapters.decoding import (
    ANDROID,
    APPLE,
    MAX_BYTES,
    CanonicalMessage,
    IgnoredMessage,
    Outcome,
    RejectedMessage,
    Sender,
    decode_fix,
    first_number,
)
from headcount.adapters.device_aliases import AliasResolver, InactiveDeviceError
from headcount.messages.topics import Kind
from headcount.messaging.fix_json import UnreadableError, field_problem, read_json, read_object

#: Longer arrays are rejected.
MAX_OBJECTS = 100
#: The only subtopic of a device with positions.
EVENT_SUBTOPIC = "event"
#: Names of devices that are vehicles: `car`, `car7`, `Car_2`, `car-red`; not `carol`.
VEHICLE_NAME = re.compile(r"car([0-9_-].*)?", re.IGNORECASE | re.DOTALL)

#: Keys of the iOS app alone: air pressure, and the radius of a region.
IOS_KEYS = frozenset(["p", "rad"])
TYPES_WITHOUT_POSITION = frozenset(
    [
        "beacon",
        "card",
        "cmd",
        "configuration",
        "dump",
        "encrypted",
        "request",
        "status",
        "steps",
        "waypoint",
        "waypoints",
    ]
)


def decode(
    topic: str, payload: bytes, names: AliasResolver, vehicles: frozenset[str] = frozenset()
) -> list[Outcome]:
    """Translate one MQTT message to at least one outcome; to several only for an array.

    `vehicles` are unregistered devices that are vehicles, as `{user}/{device}` or `{device}`, in addition to those whose
    name matches `VEHICLE_NAME`. All others are persons.
    """
    user, device, below = _split_topic(topic)
    if not user or not device:
        return [RejectedMessage("topic")]
    if below not in ("", EVENT_SUBTOPIC):
        return [IgnoredMessage("subtopic")]
    try:
        sender = names.owntracks(user, device, kind_of(user, device, vehicles))
        value = read_json(payload, MAX_BYTES)
    except UnreadableError as error:
        return [RejectedMessage(error.label, error.problem)]
    except InactiveDeviceError as status:
        return [IgnoredMessage(str(status))]
    if isinstance(value, list) and value:
        if len(value) > MAX_OBJECTS:
            return [RejectedMessage("too_large", f"it has {len(value)} objects, {MAX_OBJECTS} are allowed")]
        return [_decode_object(sender, item) for item in value]
    return [_decode_object(sender, value)]


def kind_of(user: str, device: str, vehicles: frozenset[str] = frozenset()) -> Kind:
    """A vehicle if it is configured or named as one, else a person."""
    named = device in vehicles or f"{user}/{device}" in vehicles
    return "vehicle" if named or VEHICLE_NAME.fullmatch(device) else "person"


def _split_topic(topic: str) -> tuple[str, str, str]:
    """User, device and subtopic; empty if it is not an OwnTracks topic."""
    match topic.split("/"):
        case [_, user, device]:
            return user, device, ""
        case [_, user, device, below] if below:
            return user, device, below
    return "", "", ""


def _decode_object(sender: Sender, value: Any) -> Outcome:
    try:
        value = read_object(value)
    except UnreadableError as error:
        return RejectedMessage(error.label, error.problem)
    type_ = value.get("_type")
    if type_ == "lwt":
        return CanonicalMessage(sender, "status", b"offline")
    if type_ == "transition" and "lat" not in value and "lon" not in value:
        return IgnoredMessage("beacon_transition")  # the range of a beacon: there is no position
    if type_ in ("location", "transition"):
        t_s = first_number(value, ("tst",))
        if t_s is None:
            return RejectedMessage("no_time", field_problem(value, "tst", texts=True))
        probability = APPLE if IOS_KEYS & value.keys() else ANDROID
        return decode_fix(sender, t_s, value, {}, probability)
    if not isinstance(type_, str):
        return RejectedMessage("no_type", "_type is missing, or is not a text")
    return IgnoredMessage(type_ if type_ in TYPES_WITHOUT_POSITION else "unknown_type")
