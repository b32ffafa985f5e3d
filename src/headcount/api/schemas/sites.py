"""Sites and their zones."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from headcount.api.schemas.base import OpenSchema, Schema


class SiteLinks(Schema):
    """Addresses of a site's resources."""

    self: str
    counts: str
    stream: str
    websocket: str


class SiteEntry(Schema):
    """A site in the list."""

    id: str
    name: str
    timezone: str
    zones: int = Field(description="Number of zones, including the boundary.")
    bbox: list[float] = Field(description="West, south, east, north in degrees.")
    links: SiteLinks


class SiteListResponse(Schema):
    """The sites that the caller may see."""

    sites: list[SiteEntry]


class SiteFeature(OpenSchema):
    """A GeoJSON feature (RFC 7946)."""

    type: Literal["Feature"]
    geometry: dict[str, Any]
    properties: dict[str, Any]


class SiteResponse(OpenSchema):
    """The site file: one feature with the role `site`, the others with the role `zone`."""

    type: Literal["FeatureCollection"]
    features: list[SiteFeature]


class SiteMovedZone(Schema):
    """A zone with another outline."""

    zone: str
    area_before_m2: float
    area_after_m2: float


class SiteRenamedZone(Schema):
    """A zone with another name."""

    zone: str
    before: str
    after: str


class SiteChanges(Schema):
    """The differences from the version before; none of a new site."""

    added: list[str] = Field(description="Ids of new zones.")
    removed: list[str] = Field(description="Ids of zones that are gone.")
    renamed: list[SiteRenamedZone]
    moved: list[SiteMovedZone]
    changed: dict[str, list[str]] = Field(description="Other properties that differ, by zone.")


class SiteRemovalResponse(Schema):
    """The version that removes a site."""

    version: int = Field(description="Its number.")
    effective: str = Field(description="When it takes effect: some seconds after it was accepted.")


class SiteUpdateResponse(Schema):
    """An accepted version of a site."""

    version: int = Field(description="Its number, counted from 1.")
    effective: str = Field(description="When it takes effect: some seconds after it was accepted.")
    changes: SiteChanges
