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

import binascii
import re
from datetime import UTC, datetime
from typing import Any

from headcount.decoders.tolerant import MAX_BYTES, fix_of, to_number
from headcount.decoding import Decoded, DecodeError, Message
from headcount.messages.topics import Kind
from headcount.messaging.fix_json import field_problem, plain, read_json, read_object

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
#: A time above this is in milliseconds or smaller units: in seconds it would be the year 5138.
MILLISECONDS_ABOVE = 1e11
#: Longer ids are rejected: the registry's aliases are shorter.
MAX_ID_CHARS = 1000
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")


def decode(payload: bytes, message: Message) -> list[Decoded]:
    """Decode a message to one fix.

    Raises:
        DecodeError: the message is not valid.
    """
    kind = KIND_OF_TOPIC.get(message.topic)
    if kind is None:
        raise DecodeError("topic", f"the topic is not {' or '.join(KIND_OF_TOPIC)}")
    fields = _unwrap(payload)
    name = _sender_id(fields.get("id"))
    return [fix_of(name, kind, _event_time_s(fields, message.received_s), fields, FIELD_NAMES)]


def _sender_id(value: object) -> str:
    """The sender's id as text; a number is valid, too."""
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
            value = _from_base64(value.encode(errors="replace"))
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
        if error.label == "too_large" or not _BASE64.fullmatch(_compact(payload)):
            raise
    return _from_base64(payload)


def _compact(text: bytes) -> bytes:
    return b"".join(plain(text).split())


def _from_base64(text: bytes) -> Any:
    """JSON from Base64, standard or for URLs, with or without padding and line breaks."""
    standard = _compact(text).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        decoded = binascii.a2b_base64(standard + b"=" * (-len(standard) % 4), strict_mode=True)
    except binascii.Error:
        raise DecodeError("not_json", "it is neither JSON nor Base64 of JSON") from None
    return read_json(decoded, MAX_BYTES)


def _event_time_s(fields: dict[str, Any], received_s: float) -> float:
    """The event time: the first field that is a time, or `received_s` if there is none."""
    given = [fields[name] for name in TIME_FIELDS if fields.get(name) is not None]
    if not given:
        return received_s
    for value in given:
        t = to_number(value)
        if t is not None:
            while t > MILLISECONDS_ABOVE:  # a thousandth of a unit, perhaps several times
                t /= 1000
            return t
        if isinstance(value, str) and (moment := _iso_s(value)) is not None:
            return moment
    name = next(name for name in TIME_FIELDS if fields.get(name) is not None)
    raise DecodeError("no_time", f"{field_problem(fields, name, texts=True)}, nor ISO 8601")


def _iso_s(text: str) -> float | None:
    """ISO 8601 as Unix seconds; UTC if it has no zone."""
    try:
        moment = datetime.fromisoformat(text[:40])
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
