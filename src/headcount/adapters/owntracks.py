"""OwnTracks: `owntracks/{user}/{device}` (and `…/event` for transitions) → canonical messages.

    _type location    → fix
    _type transition  → fix at the place where the region was entered or left
    _type lwt         → status `offline`
    every other type  → ignored (encrypted, waypoint(s), card, cmd, configuration, steps, beacon, …)

Source: OwnTracks booklet, docs/tech/json.md. A payload may also be an array of such objects.
"""

from __future__ import annotations

import re
from typing import Any

from headcount.adapters.decoding import (
    Canonical,
    Ignored,
    Outcome,
    Rejected,
    Unreadable,
    first_number,
    fix,
    read_json,
)
from headcount.adapters.device_aliases import Absent, Names
from headcount.messages.topics import Kind

#: Objects of the longest array that is looked at.
MAX_OBJECTS = 100
#: The only topic below a device's own that carries positions.
EVENT = "event"
#: A device of this name drives: `car`, `car7`, `Car_2`, `car-red`; not `carol`.
VEHICLE = re.compile(r"car([0-9_-].*)?", re.IGNORECASE | re.DOTALL)

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


def decode(topic: str, payload: bytes, names: Names, vehicles: frozenset[str] = frozenset()) -> list[Outcome]:
    """Translate one MQTT message.

    Args:
        topic: `owntracks/{user}/{device}`, with or without one part more.
        payload: whatever was sent.
        names: says which device the topic means.
        vehicles: devices that are vehicles, as `{user}/{device}` or `{device}`; others are when
            their name matches `VEHICLE`, and persons otherwise. Of a registered one the registry says it.

    Returns:
        At least one outcome; more than one only for an array.
    """
    user, device, below = _names(topic)
    if not user or not device:
        return [Rejected("topic")]
    if below not in ("", EVENT):
        return [Ignored("subtopic")]
    try:
        kind, id_ = names.owntracks(user, device, kind_of(user, device, vehicles))
        value = read_json(payload)
    except Unreadable as error:
        return [Rejected(str(error))]
    except Absent as status:
        return [Ignored(str(status))]
    if isinstance(value, list) and value:
        if len(value) > MAX_OBJECTS:
            return [Rejected("too_large")]
        return [_outcome(kind, id_, item) for item in value]
    return [_outcome(kind, id_, value)]


def kind_of(user: str, device: str, vehicles: frozenset[str] = frozenset()) -> Kind:
    """A vehicle where it is configured or named so, else a person."""
    named = device in vehicles or f"{user}/{device}" in vehicles
    return "vehicle" if named or VEHICLE.fullmatch(device) else "person"


def _names(topic: str) -> tuple[str, str, str]:
    """User, device and what is below; empty where the topic is no OwnTracks topic."""
    match topic.split("/"):
        case [_, user, device]:
            return user, device, ""
        case [_, user, device, below] if below:
            return user, device, below
    return "", "", ""


def _outcome(kind: Kind, device: str, value: Any) -> Outcome:
    if not isinstance(value, dict):
        return Rejected("not_an_object")
    type_ = value.get("_type")
    if type_ == "lwt":
        return Canonical(kind, device, "status", b"offline")
    if type_ == "transition" and "lat" not in value and "lon" not in value:
        return Ignored("beacon_transition")  # a beacon's range was entered: there is no position
    if type_ in ("location", "transition"):
        t_s = first_number(value, ("tst",))
        return Rejected("no_time") if t_s is None else fix(kind, device, t_s, value, {})
    if not isinstance(type_, str):
        return Rejected("no_type")
    return Ignored(type_ if type_ in TYPES_WITHOUT_POSITION else "unknown_type")
