"""Counts of zones, now, in streams and over time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headcount.api.schemas.base import Schema

HiddenCount = Annotated[
    str, Field(pattern=r"^<[1-9][0-9]*$", description="Below this number.", examples=["<5"])
]
_HIDDEN = " Null in public counts."


class KindCounts(Schema):
    """The count of one kind, and its bounds."""

    count: int | HiddenCount | None = Field(
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
    capacity: int | None = Field(None, description="Of the zone, if the site file has one.")
    share: float | None = Field(
        None, description="The count divided by the capacity; null where the count is hidden."
    )


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

    count: int | HiddenCount | None = Field(description="At the end of the step; as in /counts.")
    min: int | None
    max: int | None
    mean: float | None = Field(description="Like min and max, null in public counts.")


class HistoryStep(Schema):
    """Counts of the step that ends at `at`."""

    at: str
    person: KindSummary
    vehicle: KindSummary


class ZoneSteps(Schema):
    """A zone and its counts over time, oldest first."""

    zone: str
    rows: list[HistoryStep]


class HistoryResponse(Schema):
    """Counts of several zones over time; steps without a record are left out."""

    site: str
    from_: str = Field(alias="from")
    to: str
    step_s: float
    version: int | None = Field(
        description="Of the stored minutes: 1, and one more for each time that rows came late. Null: the counts are "
        "those of all instants."
    )
    corrected: str | None = Field(description="When late rows changed the minutes; null: they never did.")
    zones: list[ZoneSteps]


class ZoneHistoryResponse(Schema):
    """A zone's counts over time; steps without a record are left out."""

    site: str
    zone: str
    from_: str = Field(alias="from")
    to: str
    step_s: float
    version: int | None = Field(
        description="Of the stored minutes: 1, and one more for each time that rows came late. Null: the counts are "
        "those of all instants."
    )
    corrected: str | None = Field(description="When late rows changed the minutes; null: they never did.")
    rows: list[HistoryStep]


class KindForecast(Schema):
    """The forecast of one kind for one step of time; null where there is none."""

    expected: float | HiddenCount | None = Field(
        description='The mean count. Without the scope `counts:exact`, where small counts are hidden: `"<5"`, '
        "else a multiple of 5."
    )
    low: int | HiddenCount | None = Field(description="The interval's lower end, in the same form.")
    high: int | HiddenCount | None = Field(description="The interval's upper end, in the same form.")
    checks: int = Field(description="Earlier forecasts from whose errors the interval was made.")


class ForecastStep(Schema):
    """The forecast of the step that ends at `at`."""

    at: str
    person: KindForecast
    vehicle: KindForecast


class ForecastResponse(Schema):
    """A forecast of a zone's counts, the next step first."""

    site: str
    zone: str
    at: str = Field(description="End of the last step whose counts are used.")
    step_s: float
    level: float = Field(description="Share of the counts that the interval should hold.")
    from_: str = Field(alias="from", description="Start of the counts that are used; `at` without any.")
    rows: list[ForecastStep]
