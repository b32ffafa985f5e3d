"""Random site files with star-shaped, rectangular, nested, holed, tiny and scattered zones.

All choices come from the given `Random`: a seeded one for large cases, that of hypothesis for small ones, which
hypothesis can shrink.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from random import Random
from typing import Any

import shapely
from shapely.geometry import MultiPolygon, Polygon, mapping, shape
from shapely.geometry.base import BaseGeometry

EARTH_RADIUS_M = 6_371_008.8
CENTRES = ((52.6738, -8.5725), (-33.9173, 151.2313), (0.0, 0.0), (69.6796, 18.9713), (30.27, -97.74))
XY = tuple[float, float]


@dataclass(frozen=True)
class Scenario:
    """A site file, and its critical positions: vertices, points on edges and close to them."""

    geojson: dict[str, Any]
    centre: XY  # lat, lon in degrees
    radius_m: float
    spots: list[XY]  # lat, lon in degrees; vertices exactly as in the file
    waits_s: list[float]  # holds, freshness and grace: waiting times that change counts

    def degrees(self, x_m: float, y_m: float) -> XY:
        """Latitude and longitude of a position east and north of the centre."""
        return degrees(self.centre, x_m, y_m)


def degrees(centre: XY, x_m: float, y_m: float) -> XY:
    """Latitude and longitude of a position east and north of the centre."""
    lat, lon = centre
    east = math.degrees(x_m / EARTH_RADIUS_M / math.cos(math.radians(lat)))
    return lat + math.degrees(y_m / EARTH_RADIUS_M), lon + east


def random_scenario(rng: Random, max_zones: int = 12) -> Scenario:
    """A site of up to a kilometre with at most `max_zones` zones."""
    centre = rng.choice(CENTRES)
    places = rng.choice((None, 7))  # decimal places of the file: all, or as on a map
    radius = rng.choice((60.0, 250.0, 500.0))
    boundary = _boundary(rng, radius)
    areas: list[Polygon | MultiPolygon] = []
    for _ in range(rng.randint(0, max_zones)):
        area = _zone(rng, areas, radius)
        if _overlaps(area, boundary):
            areas.append(area)
    geometries = [_to_degrees(centre, area, places) for area in (boundary, *areas)]
    # rounded, a zone may be invalid, or only touch the boundary
    kept = [g for i, g in enumerate(geometries) if i == 0 or (g.is_valid and _overlaps(g, geometries[0]))]
    rules = [_site_rules(rng), *({"id": f"z{i}", **_zone_rules(rng)} for i in range(1, len(kept)))]
    features = [
        {"type": "Feature", "properties": own, "geometry": mapping_of(g)}
        for own, g in zip(rules, kept, strict=True)
    ]
    geojson = {"type": "FeatureCollection", "features": features}
    return Scenario(geojson, centre, radius, _spots(rng, kept), _waits(rules))


def changed_site(rng: Random, geojson: dict[str, Any]) -> dict[str, Any]:
    """Another version of a site: zones moved, scaled, removed, added and reordered; sometimes another boundary."""
    boundary, *zones = geojson["features"]
    if rng.random() < 0.4:
        boundary = _moved_feature(rng, boundary)
    if rng.random() < 0.4:
        boundary = {**boundary, "properties": _site_rules(rng)}
    features = [zone for zone in zones if rng.random() < 0.8]
    features = [_moved_feature(rng, zone) if rng.random() < 0.4 else zone for zone in features]
    ids = {zone["properties"]["id"] for zone in features}
    for zone in zones:
        new_id = rng.choice((zone["properties"]["id"], f"n{rng.randint(0, 9)}"))
        if rng.random() < 0.2 and new_id not in ids:
            ids.add(new_id)
            features.append({**_moved_feature(rng, zone), "properties": {"id": new_id, **_zone_rules(rng)}})
    rng.shuffle(features)
    outline = shape(boundary["geometry"])
    kept = [f for f in features if _overlaps(shape(f["geometry"]), outline)]
    return {**geojson, "features": [boundary, *kept]}


def _moved_feature(rng: Random, feature: dict[str, Any]) -> dict[str, Any]:
    """A feature moved or scaled; its own geometry where that would be invalid."""
    geometry = shape(feature["geometry"])
    west, south, east, north = geometry.bounds
    by = rng.choice((0.0, 0.05, 0.5))
    moved = shapely.affinity.translate(geometry, by * (east - west), rng.choice((-by, by)) * (north - south))
    factor = rng.choice((1.0, 0.7, 1.2))
    moved = shapely.affinity.scale(moved, factor, factor)
    is_valid = moved.is_valid and shapely.get_coordinates(moved)[:, 1].max() < 85
    return {**feature, "geometry": mapping_of(moved) if is_valid else feature["geometry"]}


def _overlaps(area: BaseGeometry, boundary: BaseGeometry) -> bool:
    return bool(area.intersects(boundary)) and not area.touches(boundary)


def mapping_of(geometry: Polygon | MultiPolygon) -> dict[str, Any]:
    """The GeoJSON geometry: lists of [lon, lat], outer rings counter-clockwise."""
    raw = mapping(shapely.orient_polygons(geometry))
    parts = [raw["coordinates"]] if raw["type"] == "Polygon" else raw["coordinates"]
    lists = [[[list(position) for position in ring] for ring in part] for part in parts]
    return {"type": raw["type"], "coordinates": lists[0] if raw["type"] == "Polygon" else lists}


def _star(rng: Random, x: float, y: float, radius: float) -> Polygon:
    corners = rng.randint(3, 10)
    turns = [(i + 0.4 * rng.random()) / corners for i in range(corners)]
    reach = [radius * (0.3 + 0.7 * rng.random()) for _ in turns]
    around = [(math.cos(math.tau * a), math.sin(math.tau * a)) for a in turns]
    return Polygon([(x + r * c, y + r * s) for r, (c, s) in zip(reach, around, strict=True)])


def _rectangle(rng: Random, x: float, y: float, radius: float) -> Polygon:
    return shapely.box(
        x - radius, y - radius * (0.2 + rng.random()), x + radius, y + radius * (0.2 + rng.random())
    )


def _shrunk(area: Polygon, x: float, y: float, factor: float) -> Polygon:
    return shapely.affinity.scale(area, factor, factor, origin=(x, y))


def _holed(rng: Random, x: float, y: float, radius: float) -> Polygon:
    star = _star(rng, x, y, radius)
    return Polygon(star.exterior, [_shrunk(star, x, y, 0.1 + 0.7 * rng.random()).exterior])


def _boundary(rng: Random, radius: float) -> Polygon | MultiPolygon:
    shape = rng.choice(("star", "star", "rectangle", "holed", "two"))
    if shape == "two":
        return MultiPolygon([_star(rng, 0, 0, radius), _star(rng, 2.2 * radius, 0, radius)])
    return {"star": _star, "rectangle": _rectangle, "holed": _holed}[shape](rng, 0, 0, radius)


def _zone(rng: Random, before: list[Polygon | MultiPolygon], radius: float) -> Polygon | MultiPolygon:
    x, y = (rng.uniform(-radius, radius) for _ in "xy")
    size = radius * rng.choice((0.1, 0.3, 0.8))
    shape = rng.choice(("star", "rectangle", "holed", "tiny", "scattered", "nested", "again", "beside"))
    if shape in {"nested", "again", "beside"} and before:
        model = rng.choice(before)
        if shape == "again":
            return model
        if shape == "beside":
            west, _, east, _ = model.bounds
            return shapely.affinity.translate(model, east - west, 0)
        return _shrunk(model, model.centroid.x, model.centroid.y, 0.2 + 0.7 * rng.random())
    if shape == "tiny":
        return _star(rng, x, y, 0.5 + 3 * rng.random())
    if shape == "scattered":
        return MultiPolygon([_star(rng, x + 2.5 * size * i, y, size) for i in range(rng.randint(1, 3))])
    if shape == "holed":
        return _holed(rng, x, y, size)
    return _rectangle(rng, x, y, size) if shape == "rectangle" else _star(rng, x, y, size)


def _to_degrees(centre: XY, area: Polygon | MultiPolygon, places: int | None) -> Polygon | MultiPolygon:
    def convert(x: float, y: float) -> XY:
        lat, lon = degrees(centre, x, y)
        return (lon, lat) if places is None else (round(lon, places), round(lat, places))

    return shapely.transform(area, lambda xy: [convert(x, y) for x, y in xy])


def _site_rules(rng: Random) -> dict[str, Any]:
    rules: dict[str, Any] = {"role": "site", "id": "campus", "name": "Campus", "timezone": "UTC"}
    choices: dict[str, tuple[Any, ...]] = {
        "hold_s": ({"person": 100, "vehicle": 40}, {"vehicle": 60}, 45),
        "leave_margin_m": (0, 5, 40),
        "leave_margin_acc": (0, 0.2, 1, 3),
        "max_accuracy_m": (30, 150),
        "max_position_age_s": (0, 30, 120),
        "max_speed_mps": ({"person": 4}, {"person": 10, "vehicle": 30}, 8),
        "fresh_s": (20, 60, {"person": 45}, {"person": 20, "vehicle": 200}),
        "on_offline": ("leave", {"person": "leave"}, {"vehicle": "leave", "person": "stay"}),
        "offline_grace_s": (0, 15),
    }
    for name, values in choices.items():
        if rng.random() < 0.5:
            rules[name] = rng.choice(values)
    return rules


def _zone_rules(rng: Random) -> dict[str, Any]:
    rules: dict[str, Any] = {"role": "zone", "type": rng.choice(("building", "car_park", "area", "gate"))}
    if rng.random() < 0.3:
        rules["hold_s"] = rng.choice(({"vehicle": 43200}, {"person": 10, "vehicle": 2000}, {"person": 1000}))
    if rng.random() < 0.4:
        rules["leave_margin_m"] = rng.choice((0, 1.5, 3, 25))
    if rng.random() < 0.3:
        rules["fresh_s"] = rng.choice((30, {"vehicle": 43200}, {"person": 10, "vehicle": 45}))
    return rules


def _waits(rules: list[dict[str, Any]]) -> list[float]:
    waits = {900.0, 300.0, 120.0, 60.0, 3_600.0, 86_400.0}
    for own in rules:
        for name in ("hold_s", "fresh_s", "offline_grace_s", "max_position_age_s"):
            value = own.get(name, 60.0)
            waits.update(value.values() if isinstance(value, dict) else [value])
    return sorted(waits)


def _spots(rng: Random, geometries: list[Polygon | MultiPolygon]) -> list[XY]:
    spots: list[XY] = []
    for geometry in geometries:
        corners = [(lat, lon) for lon, lat in shapely.get_coordinates(geometry).tolist()]
        spots += corners
        for (lat, lon), (lat2, lon2) in itertools.pairwise(corners):
            part = rng.choice((0.5, rng.random()))
            at = (lat + part * (lat2 - lat), lon + part * (lon2 - lon))
            nudge = rng.choice((0.0, 1e-12, 1e-9, 1e-7, 1e-5, 1e-4))
            spots += [at, (at[0] + nudge, at[1] - nudge), (at[0] - nudge, at[1] + nudge)]
    return spots
