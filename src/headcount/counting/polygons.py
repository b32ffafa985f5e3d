"""GeoJSON geometries → shapely polygons, or what is wrong with them and how to fix it."""

from __future__ import annotations

import math
import re
from itertools import combinations
from typing import Any

import shapely
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

#: A geometry wider than this goes around the world the wrong way: it crosses the antimeridian.
MAX_WIDTH_DEG = 180.0
#: Larger coordinates are no degrees, whatever their order.
MAX_DEGREES = 360.0

_PLACE = re.compile(r"(?P<what>.+)\[(?P<lon>\S+) (?P<lat>\S+)\]")
#: Share of its area that a part may lie over another: the error of coordinates as floating-point numbers.
_OVERLAP = 1e-9
_CROSSINGS = ("Self-intersection", "Ring Self-intersection")


class PolygonError(ValueError):
    """A geometry can't be the outline of a site or zone."""

    def __init__(self, problem: str, remedy: str) -> None:
        """Take the problem and its remedy, each a sentence without a full stop."""
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}. {remedy}")


def outline(geometry: object) -> BaseGeometry:
    """The polygon or multipolygon of a GeoJSON geometry, outer rings counter-clockwise.

    Windings are corrected (RFC 7946, 3.1.6), altitudes are dropped, and parts that share an edge become one.

    Raises:
        PolygonError: not a polygon, or one that crosses itself, leaves the globe, isn't closed …
    """
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if not isinstance(geometry, dict) or kind not in ("Polygon", "MultiPolygon"):
        found = f"a {kind}" if isinstance(kind, str) else "no geometry"
        raise PolygonError(
            f"has {found} where a Polygon or MultiPolygon is needed", "Draw its outline as a closed polygon"
        )
    parts = [geometry.get("coordinates")] if kind == "Polygon" else geometry.get("coordinates")
    polygons = [_polygon(part) for part in _list(parts, "polygons")]
    shape = polygons[0] if kind == "Polygon" else MultiPolygon(polygons)
    _refuse_antimeridian(shape)
    return shapely.orient_polygons(shape if shape.is_valid else _merged(shape))


def geometry_of(shape: BaseGeometry) -> dict[str, Any]:
    """The GeoJSON geometry of a polygon or multipolygon: lists of [lon, lat] in degrees."""
    if isinstance(shape, Polygon):
        return {"type": "Polygon", "coordinates": _rings(shape)}
    return {"type": "MultiPolygon", "coordinates": [_rings(part) for part in shape.geoms]}


def _rings(polygon: Polygon) -> list[list[list[float]]]:
    rings = [polygon.exterior, *polygon.interiors]
    return [shapely.get_coordinates(ring).tolist() for ring in rings]


def _polygon(rings: object) -> Polygon:
    shell, *holes = [_ring(ring) for ring in _list(rings, "rings")]
    return Polygon(shell, holes)


def _ring(ring: object) -> list[tuple[float, float]]:
    positions = [_position(position) for position in _list(ring, "positions")]
    if positions[0] != positions[-1]:
        raise PolygonError(
            f"has a ring that is not closed: it starts at {place(*positions[0])} "
            f"and ends at {place(*positions[-1])}",
            "Repeat the first position at the end",
        )
    if len(set(positions)) < 3:
        raise PolygonError(
            f"has a ring of too few points near {place(*positions[0])}: {len(set(positions))}",
            "A ring needs at least three different points, and the first one again at the end",
        )
    return positions


def _list(value: object, of: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise PolygonError(
            f"has coordinates without {of}",
            "Coordinates are lists of rings, rings are lists of [longitude, latitude]",
        )
    return value


def _position(value: object) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) < 2 or not all(is_number(x) for x in value[:2]):
        raise PolygonError(
            f"has {str(value)[:40]!r} where a position is needed",
            "A position is [longitude, latitude], two finite numbers in degrees",
        )
    lon, lat = float(value[0]), float(value[1])
    if abs(lat) > 90:
        raise PolygonError(
            f"has the latitude {lat:g}, which is out of range",
            f"A position is [longitude, latitude], the latitude from -90 to 90.{_likely_cause(lon, lat)}",
        )
    if abs(lon) > 180:
        raise PolygonError(
            f"has the longitude {lon:g}, which is out of range",
            f"A position is [longitude, latitude], the longitude from -180 to 180.{_likely_cause(lon, lat)}",
        )
    return lon, lat


def _likely_cause(lon: float, lat: float) -> str:
    if max(abs(lon), abs(lat)) > MAX_DEGREES:
        return " Are these metres of a projection? Then export the file as EPSG:4326 (WGS 84)"
    return " GeoJSON has the longitude first: are the two swapped?" if abs(lon) <= 90 else ""


def is_number(value: object) -> bool:
    """Whether a value from JSON is a finite number (true and false are none)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of more than 308 digits
        return False


def place(lon: float, lat: float) -> str:
    """A position for an error's text, to a hundredth of a metre."""
    return f"longitude {round(lon, 7)}, latitude {round(lat, 7)}"


def _refuse_antimeridian(shape: BaseGeometry) -> None:
    west, _, east, _ = shape.bounds
    if east - west > MAX_WIDTH_DEG:
        raise PolygonError(
            f"crosses the antimeridian (it reaches from longitude {west:g} to {east:g})",
            "Such a site can't be counted: draw it on one side of longitude 180",
        )


def _merged(shape: BaseGeometry) -> BaseGeometry:
    """An invalid shape as a valid one of the same area, if its only fault is that rings share edges.

    Raises:
        PolygonError: it has another fault.
    """
    parts = [_without_holes_at_edges(part) for part in shapely.get_parts(shape)]
    for (i, one), (j, other) in combinations(enumerate(parts, start=1), 2):
        shared = one.intersection(other)
        if shared.area > _OVERLAP * min(one.area, other.area):
            point = shared.representative_point()
            raise PolygonError(
                f"has parts that overlap: number {i} and number {j}, at {place(point.x, point.y)}",
                "Draw them apart, or as one outline",
            )
    return shapely.union_all(parts)


def _without_holes_at_edges(part: Polygon) -> BaseGeometry:
    """A part whose holes may share edges with its outer ring and with each other."""
    if part.is_valid:
        return part
    shell, holes = Polygon(part.exterior), [Polygon(ring) for ring in part.interiors]
    if not all(ring.is_valid for ring in (shell, *holes)):
        raise _invalid(part)
    hollow = shapely.union_all(holes)
    solid = shell.difference(hollow)
    is_nested = hollow.area < sum(hole.area for hole in holes) * (1 - _OVERLAP)
    if is_nested or solid.is_empty or not all(shell.covers(hole) for hole in holes):
        raise _invalid(part)
    return solid


def _invalid(shape: BaseGeometry) -> PolygonError:
    reason = shapely.is_valid_reason(shape)
    found = _PLACE.fullmatch(reason)
    what = found["what"] if found else reason
    where = f" at {place(float(found['lon']), float(found['lat']))}" if found else ""
    if what in _CROSSINGS:
        return PolygonError(
            f"has a ring that crosses itself{where}",
            "Move or remove the points there so that the outline crosses nothing",
        )
    return PolygonError(
        f"is not a valid polygon: {what.lower()}{where}",
        "Holes lie inside their outer ring, and neither rings nor parts may overlap",
    )
