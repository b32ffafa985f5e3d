"""Stored positions, exact and coarse, and the state of single devices."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from headcount.api.schemas.base import OpenSchema, Schema
from headcount.messages.topics import Kind


class PointGeometry(Schema):
    """A GeoJSON point: longitude, latitude."""

    type: Literal["Point"]
    coordinates: list[float] = Field(min_length=2, max_length=2)


class FixProperties(Schema):
    """The properties of a fix."""

    device: str = Field(description="Daily pseudonym.")
    kind: Kind
    t: str = Field(description="When the device measured it.")
    acc: float | None = Field(description="Accuracy in metres; null = unknown.")
    verdict: str
    between: bool = Field(
        description="With `at`: the position is between this fix and the next one, in a straight line."
    )
    distance_m: float | None = Field(None, description="With `near`: the distance from there.")


class FixFeature(Schema):
    """A fix as a GeoJSON feature."""

    type: Literal["Feature"]
    geometry: PointGeometry
    properties: FixProperties


class FixesResponse(Schema):
    """Fixes as a GeoJSON FeatureCollection."""

    type: Literal["FeatureCollection"]
    precision: Literal["exact"]
    features: list[FixFeature]
    truncated: bool = Field(description="Whether there are more than `limit`.")
    next: str | None = Field(description="The `cursor` of the next page; null on the last page.")


class AreaRequest(OpenSchema):
    """A GeoJSON Polygon or MultiPolygon, or a Feature with one."""

    type: Literal["Polygon", "MultiPolygon", "Feature"]
    coordinates: list[list[Any]] | None = Field(None, description="Of a geometry.")
    geometry: dict[str, Any] | None = Field(None, description="Of a Feature.")


class CellGeometry(Schema):
    """A GeoJSON polygon: the outline of a cell."""

    type: Literal["Polygon"]
    coordinates: list[list[list[float]]]


class CellProperties(Schema):
    """The number of devices in a cell."""

    kind: Kind
    from_: str = Field(alias="from", description="Start of the 5 minutes.")
    to: str
    devices: int = Field(description="Different devices with accepted fixes there within the 5 minutes.")


class CellFeature(Schema):
    """A cell of the grid as a GeoJSON feature."""

    type: Literal["Feature"]
    geometry: CellGeometry
    properties: CellProperties


class CellsResponse(Schema):
    """Coarse positions as a GeoJSON FeatureCollection."""

    type: Literal["FeatureCollection"]
    precision: Literal["coarse"]
    features: list[CellFeature]
    truncated: bool = Field(description="Whether there are more than `limit`.")


class DeviceStateResponse(OpenSchema):
    """The counting worker's state of a device."""

    site: str
    kind: Kind
    device: str
    present: bool
    zones: list[str]
    last_t: str | None = Field(description="Event time of the last fix that was used.")
    lat: float | None
    lon: float | None
    acc: float | None
    offline: bool = Field(description="Whether its last will was received after its last fix.")
    last_verdict: str | None
    verdicts: dict[str, int] | None = Field(None, description="Number of fixes by verdict, if recorded.")
