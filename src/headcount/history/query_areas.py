"""Areas of queries: boxes for the statistics of segments, then the exact shape over columns of positions. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from headcount.counting.fix_columns import B1, F8, I8
from headcount.counting.site import EARTH_RADIUS_M
from headcount.errors import QueryError
from headcount.history.fix_rows import STEPS_PER_DEG
from headcount.history.manifest import Box

MAX_VERTICES = 10_000
#: Half of the way round the Earth.
MAX_RADIUS_M = math.pi * EARTH_RADIUS_M

Inside = Callable[[F8, F8], B1]  # lat_deg, lon_deg, of equal length
#: The same for squares: latitude and longitude of their middles, and half their side.
Overlaps = Callable[[F8, F8, float], B1]
#: Squares that only touch an area do not overlap it.
_TOUCH_DEG = 1e-9
_EARTH: Box = (-180.0, -90.0, 180.0, 90.0)


@dataclass(frozen=True, slots=True)
class Area:
    """Positions in one of the boxes for which `inside` holds, edges included; or all others."""

    boxes: tuple[Box, ...] = (_EARTH,)  # two where the area crosses the 180th meridian
    inside: Inside | None = None  # None: the boxes are the area
    overlaps: Overlaps | None = None  # None: that of the boxes
    is_disjoint: bool = False

    def of_cells(self, size_deg: float) -> Area:
        """The middles of the squares of this size that overlap the area."""
        overlaps, half = self.overlaps, size_deg / 2 - _TOUCH_DEG
        boxes = tuple(
            (west - half, south - half, east + half, north + half) for west, south, east, north in self.boxes
        )
        if overlaps is None:
            return Area(boxes)
        return Area(boxes, lambda lat_deg, lon_deg: overlaps(lat_deg, lon_deg, half))

    def ranges(self) -> list[dict[str, tuple[int, int]]]:
        """Bounds of the stored positions, slightly too wide; one of them holds for each position."""
        boxes = (_EARTH,) if self.is_disjoint else self.boxes
        return [
            {"lat": _steps(south, north), "lon": _steps(west, east)} for west, south, east, north in boxes
        ]

    def touches(self, box: Box | None) -> bool:
        """Whether positions in a box, None is unknown, may be in the area."""
        if box is None or self.is_disjoint:
            return True
        west, south, east, north = box
        return any(w <= east and e >= west and s <= north and n >= south for w, s, e, n in self.boxes)

    def holds(self, lat: I8, lon: I8) -> B1:
        """Which of the stored positions are in the area."""
        lat_deg, lon_deg = lat / STEPS_PER_DEG, lon / STEPS_PER_DEG
        found: B1 = np.zeros(len(lat), np.bool_)
        for west, south, east, north in self.boxes:
            found |= (lat_deg >= south) & (lat_deg <= north) & (lon_deg >= west) & (lon_deg <= east)
        if self.inside is not None:
            which = np.flatnonzero(found)
            found[which] = self.inside(lat_deg[which], lon_deg[which])
        return ~found if self.is_disjoint else found

    @property
    def is_narrow(self) -> bool:
        """Whether positions of most of a site may be outside."""
        return not self.is_disjoint and self.boxes != EVERYWHERE.boxes

    def boxes_only(self) -> Area:
        """The boxes of the area, or everywhere."""
        return EVERYWHERE if self.is_disjoint else Area(self.boxes)

    def within(self, boxes: Sequence[Box]) -> Area | None:
        """The part of the area in some boxes; None if there is none. Not for an area of all others."""
        parts = [
            (max(one[0], two[0]), max(one[1], two[1]), min(one[2], two[2]), min(one[3], two[3]))
            for one in self.boxes
            for two in boxes
        ]
        common = tuple(part for part in parts if part[0] <= part[2] and part[1] <= part[3])
        return replace(self, boxes=common) if common else None

    def outside(self) -> Area:
        """All other positions."""
        return replace(self, is_disjoint=not self.is_disjoint)


EVERYWHERE = Area()


def area_of(
    bbox: Sequence[float] | None = None, within: Any = None, near: Sequence[float] | None = None
) -> Area:
    """The area of a query; without arguments, `EVERYWHERE`.

    Args:
        bbox: west, south, east, north in degrees, as in RFC 7946: over the 180th meridian, east < west.
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
        return centre_of(near).circle()
    return EVERYWHERE


