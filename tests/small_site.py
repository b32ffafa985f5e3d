"""Small sites for tests: squares in thousandths of a degree, at 50 degrees north on the meridian."""

from __future__ import annotations

from typing import Any

from headcount.counting.site import Site
from headcount.counting.site_file import parse_site


def square(x: float, y: float, size: float) -> dict[str, Any]:
    """A square with this corner, in thousandths of a degree."""
    corners = [(x, y), (x + size, y), (x + size, y + size), (x, y + size), (x, y)]
    return {"type": "Polygon", "coordinates": [[[a / 1000, 50 + b / 1000] for a, b in corners]]}


def feature(geometry: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """A GeoJSON feature."""
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def site_of(*zones: dict[str, Any]) -> Site:
    """A site of about 700 by 1100 metres with these zones."""
    boundary = feature(square(0, 0, 10), role="site", id="s")
    return parse_site({"type": "FeatureCollection", "features": [boundary, *zones]}, "test")


def small_site() -> Site:
    """Two buildings, a lawn, a car park for 40 cars, an entrance."""
    return site_of(
        feature(square(2, 2, 1), role="zone", id="b1", type="building"),
        feature(square(6, 7, 1.5), role="zone", id="library", name="Library", type="building"),
        feature(square(4, 4, 1), role="zone", id="lawn", type="area"),
        feature(square(7, 2, 1), role="zone", id="p1", type="car_park", capacity={"vehicle": 40}),
        feature(square(9.7, 4, 0.3), role="zone", id="gate", type="gate"),
    )
