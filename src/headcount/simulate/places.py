"""Places of a crowd: points in buildings, on lawns and in car parks, gates, and points outside."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from headcount.counting.fix_columns import B1, F8, I8
from headcount.counting.site import EARTH_RADIUS_M, Site, Zone

#: Points prepared for each place; a stay is at one of them.
POINTS_PER_PLACE = 64
#: Distance of a place's points from its walls, if it is wide enough.
WALL_M = 2.0
#: Distance from the boundary at which a device is certainly outside: the default margin, and 3 sigma of GPS.
OUTSIDE_M = 60.0
#: Square metres of a car park per car, lanes included; used without a given capacity.
CAR_M2 = 25.0
#: Number of entrances of a site without gates.
ENTRANCES = 6
_FOOD = ("canteen", "restaurant", "cafe", "café", "dining", "food", "union", "bar", "student cent")


@dataclass(frozen=True, slots=True)
class Places:
    """L places with `POINTS_PER_PLACE` points each, and G entrances. Coordinates are metres in the site's plane.

    `works`, `food`, `books`, `lawns` and `parks` are indices of places; only `lawns` may be empty.
    """

    x_m: F8  # [L, POOL]
    y_m: F8  # [L, POOL]
    is_indoors: B1  # [L]
    area_m2: F8  # [L]
    works: I8
    food: I8
    books: I8
    lawns: I8
    parks: I8
    park_capacity: list[int]  # for each of `parks`
    gate_x_m: F8  # [G]
    gate_y_m: F8
    out_x_m: F8  # [G] a point outside, beyond each gate
    out_y_m: F8


def find_places(site: Site, rng: np.random.Generator) -> Places:
    """Find the places of any site; other zones replace missing types."""
    boundary = site.zones[0]
    zones = [zone for zone in site.zones[1:] if zone.type != "gate"] or [boundary]
    points = [_points(zone.plane, boundary.plane, rng) for zone in zones]
    works = _indices(zones, "building") or list(range(len(zones)))
    parks = _indices(zones, "car_park") or _indices(zones, "area") or [int(rng.integers(len(zones)))]
    gate_x, gate_y = _entrances(site, rng)
    outside = [_beyond(boundary.plane, x, y) for x, y in zip(gate_x, gate_y, strict=True)]
    return Places(
        x_m=np.array([x for x, _ in points]),
        y_m=np.array([y for _, y in points]),
        is_indoors=np.array([zone.type == "building" for zone in zones]),
        area_m2=np.array([max(zone.plane.area, 1.0) for zone in zones]),
        works=np.array(works),
        food=np.array(_named(zones, works, _FOOD) or _some(works, 2, rng)),
        books=np.array(_named(zones, works, ("library",)) or _some(works, 1, rng)),
        lawns=np.array(_indices(zones, "area"), np.int64),
        parks=np.array(parks),
        park_capacity=[_capacity(zones[index]) for index in parks],
        gate_x_m=gate_x,
        gate_y_m=gate_y,
        out_x_m=np.array([x for x, _ in outside]),
        out_y_m=np.array([y for _, y in outside]),
    )


def to_degrees(site: Site, x_m: F8, y_m: F8) -> tuple[F8, F8]:
    """Latitude and longitude of points in the plane: the inverse of `Site.project`."""
    lat = site.lat0_deg + np.degrees(y_m / EARTH_RADIUS_M)
    lon = site.lon0_deg + np.degrees(x_m / (EARTH_RADIUS_M * math.cos(math.radians(site.lat0_deg))))
    return lat, lon


def _indices(zones: list[Zone], type_: str) -> list[int]:
    return [index for index, zone in enumerate(zones) if zone.type == type_]


def _named(zones: list[Zone], among: list[int], words: Iterable[str]) -> list[int]:
    return [index for index in among if any(word in zones[index].name.lower() for word in words)]


def _some(among: list[int], number: int, rng: np.random.Generator) -> list[int]:
    return [int(index) for index in rng.choice(among, min(number, len(among)), replace=False)]


def _capacity(park: Zone) -> int:
    given = park.capacity[1]
    return max(3, int(park.plane.area / CAR_M2)) if given is None else given


def _points(plane: BaseGeometry, boundary: BaseGeometry, rng: np.random.Generator) -> tuple[F8, F8]:
    """`POINTS_PER_PLACE` points in the part of a zone that is on site, drawn by rejection sampling."""
    whole = plane.intersection(boundary)
    inner = whole.buffer(-WALL_M)
    room = whole if inner.is_empty else inner
    x_low, y_low, x_high, y_high = room.bounds
    x, y = np.zeros(0), np.zeros(0)
    for _ in range(50):
        more_x, more_y = (
            rng.uniform(x_low, x_high, 4 * POINTS_PER_PLACE),
            rng.uniform(y_low, y_high, 4 * POINTS_PER_PLACE),
        )
        inside = shapely.contains_xy(room, more_x, more_y)
        x, y = np.append(x, more_x[inside]), np.append(y, more_y[inside])
        if len(x) >= POINTS_PER_PLACE:
            return x[:POINTS_PER_PLACE], y[:POINTS_PER_PLACE]
    middle = room.representative_point()  # a sliver, which hardly covers its bounds
    return np.full(POINTS_PER_PLACE, middle.x), np.full(POINTS_PER_PLACE, middle.y)


def _entrances(site: Site, rng: np.random.Generator) -> tuple[F8, F8]:
    gates = [zone.plane.representative_point() for zone in site.zones if zone.type == "gate"]
    if not gates:
        ring = max(shapely.get_parts(site.zones[0].plane), key=lambda part: float(part.area)).exterior
        shift = rng.uniform(0, 1 / ENTRANCES)
        gates = [ring.interpolate(shift + index / ENTRANCES, normalized=True) for index in range(ENTRANCES)]
    return np.array([gate.x for gate in gates]), np.array([gate.y for gate in gates])


def _beyond(boundary: BaseGeometry, x: float, y: float) -> tuple[float, float]:
    """A point at least `OUTSIDE_M` outside, as close to the gate as possible."""
    edge = shapely.shortest_line(boundary.boundary, shapely.Point(x, y)).coords[0]
    directions = np.radians(np.arange(0, 360, 10))
    for distance_m in OUTSIDE_M * np.geomspace(1.5, 100, 12):
        around = shapely.points(
            edge[0] + distance_m * np.cos(directions), edge[1] + distance_m * np.sin(directions)
        )
        clear_m = shapely.distance(around, boundary)
        best = int(np.argmax(clear_m))
        if clear_m[best] >= OUTSIDE_M:
            return float(around[best].x), float(around[best].y)
    bounds = boundary.bounds
    return bounds[2] + OUTSIDE_M, bounds[3] + OUTSIDE_M
