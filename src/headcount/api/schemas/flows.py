"""Arrivals, departures, dwell times, trips between zones, and stays."""

from __future__ import annotations

from pydantic import Field

from headcount.api.schemas.base import Schema
from headcount.api.schemas.counts import HiddenCount
from headcount.messages.topics import Kind

_PUBLIC = (
    " Without the scope `counts:exact`, where small counts are hidden: different devices, each at most once; "
    'below 5 `"<5"`, else a multiple of 5.'
)


class FlowPeriod(Schema):
    """A period and the state of its numbers."""

    from_: str = Field(alias="from")
    to: str
    closed: bool = Field(description="Whether all hours are complete; other numbers are those so far.")
    version: int | None = Field(
        description="1, and one more for each time that rows came late. Null: no hour with a number is complete."
    )
    corrected: str | None = Field(description="When late rows changed the numbers; null: they never did.")


class ArrivalNumbers(Schema):
    """Arrivals and departures of one kind."""

    arrivals: int | HiddenCount = Field(description="Devices that entered the zone." + _PUBLIC)
    departures: int | HiddenCount = Field(description="Devices that left the zone." + _PUBLIC)


class ArrivalPeriod(FlowPeriod):
    """Arrivals and departures of a period."""

    person: ArrivalNumbers
    vehicle: ArrivalNumbers


class ArrivalsResponse(Schema):
    """A zone's arrivals and departures, oldest first."""

    site: str
    zone: str
    step_s: float
    rows: list[ArrivalPeriod]


class DwellBin(Schema):
    """Stays of a length within [from_s, to_s)."""

    from_s: int
    to_s: int
    stays: int | HiddenCount = Field(description="Stays that ended." + _PUBLIC)


class DwellNumbers(Schema):
    """The lengths of the stays of one kind that ended."""

    bins: list[DwellBin]
    unknown: int | HiddenCount = Field(
        description="Stays longer than 12 hours, over midnight UTC, when pseudonyms change, or with a beginning "
        "that is not recorded."
    )


class DwellPeriod(FlowPeriod):
    """The stays that ended in a period."""

    person: DwellNumbers
    vehicle: DwellNumbers


class DwellTimesResponse(Schema):
    """How long stays in a zone were, oldest first."""

    site: str
    zone: str
    step_s: float
    rows: list[DwellPeriod]


class TripPeriod(FlowPeriod):
    """The trips of a period as a matrix."""

    person: list[list[int | HiddenCount]] = Field(
        description="A row for each origin, a number for each destination." + _PUBLIC
    )
    vehicle: list[list[int | HiddenCount]]


class OriginDestinationResponse(Schema):
    """Trips between the zones of a site, oldest first."""

    site: str
    step_s: float
    zones: list[str] = Field(description="Origins and destinations; the last one is `outside`.")
    rows: list[TripPeriod]


class StayEntry(Schema):
    """A stay of a device in a zone."""

    zone: str
    kind: Kind
    device: str = Field(description="Its pseudonym of the day.")
    from_: str | None = Field(alias="from", description="Null: before the pseudonym's day, or not recorded.")
    to: str | None = Field(description="Null: it is not over, or its end is not known under this pseudonym.")
    reason: str | None = Field(description="Why the device left, as in events.")


class StaysResponse(Schema):
    """The stays of devices in a zone, by device and beginning."""

    site: str
    zone: str
    truncated: bool
    stays: list[StayEntry]


class OwnStay(Schema):
    """A stay of the caller's device."""

    zone: str
    from_: str | None = Field(alias="from", description="Null: it is not recorded.")
    to: str | None = Field(description="Null: it is not over.")
    reason: str | None


class OwnStaysResponse(Schema):
    """The stays of the caller's device in the last day."""

    site: str
    stays: list[OwnStay]