def _box(bbox: Sequence[float]) -> Area:
    west, south, east, north = bbox
    if not (-90 <= south <= north <= 90 and -180 <= west <= 180 and -180 <= east <= 180):
        raise QueryError("bbox", f"{bbox} is not west, south, east, north in degrees")
    return Area(_split(west, south, east, north))


def _split(west: float, south: float, east: float, north: float) -> tuple[Box, ...]:
    """A box, cut at the 180th meridian where it crosses it (RFC 7946, section 5.2)."""
    if west <= east:
        return ((west, south, east, north),)
    return (west, south, 180.0, north), (-180.0, south, east, north)


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

    return Area(((west, south, east, north),), inside, overlaps)


def _from_geojson(value: Any) -> BaseGeometry:
    try:
        text = value if isinstance(value, str) else json.dumps(value)
        shape: BaseGeometry = shapely.from_geojson(text)
    except (TypeError, ValueError, RecursionError, shapely.errors.ShapelyError) as error:
        raise QueryError("within", f"is not a GeoJSON geometry: {error}") from error
    return shape


@dataclass(frozen=True, slots=True)
class Centre:
    """A position in degrees, and the largest distance from it in metres."""

    lat_deg: float
    lon_deg: float
    radius_m: float = MAX_RADIUS_M

    def distances_m(self, lat: I8, lon: I8) -> F8:
        """Distances of stored positions."""
        return distance_m(lat / STEPS_PER_DEG, lon / STEPS_PER_DEG, self.lat_deg, self.lon_deg)

    def circle(self, radius_m: float = MAX_RADIUS_M) -> Area:
        """All positions at most this far away; edges are inside, to a tenth of a millimetre."""
        radius_m = min(radius_m, self.radius_m)
        lat_deg, lon_deg = self.lat_deg, self.lon_deg

        def inside(lat: F8, lon: F8) -> B1:
            return distance_m(lat, lon, lat_deg, lon_deg) <= radius_m

        def overlaps(lat: F8, lon: F8, half: float) -> B1:
            lon = lon + 360 * np.rint((lon_deg - lon) / 360)  # the nearer way round
            return inside(np.clip(lat_deg, lat - half, lat + half), np.clip(lon_deg, lon - half, lon + half))

        return Area(_around(lat_deg, lon_deg, radius_m), inside, overlaps)


def centre_of(near: Sequence[float]) -> Centre:
    """The centre of a query: lat, lon in degrees, and a radius in metres, by default all of the Earth.

    Raises:
        QueryError: it is not on Earth.
    """
    centre = Centre(*near)
    if not (-90 <= centre.lat_deg <= 90 and -180 <= centre.lon_deg <= 180):
        raise QueryError("near", f"{centre.lat_deg}, {centre.lon_deg} is not lat, lon in degrees")
    if not 0 < centre.radius_m <= MAX_RADIUS_M:
        raise QueryError("near", f"{centre.radius_m} m is not a radius on Earth")
    return centre


def distance_m(lat_deg: F8, lon_deg: F8, lat0_deg: float, lon0_deg: float) -> F8:
    """Great-circle distances on the mean sphere by the haversine formula."""
    lat, lat0 = np.radians(lat_deg), math.radians(lat0_deg)
    h = (
        np.sin((lat - lat0) / 2) ** 2
        + np.cos(lat) * math.cos(lat0) * np.sin(np.radians(lon_deg - lon0_deg) / 2) ** 2
    )
    return np.asarray(2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.minimum(h, 1.0))))


def _around(lat_deg: float, lon_deg: float, radius_m: float) -> tuple[Box, ...]:
    """The boxes of a circle; all longitudes where it holds a pole."""
    angle = radius_m / EARTH_RADIUS_M * (1 + 1e-9)
    south, north = lat_deg - math.degrees(angle), lat_deg + math.degrees(angle)
    width = 180.0
    if south > -90 and north < 90:
        width = math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(math.radians(lat_deg))))) + 1e-9
    south, north = max(south, -90.0), min(north, 90.0)
    if width >= 180:
        return ((-180.0, south, 180.0, north),)
    west, east = lon_deg - width, lon_deg + width
    return _split(west + 360 if west < -180 else west, south, east - 360 if east > 180 else east, north)


def _steps(low_deg: float, high_deg: float) -> tuple[int, int]:
    return math.floor(low_deg * STEPS_PER_DEG) - 1, math.ceil(high_deg * STEPS_PER_DEG) + 1
