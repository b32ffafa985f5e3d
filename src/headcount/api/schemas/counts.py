"""Counts of zones, now, in streams and over time."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field

from headcount.api.schemas.base import Schema

_HiddenCount = Annotated[
    str, Field(pattern=r"^<[1-9][0-9]*$", description="Below this number.", examples=["<5"])
]
_HIDDEN = " Null in public counts."


class KindCounts(Schema):
    """The count of one kind, and its bounds."""

    count: int | _HiddenCount | None = Field(
        description="Present devices that are members of the zone. Without the scope `counts:exact`, where "
        'small counts are hidden: `"<5"`, else a multiple of 5; null where it would disclose too much.'
    )
    low: int | None = Field(
        description="Members whose whole accuracy circle is inside and whose last fix is fresh." + _HIDDEN
    )
    high: int | None = Field(
        description="The count, plus devices outside whose accuracy circle touches the zone." + _HIDDEN
    )
    stale: int | None = Field(description="Members whose last fix is no longer fresh." + _HIDDEN)


class ZoneCountsEntry(Schema):
    """The counts of a zone."""

    zone: str
    person: KindCounts
    vehicle: KindCounts


class CountsFreshness(Schema):
    """How current counts are."""

    site: str
    at: str = Field(description="The instant up to which every received message is counted.")
    partitions_fresh: int = Field(description="Partitions that reported within the last 2 s.")
    partitions_total: int = Field(description="With fewer fresh partitions than this, counts lag behind.")
    age_s: float = Field(description="Seconds from `at` to the requested moment (now).")


class CountsResponse(CountsFreshness):
    """The counts of all zones, of the site's boundary (`site`) among them."""

    zones: list[ZoneCountsEntry]


class StreamCounts(CountsResponse):
    """An update of a live stream: absolute counts of all zones, or of those that changed."""

    full: bool = Field(description="Whether it has all zones: the first update.")


class StreamPing(Schema):
    """A keep-alive message with the age of the counts."""

    at: str | None
    age_s: float | None


class ZoneCountsResponse(CountsFreshness):
    """The counts of one zone."""

    zone: str
    person: KindCounts
    vehicle: KindCounts


class KindSummary(Schema):
    """The count of one kind within one step of time."""

    count: int | _HiddenCount | None = Field(description="At the end of the step; as in /counts.")
    min: int | None
    max: int | None
    mean: float | None = Field(description="Like min and max, null in public counts.")


class HistoryStep(Schema):
    """Counts of the step that ends at `at`."""

    at: str
    person: KindSummary
    vehicle: KindSummary


class ZoneHistoryResponse(Schema):
    """A zone's counts over time; steps without a record are left out."""

    site: str
    zone: str
    from_: str = Field(alias="from")
    to: str
    step_s: float
    rows: list[HistoryStep]


_PERSON = {"count": 412, "low": 390, "high": 420, "stale": 12}
_VEHICLE = {"count": 3, "low": 1, "high": 4, "stale": 0}
_ZONE = {"zone": "library", "person": _PERSON, "vehicle": _VEHICLE}
_SITE = {
    "zone": "site",
    "person": {"count": 3120, "low": 3004, "high": 3120, "stale": 61},
    "vehicle": {"count": 840, "low": 610, "high": 840, "stale": 700},
}
_FRESH = {
    "site": "ul",
    "at": "2026-11-24T13:00:00.100Z",
    "partitions_fresh": 16,
    "partitions_total": 16,
    "age_s": 0.12,
}
_BOUNDS = {"low": None, "high": None, "stale": None}
PUBLIC_COUNTS: dict[str, Any] = {
    **_FRESH,
    "at": "2026-11-24T13:00:00.000Z",
    "age_s": 21.3,
    "zones": [
        {"zone": "site", "person": {"count": 3120, **_BOUNDS}, "vehicle": {"count": 840, **_BOUNDS}},
        {"zone": "library", "person": {"count": 410, **_BOUNDS}, "vehicle": {"count": "<5", **_BOUNDS}},
    ],
}
COUNTS: dict[str, Any] = {**_FRESH, "zones": [_SITE, _ZONE]}
ZONE_COUNTS: dict[str, Any] = {**_FRESH, **_ZONE}
PUBLIC_ZONE_COUNTS: dict[str, Any] = {
    **{name: value for name, value in PUBLIC_COUNTS.items() if name != "zones"},
    **PUBLIC_COUNTS["zones"][1],
}
STREAM_COUNTS: dict[str, Any] = {**_FRESH, "full": True, "zones": [_SITE, _ZONE]}
STREAM_CHANGES: dict[str, Any] = {
    **_FRESH,
    "at": "2026-11-24T13:00:01.100Z",
    "full": False,
    "zones": [{**_ZONE, "person": {**_PERSON, "count": 413, "high": 421}}],
}
PING: dict[str, Any] = {"at": "2026-11-24T13:00:05.000Z", "age_s": 0.11}
STREAM_TEXT = (
    "retry: 2000\n\n"
    f"event: counts\nid: {STREAM_COUNTS['at']}\ndata: {json.dumps(STREAM_COUNTS)}\n\n"
    f"event: counts\nid: {STREAM_CHANGES['at']}\ndata: {json.dumps(STREAM_CHANGES)}\n\n"
    f"event: ping\ndata: {json.dumps(PING)}\n\n"
)
HISTORY: dict[str, Any] = {
    "site": "ul",
    "zone": "library",
    "from": "2026-11-24T12:00:00.000Z",
    "to": "2026-11-24T13:00:00.000Z",
    "step_s": 1800.0,
    "rows": [
        {
            "at": "2026-11-24T12:30:00.000Z",
            "person": {"count": 398, "min": 371, "max": 405, "mean": 388.2},
            "vehicle": {"count": 2, "min": 1, "max": 3, "mean": 1.9},
        },
        {
            "at": "2026-11-24T13:00:00.000Z",
            "person": {"count": 412, "min": 396, "max": 415, "mean": 404.6},
            "vehicle": {"count": 3, "min": 2, "max": 4, "mean": 2.7},
        },
    ],
}
_NO_SUMMARY = {"min": None, "max": None, "mean": None}
PUBLIC_HISTORY: dict[str, Any] = {
    **HISTORY,
    "rows": [
        {
            "at": row["at"],
            "person": {"count": count, **_NO_SUMMARY},
            "vehicle": {"count": "<5", **_NO_SUMMARY},
        }
        for row, count in zip(HISTORY["rows"], (400, 410), strict=True)
    ],
}
