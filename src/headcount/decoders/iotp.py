"""`car-iotp` and `mobile-iotp`: the topics of older flows of this project → canonical fixes.

    {"id": "car-7", "lat": 52.67, "lon": -8.57, "t": 1732453200}      plain
    eyJpZCI6ImNhci03Iiwi…                                             Base64 of that, also in quotes
    {"id": "car-7", "payload": "eyJsYXQiOjUy…"}                       an object that contains it …
    {"d": {"id": "car-7", "lat": 52.67, "lon": -8.57}}                … or contains the object itself

The kind follows from the topic, or from the registry if the id is a device's alias. Times are seconds,
milli-, micro- or nanoseconds, or ISO 8601; without one, the time at which the broker received the message is used.
No message names the phone's system, so the accuracy is taken as the radius of 68 %.
"""

from __future__ import annotations

from typing import Any

from headcount.decoders.tolerant import MAX_BYTES, event_time_s, fix_of, from_base64, is_base64
from headcount.decoding import Decoded, DecodeError, Message
from headcount.messages.topics import Kind
from headcount.messaging.fix_json import read_json, read_object

KIND_OF_TOPIC: dict[str, Kind] = {"car-iotp": "vehicle", "mobile-iotp": "person"}

FIELD_NAMES = {
    "lat": ("lat", "latitude"),
    "lon": ("lon", "lng", "long", "longitude"),
    "acc": ("acc", "accuracy"),
    "vel": ("vel", "speed"),
    "cog": ("cog", "course", "heading"),
    "alt": ("alt", "altitude"),
    "batt": ("batt", "battery"),
}
TIME_FIELDS = ("t", "tst", "timestamp", "ts")
WRAPPERS = ("payload", "data", "d")
#: Maximum number of wrappers around the object.
MAX_WRAPPERS = 4
#: Longer ids are rejected: the registry's aliases are shorter.
MAX_ID_CHARS = 1000


def decode(payload: bytes, message: Message) -> list[Decoded]:
    """Decode a message to one fix.

    Raises:
        DecodeError: the message is not valid.
    """
    kind = KIND_OF_TOPIC.get(message.topic)
    if kind is None:
        raise DecodeError("topic", f"the topic is not {' or '.join(KIND_OF_TOPIC)}")
    fields = _unwrap(payload)
    name = sender_id(fields.get("id"))
    return [fix_of(name, kind, event_time_s(fields, message.received_s, TIME_FIELDS), fields, FIELD_NAMES)]


def sender_id(value: object) -> str:
    """The sender's id as text; a number is valid, too.

    Raises:
        DecodeError: it is neither.
    """
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DecodeError("no_id", "id is missing, empty, or neither a text nor a whole number")
    if isinstance(value, str) and len(value) > MAX_ID_CHARS:
        raise DecodeError("long_id", f"id has {len(value)} characters, {MAX_ID_CHARS} are allowed")
    return str(value)


def _unwrap(payload: bytes) -> dict[str, Any]:
    """The innermost object, with missing fields from the wrappers around it."""
    value: Any = _json_or_base64(payload)
    fields: dict[str, Any] = {}
    for _ in range(MAX_WRAPPERS + 1):
        if isinstance(value, str):
            value = from_base64(value.encode(errors="replace"), MAX_BYTES)
        value = read_object(value)
        wrapper = next((name for name in WRAPPERS if isinstance(value.get(name), dict | str)), None)
        fields |= {name: inner for name, inner in value.items() if name != wrapper}
        if wrapper is None or any(name in value for name in FIELD_NAMES["lat"]):
            return fields
        value = value[wrapper]
    raise DecodeError("too_many_wrappers", f"the position is inside more than {MAX_WRAPPERS} objects")


def _json_or_base64(payload: bytes) -> Any:
    try:
        return read_json(payload, MAX_BYTES)
    except DecodeError as error:
        if error.label == "too_large" or not is_base64(payload):
            raise
    return from_base64(payload, MAX_BYTES)
