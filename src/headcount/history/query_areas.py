"""Areas of queries: a box for the segments' statistics, then the exact shape.

The box is a condition that DuckDB can push into the files; the shape is a function over columns
of positions that DuckDB calls for what is left.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from headcount.counting.fix_columns import B1, F8
from headcount.counting.site import EARTH_RADIUS_M
from headcount.errors import QueryError

MAX_VERTICES = 10_000
#: Stored positions are multiples of this part of a degree.
STEPS_PER_DEG = 10_000_000

Box = tuple[float, float, float, float]  # west, south, east, north in degrees
Inside = Callable[[F8, F8], B1]  # lat_deg, lon_deg, of equal length
#: The same for squares: latitude and longitude of their middles, and half their side.
Overlaps = Callable[[F8, F8, float], B1]
#: Squares that only touch an area do not overlap it.
_TOUCH_DEG = 1e-9


@dataclass(frozen=True, slots=True)
class Area:
    """Positions in `box` for which `inside` holds; None means everywhere."""

    box: Box | None
    inside: Inside | None
    overlaps: Overlaps | None = None  # None: that of the box

    def of_cells(self, size_deg: float) -> Area:
        """The middles of the squares of this size that overlap the area."""
        if self.box is None:
            return self
        overlaps, half = self.overlaps, size_deg / 2 - _TOUCH_DEG
        west, south, east, north = self.box
        box = (
            max(west - half, -180.0),
            max(south - half, -90.0),
            min(east + half, 180.0),
            min(north + half, 90.0),
        )
        return Area(
            box, None if overlaps is None else lambda lat_deg, lon_deg: overlaps(lat_deg, lon_deg, half)
        )

    @property
    def condition(self) -> str:
        """The area as an SQL condition over `lat` and `lon`, with the placeholders of `values`."""
        if self.box is None:
            return "true"
        text = (
            "lat BETWEEN $south::DECIMAL(9, 7) AND $north::DECIMAL(9, 7) "
            "AND lon BETWEEN $west::DECIMAL(10, 7) AND $east::DECIMAL(10, 7)"
        )
        return text if self.inside is None else f"{text} AND inside(lat::DOUBLE, lon::DOUBLE)"

    @property
    def values(self) -> dict[str, Decimal]:
        """The box as stored positions: exact, not nearly so."""
        if self.box is None:
            return {}
        west, south, east, north = self.box
        return {"west": _up(west), "south": _up(south), "east": _down(east), "north": _down(north)}

    def register(self, connection: Any) -> None:
        """Make the shape known to a DuckDB connection."""
        import pyarrow as pa  # noqa: PLC0415  # only processes that run a query pay for it

        inside = self.inside
        if inside is None:
            return

        def columns(lat: Any, lon: Any) -> Any:  # DuckDB evaluates annotations
            return pa.array(inside(lat.to_numpy(), lon.to_numpy()))

        connection.create_function("inside", columns, ["DOUBLE", "DOUBLE"], "BOOLEAN", type="arrow")


EVERYWHERE = Area(None, None)


def area_of(
    bbox: Sequence[float] | None = None, within: Any = None, near: Sequence[float] | None = None
) -> Area:
    """The area of a query; without arguments, `EVERYWHERE`.

    Args:
        bbox: west, south, east, north in degrees (the order of RFC 7946).
        within: a Polygon or MultiPolygon in lon and lat: GeoJSON geometry or shapely.
        near: lat, lon in degrees and radius in metres, on the sphere.

    Raises:
        QueryError: more than one is given, or it is not a shape on Earth.
    """
    if sum(given is not None for given in (bbox, within, near)) > 1:
        raise QueryError("bbox, within, near", "exclude each other; give one of them")
    if bbox is not None:
        return _box(bbox)
    if within is not None:
        return _polygon(within)
    if near is not None:
        return _circle(*near)
    return EVERYWHERE


def _box(bbox: Sequence[float]) -> Area:
    west, south, east, north = bbox
    if not (-90 <= south <= north <= 90 and -180 <= west <= 180 and -180 <= east <= 180):
        raise QueryError("bbox", f"{bbox} is not west, south, east, north in degrees")
    if west > east:
        raise QueryError("bbox", "west lies east of east; areas over the 180th meridian are not supported")
    return Area((west, south, east, north), None)


def _polygon(within: Any) -> Area:
    shape = within if isinstance(within, BaseGeometry) else _from_geojson(within)
    if shape.geom_type not in ("Polygon", "MultiPolygon") or shape.is_empty:
        raise QueryError("within", f"is a {shape.geom_type or 'nothing'}; give a Polygon or MultiPolygon")
    if shapely.get_num_coordinates(shape) > MAX_VERTICES:
        raise QueryError("within", f"has more than {MAX_VERTICES} vertices; simplify it")
    if not shape.is_valid:
        raise QueryError("within", f"is not a valid polygon: {shapely.is_valid_reason(shape)}")
    west, south, east, north = shape.bounds
    if not (-90 <= south <= north <= 90 and -180 <= west <= east <= 180):
        raise QueryError("within", "lies outside -180 to 180 and -90 to 90 degrees; the order is lon, lat")
    shapely.prepare(shape)

    def inside(lat_deg: F8, lon_deg: F8) -> B1:
        return np.asarray(shapely.intersects_xy(shape, lon_deg, lat_deg))

    def overlaps(lat_deg: F8, lon_deg: F8, half: float) -> B1:
        cells = shapely.box(lon_deg - half, lat_deg - half, lon_deg + half, lat_deg + half)
        return np.asarray(shapely.intersects(shape, cells))

    return Area((west, south, east, north), inside, overlaps)


def _from_geojson(value: Any) -> BaseGeometry:
    try:
        text = value if isinstance(value, str) else json.dumps(value)
        shape: BaseGeometry = shapely.from_geojson(text)
    except (TypeError, ValueError, RecursionError, shapely.errors.ShapelyError) as error:
        raise QueryError("within", f"is not a GeoJSON geometry: {error}") from error
    return shape


def _circle(lat_deg: float, lon_deg: float, radius_m: float) -> Area:
    if not (-90 <= lat_deg <= 90 and -180 <= lon_deg <= 180):
        raise QueryError("near", f"{lat_deg}, {lon_deg} is not lat, lon in degrees")
    if not 0 < radius_m <= math.pi * EARTH_RADIUS_M:
        raise QueryError("near", f"{radius_m} m is not a radius on Earth")

    def inside(lat: F8, lon: F8) -> B1:
        return distance_m(lat, lon, lat_deg, lon_deg) <= radius_m

    def overlaps(lat: F8, lon: F8, half: float) -> B1:
        return inside(np.clip(lat_deg, lat - half, lat + half), np.clip(lon_deg, lon - half, lon + half))

    return Area(_around(lat_deg, lon_deg, radius_m), inside, overlaps)


def distance_m(lat_deg: F8, lon_deg: F8, lat0_deg: float, lon0_deg: float) -> F8:
    """Great-circle distances on the mean sphere by the haversine formula."""
    lat, lat0 = np.radians(lat_deg), math.radians(lat0_deg)
    h = (
        np.sin((lat - lat0) / 2) ** 2
        + np.cos(lat) * math.cos(lat0) * np.sin(np.radians(lon_deg - lon0_deg) / 2) ** 2
    )
    return np.asarray(2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.minimum(h, 1.0))))


def _around(lat_deg: float, lon_deg: float, radius_m: float) -> Box:
    """The box of a circle; all longitudes where it holds a pole or crosses the 180th meridian."""
    angle = radius_m / EARTH_RADIUS_M * (1 + 1e-9)
    south, north = lat_deg - math.degrees(angle), lat_deg + math.degrees(angle)
    everywhere = (-180.0, max(south, -90.0), 180.0, min(north, 90.0))
    if south <= -90 or north >= 90:
        return everywhere
    width = math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(math.radians(lat_deg))))) + 1e-9
    if lon_deg - width < -180 or lon_deg + width > 180:
        return everywhere
    return lon_deg - width, south, lon_deg + width, north


def _up(degrees: float) -> Decimal:
    """The first stored position at or above `degrees`, so that the box is exact."""
    steps = math.floor(degrees * STEPS_PER_DEG) - 1
    while steps / STEPS_PER_DEG < degrees:
        steps += 1
    return Decimal(steps) / STEPS_PER_DEG


def _down(degrees: float) -> Decimal:
    return -_up(-degrees)
