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
    """The sites that this API serves."""

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


SITES: dict[str, Any] = {
    "sites": [
        {
            "id": "ul",
            "name": "University of Limerick",
            "timezone": "Europe/Dublin",
            "zones": 120,
            "bbox": [-8.589, 52.668, -8.552, 52.681],
            "links": {
                "self": "/v1/sites/ul",
                "counts": "/v1/sites/ul/counts",
                "stream": "/v1/sites/ul/stream",
                "websocket": "/v1/sites/ul/ws",
            },
        }
    ]
}
_BOUNDARY = [[[-8.58, 52.67], [-8.56, 52.67], [-8.56, 52.68], [-8.58, 52.68], [-8.58, 52.67]]]
_ZONE = [[[-8.573, 52.673], [-8.572, 52.673], [-8.572, 52.674], [-8.573, 52.674], [-8.573, 52.673]]]
SITE: dict[str, Any] = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": _BOUNDARY},
            "properties": {
                "role": "site",
                "id": "ul",
                "name": "University of Limerick",
                "timezone": "Europe/Dublin",
            },
        },
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": _ZONE},
            "properties": {
                "role": "zone",
                "id": "library",
                "name": "Glucksman Library",
                "type": "building",
                "capacity": {"person": 1100},
            },
        },
    ],
}
