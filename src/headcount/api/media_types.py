"""Responses whose body is text already."""

from __future__ import annotations

from starlette.responses import Response

GEOJSON = "application/geo+json"
CSV = "text/csv; charset=utf-8"


class Json(Response):
    """JSON."""

    media_type = "application/json"


class GeoJson(Response):
    """GeoJSON (RFC 7946)."""

    media_type = GEOJSON


class Csv(Response):
    """A table (RFC 4180)."""

    media_type = CSV
