"""Read a JSON message that a strict decoder refuses, and name exactly what is wrong with it; pure.

Only the time and the position can make a fix unusable (rule 1), so everything else is ignored, whatever its
type. This is slow: it is used for the few messages of a batch that the fast path can't decode, for other
formats, and to explain a verdict.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from headcount.decoding import DecodeError
from headcount.messages.fixes import Fix

#: Larger payloads of fixes are `malformed`.
MAX_FIX_BYTES = 16_384
#: Errors of decoding hostile bytes: bad JSON or types, bad UTF-8, endless nesting.
UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: Keys under which other programs send the fields of a fix, in lower case without `_` and `-`.
OTHER_NAMES = {
    "tst": ("timestamp", "time", "ts", "datetime", "date", "epoch", "unixtime"),
    "lat": ("lat", "latitude", "latdeg", "y"),
    "lon": ("lon", "lng", "long", "longitude", "londeg", "x"),
}
#: The beginning of compressed data.
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
}
_decode = msgspec.json.Decoder(Fix).decode
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{4,}={0,2}")
_SHOWN = 40


def plain(payload: bytes) -> bytes:
    """The payload without a byte order mark, and without the NULs and white space at its end."""
    return payload.removeprefix(BYTE_ORDER_MARK).rstrip(b"\0 \t\r\n")


def read_json(payload: bytes, max_bytes: int = MAX_FIX_BYTES) -> Any:
    """The JSON value of a payload. Numbers that JSON does not have (NaN, 1e999) are floats that are not finite.

    Bytes that are not UTF-8 are U+FFFD in texts.

    Raises:
        DecodeError: `too_large`, or `not_json`.
    """
    if len(payload) > max_bytes:
        raise DecodeError("too_large", f"it has {len(payload)} bytes, {max_bytes} are allowed")
    data = plain(payload)
    try:
        return msgspec.json.decode(data)
    except RecursionError:
        raise DecodeError("not_json", "it is nested too deeply") from None
    except UNDECODABLE:
        pass
    try:
        return json.loads(data.decode(errors="replace"))
    except UNDECODABLE as error:
        raise DecodeError("not_json", partial(_why_not_json, data, error)) from None


def read_fix(payload: bytes) -> Fix:
    """The fields of a fix that decide; a time or position without a finite number is an error.

    Raises:
        DecodeError: with everything that is wrong with it.
    """
    if len(payload) <= MAX_FIX_BYTES:
        with suppress(*UNDECODABLE):
            found = _decode(plain(payload))
            if found.tst is not None or isinstance(found.t, float):
                return found
    fields = read_object(read_json(payload))
    if isinstance(fields.get("t"), str) and "\ufffd" in fields["t"]:
        raise DecodeError("not_json", "it is not UTF-8: t has other bytes")
    t = finite(fields.get("t"))
    numbers = {
        "tst": finite(fields.get("tst")),
        "lat": finite(fields.get("lat")),
        "lon": finite(fields.get("lon")),
    }
    wrong = [name for name, number in numbers.items() if number is None and (name != "tst" or t is None)]
    if wrong:
        label = "no_time" if wrong == ["tst"] else "no_position"
        raise DecodeError(label, lambda: "; ".join(field_problem(fields, name) for name in wrong))
    lat, lon = numbers["lat"] or 0.0, numbers["lon"] or 0.0
    return Fix(lat, lon, numbers["tst"], finite(fields.get("acc")), t)


def fix_problem(payload: bytes) -> str:
    """Why a payload is no fix; empty if it is one."""
    try:
        read_fix(payload)
    except DecodeError as error:
        return error.problem
    return ""


def read_object(value: Any) -> dict[str, Any]:
    """The object that a JSON value is.

    Raises:
        DecodeError: `not_an_object`.
    """
    if isinstance(value, dict):
        return value
    problem = f"it is {_noun(value)}, not an object"
    if isinstance(value, list):
        problem += ": publish each fix as a message of its own"
    elif isinstance(value, str) and value.lstrip().startswith("{"):
        problem += ": encode the object once, not twice"
    raise DecodeError("not_an_object", problem)


def finite(value: object) -> float | None:
    """The finite number that a JSON value is, else None (also for true and false)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of more than 308 digits
        return None


