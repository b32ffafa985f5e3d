"""A synthetic campus with any number of zones, for benchmarks."""

from __future__ import annotations

import json
import math

import numpy as np
import shapely

from headcount.counting.fix_columns import F8
from headcount.counting.site import Site
from headcount.counting.site_file import parse_site

#: Distance of buildings in both directions: more zones make a larger campus.
SPACING_M = 150.0
#: Length and width of the campus with overlapping zones.
OVERLAPPING_SIDE_M = 1600.0
LAT0, LON0 = 52.67, -8.57
M_PER_DEGREE = 111_195.0


def side(zones: int) -> float:
    """Length and width of the campus in metres."""
    return SPACING_M * math.ceil(math.sqrt(zones))


def campus(zones: int, seed: int) -> Site:
    """A square campus with a grid of buildings of 40 to 90 m, with random offsets and angles."""
    rng = np.random.default_rng(seed)
    side_m = side(zones)
    per_side = math.ceil(math.sqrt(zones))
    features = [feature("site", "campus", None, rectangle(0.0, 0.0, side_m, side_m, 0.0))]
    for i in range(zones):
        x_m = (i % per_side + 0.5) * SPACING_M - side_m / 2 + rng.uniform(-15, 15)
        y_m = (i // per_side + 0.5) * SPACING_M - side_m / 2 + rng.uniform(-15, 15)
        width, height = rng.uniform(40, 90, 2)
        outline = rectangle(x_m, y_m, width, height, rng.uniform(0, 90))
        features.append(feature("zone", f"z{i}", "building", outline))
    return parse_site({"type": "FeatureCollection", "features": features}, "bench")


def overlapping(zones: int, seed: int) -> Site:
    """A square campus of 1.6 km with circles of 120 to 480 m around random points: about 40 of 300 cover each point."""
    rng = np.random.default_rng(seed)
    half_m = OVERLAPPING_SIDE_M / 2
    features = [feature("site", "campus", None, rectangle(0.0, 0.0, 2 * half_m, 2 * half_m, 0.0))]
    for i, radius_m in enumerate(rng.uniform(120, 480, zones).tolist()):
        x_m, y_m = rng.uniform(radius_m - half_m, half_m - radius_m, 2)
        circle = _in_degrees(shapely.Point(x_m, y_m).buffer(radius_m))
        features.append(feature("zone", f"z{i}", "area", circle))
    return parse_site({"type": "FeatureCollection", "features": features}, "bench")


def _in_degrees(shape: shapely.Polygon) -> shapely.Polygon:
    return shapely.transform(shape, lambda p: np.stack(degrees(p[:, 0], p[:, 1])[::-1], axis=1))


def rectangle(x_m: float, y_m: float, width_m: float, height_m: float, turn: float) -> shapely.Polygon:
    """A rectangle around a position, turned by degrees, in WGS 84."""
    box = shapely.box(x_m - width_m / 2, y_m - height_m / 2, x_m + width_m / 2, y_m + height_m / 2)
    angle = np.radians(turn)
    turned = shapely.transform(
        box,
        lambda p: np.stack(
            [
                x_m + (p[:, 0] - x_m) * np.cos(angle) - (p[:, 1] - y_m) * np.sin(angle),
                y_m + (p[:, 0] - x_m) * np.sin(angle) + (p[:, 1] - y_m) * np.cos(angle),
            ],
            axis=1,
        ),
    )
    return _in_degrees(turned)


def degrees(x_m: F8, y_m: F8) -> tuple[F8, F8]:
    """Latitude and longitude of positions east and north of the centre."""
    return LAT0 + y_m / M_PER_DEGREE, LON0 + x_m / (M_PER_DEGREE * math.cos(math.radians(LAT0)))


def feature(role: str, name: str, type_: str | None, shape: shapely.Polygon) -> dict[str, object]:
    """A feature of a site file; the boundary has no type."""
    properties = {"role": role, "id": name, "name": name} | ({"type": type_} if type_ else {})
    return {"type": "Feature", "properties": properties, "geometry": json.loads(shapely.to_geojson(shape))}
