"""OwnTracks: `owntracks/{user}/{device}` (and `…/event` for transitions) → canonical messages.

    _type location    → fix, whatever its trigger `t` is
    _type transition  → fix at the position where the region was entered or left
    _type lwt         → status `offline`
    every other type  → ignored (waypoint(s), card, cmd, configuration, steps, beacon, …)

Source: OwnTracks booklet, docs/tech/json.md. A payload may also be an array of objects. The time of a fix is
that of the position, `tst`, not `created_at`, when the message was made of it. The app reports the accuracy of
the phone's system; a message names its system only by keys that one of the apps sends. Messages of the type
`encrypted` are decrypted before they are decoded; one that arrives here is of a device without a key.
"""

from __future__ import annotations

import re
from typing import Any

from headcount.decoders.tolerant import MAX_BYTES, first_number, fix_of
from headcount.decoding import Decoded, DecodedStatus, DecodeError, Ignored, Message
from headcount.messages.topics import Kind
from headcount.messaging.fix_json import field_problem, read_json, read_object

TOPICS = ("owntracks/+/+", "owntracks/+/+/event")
#: Longer arrays are rejected.
MAX_OBJECTS = 100
#: The only subtopic of a device with positions.
EVENT_SUBTOPIC = "event"
#: Names of devices that are vehicles: `car`, `car7`, `Car_2`, `car-red`; not `carol`.
VEHICLE_NAME = re.compile(r"car([0-9_-].*)?", re.IGNORECASE | re.DOTALL)

#: Probability that a device is within the accuracy that its platform reports. Android: Location.getAccuracy. Apple:
#: “roughly between 63 and 68 %” (answer of Apple in its developer forum, thread 699996).
ANDROID, APPLE = 0.68, 0.65
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


def decode(payload: bytes, message: Message) -> list[Decoded]:
    """Decode a message to at least one result; to several only for an array. A device is named `{user}/{device}`.

    Raises:
        DecodeError: the message is not valid on its topic.
    """
    name, subtopic = _split_topic(message.topic)
    if subtopic not in ("", EVENT_SUBTOPIC):
        return [Ignored("subtopic")]
    kind = kind_of(name.partition("/")[2])
    value = read_json(payload, MAX_BYTES)
    if not isinstance(value, list) or not value:
        return [_decode_object(name, kind, value)]
    if len(value) > MAX_OBJECTS:
        raise DecodeError("too_large", f"it has {len(value)} objects, {MAX_OBJECTS} are allowed")
    return [_decode_item(name, kind, item) for item in value]


def kind_of(device: str) -> Kind:
    """A vehicle if it is named as one, else a person."""
    return "vehicle" if VEHICLE_NAME.fullmatch(device) else "person"


def name_of(topic: str) -> str:
    """The name of the device of a topic; empty: the topic is not OwnTracks'."""
    try:
        return _split_topic(topic)[0]
    except DecodeError:
        return ""


def _split_topic(topic: str) -> tuple[str, str]:
    """The name of the device, and the subtopic."""
    match topic.split("/"):
        case [_, user, device] if user and device:
            return f"{user}/{device}", ""
        case [_, user, device, below] if user and device and below:
            return f"{user}/{device}", below
    raise DecodeError("topic", "the topic is not owntracks/USER/DEVICE")


def _decode_item(name: str, kind: Kind, value: Any) -> Decoded:
    try:
        return _decode_object(name, kind, value)
    except DecodeError as error:
        return error


def _decode_object(name: str, kind: Kind, value: Any) -> Decoded:
    fields = read_object(value)
    type_ = fields.get("_type")
    if type_ == "lwt":
        return DecodedStatus(name, online=False, kind=kind)
    if type_ == "transition" and "lat" not in fields and "lon" not in fields:
        return Ignored("beacon_transition")  # the range of a beacon: there is no position
    if type_ in ("location", "transition"):
        t_s = first_number(fields, ("tst",))
        if t_s is None:
            raise DecodeError("no_time", field_problem(fields, "tst", texts=True))
        probability = APPLE if IOS_KEYS & fields.keys() else ANDROID
        return fix_of(name, kind, t_s, fields, {}, probability)
    if not isinstance(type_, str):
        raise DecodeError("no_type", "_type is missing, or is not a text")
    return Ignored(type_ if type_ in TYPES_WITHOUT_POSITION else "unknown_type")
