"""Days and weeks of a zone by the hour."""

from __future__ import annotations

from pydantic import Field

from headcount.api.schemas.base import Schema
from headcount.api.schemas.counts import HiddenCount

_PUBLIC = " Without the scope `counts:exact`, where small counts are hidden: of the public counts at half past each hour."


class WeekQuartiles(Schema):
    """The counts of one kind in an hour of the week."""

    days: int = Field(description="Days with a count in this hour.")
    lower: float | HiddenCount | None = Field(description="A quarter of the days have fewer.")
    median: float | HiddenCount | None
    upper: float | HiddenCount | None = Field(description="A quarter of the days have more.")


class WeekHour(Schema):
    """An hour of the week, in the site's time zone."""

    weekday: int = Field(description="1 = Monday to 7 = Sunday.")
    hour: int = Field(description="0 to 23.")
    person: WeekQuartiles
    vehicle: WeekQuartiles


class TypicalWeekResponse(Schema):
    """The 168 hours of a typical week, from Monday 0:00."""

    site: str
    zone: str
    from_: str = Field(alias="from")
    to: str
    time_zone: str
    version: int | None = Field(description="The newest version of the stored minutes; null: there are none.")
    corrected: str | None = Field(description="When late rows changed the minutes; null: they never did.")
    hours: list[WeekHour] = Field(description="Quartiles over the days of mean counts." + _PUBLIC)


class HeatMapDay(Schema):
    """The hours of a day."""

    date: str
    person: list[float | HiddenCount | None] = Field(description="24 numbers; null: nothing is recorded.")
    vehicle: list[float | HiddenCount | None]


class HeatMapResponse(Schema):
    """The mean counts of each day and hour, oldest first."""

    site: str
    zone: str
    time_zone: str
    version: int | None = Field(description="The newest version of the stored minutes; null: there are none.")
    corrected: str | None = Field(description="When late rows changed the minutes; null: they never did.")
    days: list[HeatMapDay] = Field(description="Mean counts by the hour." + _PUBLIC)
