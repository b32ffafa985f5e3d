"""A position of the device, and its fix as bytes: canonical, so that all implementations write the same."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

#: Times are smaller than this (the year 5138), so that milliseconds are found.
MAX_TIME_S = 1e11
#: A larger accuracy is published as this one.
MAX_ACC_M = 1e6
#: Optional fields in the order of the payload: smallest and largest published value, and decimal places.
_OPTIONAL = {"vel": (0, 1e6, 1), "cog": (0, 360, 1), "alt": (-1e6, 1e6, 1), "batt": (0, 100, 0)}


@dataclass(frozen=True, slots=True)
class DevicePosition:
    """A position as a receiver reports it; None = unknown.

    Raises:
        ValueError: time, latitude or longitude is not finite or out of range, or both coordinates are 0.
    """

    t: float  # Unix seconds, fractions allowed
    lat: float  # WGS 84 degrees
    lon: float
    acc: float | None = None  # radius of 68 % confidence in metres
    vel: float | None = None  # km/h
    cog: float | None = None  # course over ground in degrees from north
    alt: float | None = None  # metres
    batt: float | None = None  # percent

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.t, self.lat, self.lon))):
            raise ValueError(f"t {self.t}, lat {self.lat}, lon {self.lon}: must be finite numbers")
        if abs(self.t) >= MAX_TIME_S:
            raise ValueError(f"t {self.t}: is not a time in seconds; are these milliseconds?")
        if abs(self.lat) > 90 or abs(self.lon) > 180 or self.lat == self.lon == 0:
            raise ValueError(f"lat {self.lat}, lon {self.lon}: is not a position in degrees")

    @property
    def acc_m(self) -> float:
        """The accuracy, 0 where it is unknown, as in the counting rules."""
        return self.acc if self.acc is not None and math.isfinite(self.acc) and self.acc > 0 else 0.0

    def payload(self) -> bytes:
        """The fix as bytes; docs/reference/device-behaviour.md defines them."""
        fields = {"tst": _decimal(self.t, 3), "lat": _decimal(self.lat, 7), "lon": _decimal(self.lon, 7)}
        if self.acc_m:
            fields["acc"] = _decimal(min(max(self.acc_m, 0.1), MAX_ACC_M), 1)
        for name, (smallest, largest, places) in _OPTIONAL.items():
            value = getattr(self, name)
            if value is not None and smallest <= value <= largest:
                fields[name] = _decimal(value, places)
        if fields.get("cog") == "360":
            fields["cog"] = "0"
        return ("{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}").encode()


def position_of(fields: dict[str, Any]) -> DevicePosition:
    """The position of a decoded fix; fields of other types are unknown.

    Raises:
        ValueError: it has no valid time or position.
    """
    known = {
        name: float(value)
        for name in ("acc", "vel", "cog", "alt", "batt")
        if isinstance(value := fields.get(name), int | float) and not isinstance(value, bool)
    }
    try:
        return DevicePosition(float(fields["tst"]), float(fields["lat"]), float(fields["lon"]), **known)
    except (KeyError, TypeError) as error:
        raise ValueError(f"is not a position: {error}") from error


def position_of_payload(payload: bytes | str) -> DevicePosition:
    """The position of the bytes of a fix.

    Raises:
        ValueError: it has no valid time or position.
    """
    fields = json.loads(payload)
    if not isinstance(fields, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004  # all problems of a payload are one error
    return position_of(fields)


def _decimal(value: float, places: int) -> str:
    """The shortest text of a number rounded half away from zero, as JavaScript's `toFixed` rounds."""
    rounded = Decimal(value).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    text = f"{rounded:f}"
    if places:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
