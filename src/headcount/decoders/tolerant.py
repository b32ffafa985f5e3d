"""Tolerant reading of JSON, shared by the shipped decoders; pure."""

from __future__ import annotations

import math
from typing import Any

from headcount.decoding import DecodedFix, DecodeError
from headcount.messages.topics import Kind
from headcount.messaging.fix_json import field_problem

#: Larger messages are rejected: a location has some 300 bytes, a configuration some 10 000.
MAX_BYTES = 64 * 1024
#: Characters of the longest number that is accepted as text (`"lat": "52.67"`).
MAX_NUMBER_CHARS = 32
#: Fields in addition to the position, by their names in the canonical payload.
OPTIONAL_FIELDS = ("acc", "vel", "cog", "alt", "batt")


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