def field_problem(fields: dict[str, Any], name: str, *, texts: bool = False) -> str:
    """The fault of a field that is needed and isn't a finite number.

    Args:
        fields: of the message.
        name: `tst`, `lat` or `lon`.
        texts: whether a number may be a text.
    """
    value = fields.get(name)
    if value is None and name in fields:
        return f"{name} is null"
    if value is None:
        return f"{name} is missing" + _other_name(fields, name)
    if isinstance(value, str):
        advice = "" if texts else ": send a number without quotes"
        return f"{name} is the text {value[:_SHOWN]!r}, not a number{advice}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{name} is not a finite number"
    return f"{name} is {_noun(value)}, not a number"


def _other_name(fields: dict[str, Any], name: str) -> str:
    """A hint at the key under which the message may have the field."""
    for key in fields:
        if key.casefold().replace("_", "").replace("-", "") in (name, *OTHER_NAMES[name]):
            return f"; the message has {key[:_SHOWN]!r}: rename it to {name}"
    for outer, inner in fields.items():
        if isinstance(inner, dict) and (name in inner or _other_name(inner, name)):
            return f"; it is inside {outer[:_SHOWN]!r}: put it into the outer object"
    if name != "tst" and isinstance(fields.get("coordinates"), list):
        return "; the message has GeoJSON coordinates: send lat and lon"
    return "; t is a text, not a number" if name == "tst" and isinstance(fields.get("t"), str) else ""


def _noun(value: object) -> str:
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, str):
        return "a text"
    return {None: "null", True: "true", False: "false"}.get(value, "a number")  # type: ignore[call-overload,no-any-return]


def _why_not_json(data: bytes, error: Exception) -> str:
    """The most likely reason why bytes are not JSON."""
    if not data:
        return "it is empty"
    packed = next((name for start, name in _COMPRESSED.items() if data.startswith(start)), None)
    if packed is None and data[:1] == b"\x78" and int.from_bytes(data[:2]) % 31 == 0:
        packed = "zlib"
    if packed is not None:
        return f"it is compressed ({packed}): send plain JSON"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or data[:2] in (b"{\0", b"\0{"):
        return "it is UTF-16: send UTF-8"
    if data[:1] not in b"{[" and "\ufffd" in data.decode(errors="replace"):
        return "it is binary, not JSON"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return _wrong_text(data, error)


def _wrong_text(data: bytes, error: Exception) -> str:
    if (nul := data.find(0)) >= 0:
        return f"it has a NUL at byte {nul}, before its end"
    for start, form in ((b"<", "XML or HTML"), (b"$", "NMEA"), (b"{'", "text with single quotes")):
        if data.startswith(start):
            return f"it is {form}, not JSON"
    if _is_base64_of_json(data):
        return "it is Base64: send plain JSON"
    if not isinstance(error, json.JSONDecodeError):
        return "it is not JSON"
    if error.msg == "Extra data":
        return f"it has more after the JSON value, from byte {error.pos}: publish each fix as a message of its own"
    if error.pos >= len(error.doc) or error.msg.startswith("Unterminated string"):
        return f"it is JSON that is cut off after {len(data)} bytes"
    return f"it is not JSON: {error.msg} at byte {error.pos}"


def _is_base64_of_json(data: bytes) -> bool:
    if not _BASE64.fullmatch(data):
        return False
    standard = data.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        decoded = binascii.a2b_base64(standard + b"=" * (-len(standard) % 4))
    except binascii.Error:
        return False
    return decoded.lstrip()[:1] in (b"{", b"[")
