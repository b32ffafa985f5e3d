"""The results of decoding a message of another format, and the tolerant parsing that all decoders share.

No input raises an exception: a message becomes a `CanonicalMessage`, `IgnoredMessage` or `RejectedMessage`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from headcount.messages.fixes import encode_fix
from headcount.messages.topics import Kind
from headcount.messaging.fix_json import field_problem

#: Larger messages are rejected: a location has some 300 bytes, a configuration some 10 000.
MAX_BYTES = 64 * 1024
#: Characters of the longest number that is accepted as text (`"lat": "52.67"`).
MAX_NUMBER_CHARS = 32
#: Probability that a device is within the accuracy that its platform reports. Android: Location.getAccuracy. Apple:
#: “roughly between 63 and 68 %” (answer of Apple in its developer forum, thread 699996).
ANDROID, APPLE = 0.68, 0.65
#: Fields in addition to the position, by their names in the canonical payload.
OPTIONAL_FIELDS = ("acc", "vel", "cog", "alt", "batt")


class Sender(NamedTuple):
    """The device that a message is of."""

    site: str
    kind: Kind
    device: str


@dataclass(frozen=True, slots=True)
class CanonicalMessage:
    """A message for `headcount/{site}/{kind}/{device}/{what}`."""

    sender: Sender
    what: Literal["fix", "status"]
    payload: bytes


@dataclass(frozen=True, slots=True)
class IgnoredMessage:
    """A valid message without a position."""

    reason: str  # label of a metric


@dataclass(frozen=True, slots=True)
class RejectedMessage:
    """A message that is not valid on its topic."""

    reason: str  # label of a metric
    problem: str = field(default="", compare=False)  # a clause without values that name a person


Outcome = CanonicalMessage | IgnoredMessage | RejectedMessage


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


def radius_68(acc_m: float, probability: float) -> float:
    """The radius of 68 % from that of another probability, for an error that is normal and equal in all directions."""
    return acc_m * math.sqrt(math.log(1 - 0.68) / math.log(1 - probability))


def decode_fix(
    sender: Sender,
    t_s: float,
    fields: dict[str, Any],
    names: dict[str, tuple[str, ...]],
    probability: float = ANDROID,
) -> Outcome:
    """A fix from a decoded object.

    Values out of range are kept: the counting rules judge them. A negative accuracy, which means "none" on
    iOS, is omitted.

    Args:
        sender: the device.
        t_s: event time, Unix seconds.
        fields: the object.
        names: canonical fields to the keys that may contain them.
        probability: that the device is within the accuracy in `fields`; the fix gets the radius of 68 %.
    """
    lat_deg = first_number(fields, names.get("lat", ("lat",)))
    lon_deg = first_number(fields, names.get("lon", ("lon",)))
    missing = [name for name, value in (("lat", lat_deg), ("lon", lon_deg)) if value is None]
    if lat_deg is None or lon_deg is None:
        problem = "; ".join(field_problem(fields, name, texts=True) for name in missing)
        # JSON has no NaN and no 1e999
        not_finite = any(isinstance(fields.get(name), float) for name in missing)
        return RejectedMessage("not_json" if not_finite else "no_position", problem)
    optional = {name: first_number(fields, names.get(name, (name,))) for name in OPTIONAL_FIELDS}
    if optional["acc"] is not None and (optional["acc"] < 0 or probability != ANDROID):
        acc_m = optional["acc"]
        optional["acc"] = None if acc_m < 0 else round(radius_68(acc_m, probability), 1)
    return CanonicalMessage(sender, "fix", encode_fix(t_s, lat_deg, lon_deg, **optional))
