"""Tolerant reading of JSON, shared by the shipped decoders; pure."""

from __future__ import annotations

import binascii
import math
import re
from datetime import UTC, datetime
from typing import Any

from headcount.decoding import DecodedFix, DecodeError
from headcount.messages.topics import Kind
from headcount.messaging.fix_json import field_problem, plain, read_json

#: Larger messages are rejected: a location has some 300 bytes, a configuration some 10 000.
MAX_BYTES = 64 * 1024
#: Characters of the longest number that is accepted as text (`"lat": "52.67"`).
MAX_NUMBER_CHARS = 32
#: Fields in addition to the position, by their names in the canonical payload.
OPTIONAL_FIELDS = ("acc", "vel", "cog", "alt", "batt")
#: A time above this is in milliseconds or smaller units: in seconds it would be the year 5138.
MILLISECONDS_ABOVE = 1e11
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")


def to_number(value: object) -> float | None:
    """The finite number in a JSON number or string, else None (also for true and false)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and (len(value) > MAX_NUMBER_CHARS or "_" in value):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def first_number(fields: dict[str, Any], names: tuple[str, ...]) -> float | None:
    """The first of these fields that is a finite number."""
    return next((found for name in names if (found := to_number(fields.get(name))) is not None), None)


def fix_of(
    name: str,
    kind: Kind,
    t_s: float,
    fields: dict[str, Any],
    keys: dict[str, tuple[str, ...]],
    acc_probability: float = 0.68,
) -> DecodedFix:
    """A fix from a decoded object.

    Args:
        name: of the device.
        kind: of the device, if it is not registered.
        t_s: event time, Unix seconds.
        fields: the object.
        keys: canonical fields to the keys that may contain them.
        acc_probability: that the device is within the accuracy in `fields`.

    Raises:
        DecodeError: there is no position.
    """
    lat_deg = first_number(fields, keys.get("lat", ("lat",)))
    lon_deg = first_number(fields, keys.get("lon", ("lon",)))
    if lat_deg is None or lon_deg is None:
        missing = [name for name, value in (("lat", lat_deg), ("lon", lon_deg)) if value is None]
        # JSON has no NaN and no 1e999
        not_finite = any(isinstance(fields.get(name), float) for name in missing)
        problem = "; ".join(field_problem(fields, name, texts=True) for name in missing)
        raise DecodeError("not_json" if not_finite else "no_position", problem)
    optional = {field: first_number(fields, keys.get(field, (field,))) for field in OPTIONAL_FIELDS}
    return DecodedFix(name, t_s, lat_deg, lon_deg, **optional, kind=kind, acc_probability=acc_probability)


def event_time_s(fields: dict[str, Any], received_s: float, names: tuple[str, ...]) -> float:
    """The event time: the first of these fields that is a time, or `received_s` if none is given.

    Times are seconds, milli-, micro- or nanoseconds since 1970, or ISO 8601, in UTC if it has no zone.

    Raises:
        DecodeError: a field is given, and none is a time.
    """
    given = [name for name in names if fields.get(name) is not None]
    for name in given:
        value = fields[name]
        t = to_number(value)
        if t is not None:
            while t > MILLISECONDS_ABOVE:  # a thousandth of a unit, perhaps several times
                t /= 1000
            return t
        if isinstance(value, str) and (moment := _iso_s(value)) is not None:
            return moment
    if not given:
        return received_s
    raise DecodeError("no_time", f"{field_problem(fields, given[0], texts=True)}, nor ISO 8601")


def _iso_s(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text[:40])
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def is_base64(payload: bytes) -> bool:
    """Whether a payload may be Base64, standard or for URLs, with or without padding and line breaks."""
    return _BASE64.fullmatch(_compact(payload)) is not None


def from_base64(payload: bytes, max_bytes: int) -> Any:
    """The JSON value in Base64.

    Raises:
        DecodeError: it is not Base64 of JSON.
    """
    standard = _compact(payload).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        decoded = binascii.a2b_base64(standard + b"=" * (-len(standard) % 4), strict_mode=True)
    except binascii.Error:
        raise DecodeError("not_json", "it is neither JSON nor Base64 of JSON") from None
    return read_json(decoded, max_bytes)


def _compact(text: bytes) -> bytes:
    return b"".join(plain(text).split())
