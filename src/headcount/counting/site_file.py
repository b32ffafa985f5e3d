"""The site file: GeoJSON → `Site`, every problem named with its remedy; nothing is read here.

A FeatureCollection (RFC 7946) with one feature of role `site`, the boundary and the defaults, and
any number of features of role `zone`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from headcount.counting.fix_columns import F8
from headcount.counting.polygons import geometry_of
from headcount.counting.reference_system import foreign_system
from headcount.counting.site import Site, Zone
from headcount.counting.site_feature import BOUNDARY, EXPORT_AS_WGS_84, MAX_AMOUNT, FeatureReader
from headcount.errors import SiteError
from headcount.messages.topics import KINDS

ZONE_TYPES = ("building", "car_park", "area", "gate")
#: Zones times kinds times partitions are published up to 40 times a second: this keeps them in bounds.
MAX_ZONES = 4000
#: A site is published as one message: brokers refuse more than 8 MiB.
MAX_SITE_BYTES = 8_000_000

# Defaults of the counting rules; pairs are (person, vehicle).
HOLD_S = (900.0, 300.0)
LEAVE_MARGIN_M = 15.0
LEAVE_MARGIN_ACC = 1.5
MAX_ACCURACY_M = 100.0
MAX_POSITION_AGE_S = 3600.0
MAX_SPEED_MPS = (70.0, 70.0)
FRESH_S = (120.0, 120.0)
OFFLINE_GRACE_S = 60.0

_WHOLE_FILE = "the file"


def parse_site(obj: object, source: str) -> Site:
    """The site of a GeoJSON object; `source` names its file in errors.

    Raises:
        SiteError: the first problem; `check_site` has all of them.
    """
    site, problems = _read(obj, source)
    if site is None or problems:
        raise problems[0]
    return site


def check_site(obj: object, source: str) -> list[SiteError]:
    """All problems of a site file, in the order of its features; empty where it can be used."""
    return _read(obj, source)[1]


def at_speed(site: Site, speed: float) -> Site:
    """The same site for a time-lapse run, in which `speed` seconds of movement pass in one.

    Holds, freshness, ages and grace are divided by `speed`, the largest plausible speeds are multiplied
    by it; distances stay. The GeoJSON holds the same values, and the property `speed` of the site, so
    parsing it gives the same `Site`.
    """
    features = [_feature_at_speed(f, site, speed) for f in site.geojson["features"]]
    return parse_site({**site.geojson, "features": features}, f"{site.id} at speed {speed:g}")


def unscaled(site: Site) -> Site:
    """A site as it was before `at_speed`, so that what a time-lapse run serves can be edited and sent back."""
    boundary = next(f["properties"] for f in site.geojson["features"] if f["properties"]["role"] == "site")
    speed = boundary.get("speed", 1)
    if not isinstance(speed, int | float) or not 0 < speed < MAX_AMOUNT or speed == 1:
        return site
    return at_speed(site, 1 / speed)


def _feature_at_speed(feature: dict[str, Any], site: Site, speed: float) -> dict[str, Any]:
    properties = dict(feature["properties"])
    if properties["role"] == "zone":
        for name in ("hold_s", "fresh_s"):
            own_s = properties.get(name)
            if isinstance(own_s, dict):
                properties[name] = {kind: s / speed for kind, s in own_s.items() if s is not None}
            elif own_s is not None:
                properties[name] = own_s / speed
        return {**feature, "properties": properties}
    properties |= {
        "hold_s": {kind: s / speed for kind, s in zip(KINDS, site.hold_s, strict=True)},
        "max_speed_mps": {
            kind: min(v * speed, MAX_AMOUNT) for kind, v in zip(KINDS, site.max_speed_mps, strict=True)
        },
        "fresh_s": {kind: s / speed for kind, s in zip(KINDS, site.fresh_s, strict=True)},
        "max_position_age_s": site.max_position_age_s / speed,
        "offline_grace_s": site.offline_grace_s / speed,
        "speed": properties.get("speed", 1) * speed,
    }
    return {**feature, "properties": properties}


def _read(obj: object, source: str) -> tuple[Site | None, list[SiteError]]:
    problems: list[SiteError] = []
    features = _features(obj, source, problems)
    boundary = _the_boundary(features, source, problems)
    if boundary is None:
        return None, problems
    site = _site(boundary)
    shapely.prepare(site.zones[0].geometry)
    zones: dict[str, Zone] = {}
    for feature in features:
        if feature is boundary:
            continue
        zone = _zone(feature, site)
        if zone.id in zones:
            feature.note("has an id that another zone has already", "Give each zone an id of its own")
        elif zone.id:
            zones[zone.id] = zone
        if _is_outside(zone.geometry, site.zones[0].geometry):
            feature.note(
                "lies outside the site's boundary",
                "Move it inside, widen the boundary or leave the zone out (positions are [longitude, latitude])",
            )
    if problems or not isinstance(obj, dict):
        return None, problems
    complete = _complete(site, tuple(zones.values()), obj)
    problem = _unpublishable(complete.geojson)
    if problem:
        problems.append(SiteError(source, _WHOLE_FILE, *problem))
    return complete, problems


def _features(obj: object, source: str, problems: list[SiteError]) -> list[FeatureReader]:
    """The features with a role; problems of the whole file and of features without one are noted."""
    raw = obj.get("features") if isinstance(obj, dict) and obj.get("type") == "FeatureCollection" else None
    if not isinstance(raw, list):
        problem = "is not a GeoJSON FeatureCollection"
        remedy = 'Its top level needs "type": "FeatureCollection" and a list "features"'
        problems.append(SiteError(source, _WHOLE_FILE, problem, remedy))
        return []
    system = foreign_system(obj) if isinstance(obj, dict) else None
    if system:
        problems.append(SiteError(source, _WHOLE_FILE, system, EXPORT_AS_WGS_84))
        return []
    if len(raw) > MAX_ZONES + 1:
        problem = f"has {len(raw) - 1} zones, more than {MAX_ZONES}"
        problems.append(SiteError(source, _WHOLE_FILE, problem, "Leave out zones whose counts are not used"))
        return []
    features = [_feature(value, f"features[{i}]", source, problems) for i, value in enumerate(raw)]
    return [feature for feature in features if feature]


def _feature(value: object, where: str, source: str, problems: list[SiteError]) -> FeatureReader | None:
    raw = value if isinstance(value, dict) else {}
    properties = raw.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    role, name = properties.get("role"), properties.get("id")
    noun = role if isinstance(role, str) else "feature"
    label = f'{noun[:80]} "{name[:80]}"' if isinstance(name, str) else where
    feature = FeatureReader(source, label, str(role), properties, raw, problems)
    if raw.get("type") != "Feature":
        feature.note("is not a GeoJSON Feature", 'It needs "type": "Feature", "properties" and "geometry"')
    elif role not in ("site", "zone"):  # a tuple: the value may not be hashable
        found = "no role" if role is None else f"the unknown role {str(role)[:80]!r}"
        feature.note(
            f"has {found}", 'Set the property "role" to "site" for the boundary, to "zone" for a zone'
        )
    else:
        return feature
    return None


def _the_boundary(
    features: list[FeatureReader], source: str, problems: list[SiteError]
) -> FeatureReader | None:
    boundaries = [feature for feature in features if feature.role == "site"]
    if not boundaries and not problems:
        remedy = 'Give the feature of the boundary the property "role": "site"'
        problems.append(SiteError(source, _WHOLE_FILE, "has no feature with the role site", remedy))
    for other in boundaries[1:]:
        other.note("is a second feature with the role site", 'One file is one site: make it a "zone"')
        features.remove(other)
    return boundaries[0] if boundaries else None


def _site(feature: FeatureReader) -> Site:
    """The site with its boundary as the only zone, not yet projected."""
    site_id = feature.id()
    hold_s = feature.pair("hold_s", HOLD_S)
    fresh_s = feature.pair("fresh_s", FRESH_S)
    leave_margin_m = feature.number("leave_margin_m", LEAVE_MARGIN_M)
    geometry = feature.outline() or shapely.Polygon()
    name = feature.text("name", site_id)
    return Site(
        id=site_id,
        name=name,
        timezone=feature.time_zone(feature.text("timezone", "UTC")),
        zones=(
            Zone(
                *(BOUNDARY, name, BOUNDARY, geometry, geometry, feature.capacity()),
                *(hold_s, fresh_s, leave_margin_m),
            ),
        ),
        lat0_deg=0.0 if geometry.is_empty else geometry.centroid.y,
        lon0_deg=0.0 if geometry.is_empty else geometry.centroid.x,
        hold_s=hold_s,
        leave_margin_m=leave_margin_m,
        leave_margin_acc=feature.number("leave_margin_acc", LEAVE_MARGIN_ACC),
        max_accuracy_m=feature.number("max_accuracy_m", MAX_ACCURACY_M),
        max_position_age_s=feature.number("max_position_age_s", MAX_POSITION_AGE_S),
        max_speed_mps=feature.pair("max_speed_mps", MAX_SPEED_MPS),
        fresh_s=fresh_s,
        on_offline_leave=feature.on_offline(),
        offline_grace_s=feature.number("offline_grace_s", OFFLINE_GRACE_S),
        geojson={},
    )


def _zone(feature: FeatureReader, site: Site) -> Zone:
    """A zone, not yet projected; its geometry is empty where the outline has a problem."""
    zone_id = feature.id()
    zone_type = feature.properties.get("type")
    if not isinstance(zone_type, str) or zone_type not in ZONE_TYPES:
        found = "no type" if zone_type is None else f"the unknown type {str(zone_type)[:80]!r}"
        feature.note(f"has {found}", f'Set the property "type" to one of {", ".join(ZONE_TYPES)}')
    geometry = feature.outline() or shapely.Polygon()
    return Zone(
        id=zone_id,
        name=feature.text("name", zone_id),
        type=str(zone_type),
        geometry=geometry,
        plane=geometry,
        capacity=feature.capacity(),
        hold_s=feature.pair("hold_s", site.hold_s),
        fresh_s=feature.pair("fresh_s", site.fresh_s),
        leave_margin_m=feature.number("leave_margin_m", site.leave_margin_m),
    )


def _is_outside(zone: BaseGeometry, boundary: BaseGeometry) -> bool:
    if zone.is_empty or boundary.is_empty:
        return False
    return not boundary.intersects(zone) or bool(boundary.touches(zone))


def _complete(site: Site, zones: tuple[Zone, ...], obj: dict[str, Any]) -> Site:
    """Project all zones to the plane, and write the corrected outlines into the GeoJSON."""
    every = (*site.zones, *zones)
    outlines = np.array([zone.geometry for zone in every], dtype=object)

    def to_plane(lon_lat_deg: F8) -> F8:
        return np.column_stack(site.project(lon_lat_deg[:, 1], lon_lat_deg[:, 0]))

    planes = shapely.transform(outlines, to_plane)
    corrected = {zone.id: geometry_of(zone.geometry) for zone in every}
    features = [{**raw, "geometry": corrected[_zone_id(raw)]} for raw in obj["features"]]
    return replace(
        site,
        zones=tuple(replace(zone, plane=plane) for zone, plane in zip(every, planes, strict=True)),
        geojson={**obj, "features": features},
    )


def _unpublishable(geojson: dict[str, Any]) -> tuple[str, str] | None:
    """Why a site can't be sent to other programs, and the remedy."""
    try:
        msgspec.json.encode(geojson)
        size = len(json.dumps(geojson))
    except (ValueError, OverflowError, RecursionError) as error:
        return f"has a value that cannot be published: {error}", "Remove it, or write it as ordinary text"
    if size <= MAX_SITE_BYTES:
        return None
    problem = f"has {size} bytes, more than {MAX_SITE_BYTES} for one message"
    return problem, "Simplify its outlines, or leave out zones and properties that are not used"


def _zone_id(raw: dict[str, Any]) -> str:
    properties = raw["properties"]
    return BOUNDARY if properties["role"] == "site" else str(properties["id"])
