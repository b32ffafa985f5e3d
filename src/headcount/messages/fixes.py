"""Fixes, their verdicts, and markers that remove a device from the counts."""

from __future__ import annotations

import math

import msgspec

from headcount.messages.topics import Kind

#: Verdicts in the order of rule 1; the index is the code in columns and files.
VERDICTS = (
    "malformed",
    "invalid",
    "future",
    "duplicate",
    "out_of_order",
    "late",
    "inaccurate",
    "implausible",
    "outside",
    "accepted",
)


class Fix(msgspec.Struct, gc=False):
    """The part of a payload on FIX_TOPIC that counts: OwnTracks `location` JSON. Other keys are ignored.

    A number in `t` is the event time with fractions of a second and takes precedence over `tst`.
    """

    lat: float
    lon: float
    tst: float | None = None
    acc: float | None = None
    t: float | str | None = None  # OwnTracks itself uses `t` for a trigger letter: only a number counts


def encode_fix(t_s: float, lat_deg: float, lon_deg: float, **optional: float | None) -> bytes:
    """The payload of a fix; `optional` are other fields such as `acc` and `vel`, omitted where None.

    `tst` is the whole second, as in OwnTracks; `t` is included only where there are fractions.
    """
    tst: float = math.floor(t_s) if abs(t_s) < 2**53 else t_s
    fields: dict[str, float | str | None] = {"_type": "location", "tst": tst}
    if tst != t_s:
        fields["t"] = t_s
    fields |= {"lat": lat_deg, "lon": lon_deg}
    fields |= {name: value for name, value in optional.items() if value is not None}
    return msgspec.json.encode(fields)


class ForgetMarker(msgspec.Struct):
    """A marker in the log (JSON on FORGET_SUBJECT): its device leaves every zone, reason `removed`, and is unknown."""

    kind: Kind
    pseudonyms: dict[str, str]  # day since 1970 → pseudonym of that day, 16 hexadecimal digits
