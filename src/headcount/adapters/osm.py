"""Import of a site from OpenStreetMap data: the boundary of a campus, its buildings and car parks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from headcount.adapters.osm_areas import OsmArea, read_areas
from headcount.adapters.osm_elements import Position, open_source
from headcount.adapters.osm_tags import (
    CAMPUS,
    Tags,
    capacity,
    id_from,
    is_unnamed_shed,
    label,
    name,
    slug,
    zone_type,
)
from headcount.counting.polygons import geometry_of
from headcount.counting.site import EARTH_RADIUS_M
from headcount.counting.site_feature import BOUNDARY
from headcount.counting.site_file import MAX_ZONES, parse_site
from headcount.counting.site_warnings import site_warnings
from headcount.errors import SiteError

ATTRIBUTION = "© OpenStreetMap contributors, ODbL 1.0"  # as the licence requires
#: Parked cars do not report: they are counted for this long (half a day).
CAR_PARK_HOLD_S = 43_200
#: At most this many candidates or sheds are listed.
_MAX_LISTED = 10
_INCOMPLETE = (
    "Export the whole campus, with all members of its relation; with the Overpass API, use `out geom;`"
)


@dataclass(frozen=True)
class ImportedSite:
    """An imported site."""

    geojson: dict[str, Any]
    candidates: list[str]  # one line for each possible boundary, the chosen one first
    left_out: list[str]  # one line for each omitted area or capacity, with the reason
    warnings: list[str]


@dataclass(frozen=True)
class _OsmPlace:
    """An area with its polygon."""

    ref: str
    tags: Tags
    polygon: BaseGeometry

    @property
    def title(self) -> str:
        own = name(self.tags)
        return f'{self.ref} "{own}"' if own else self.ref

    @property
    def area_m2(self) -> float:
        degree_m = math.radians(1.0) * EARTH_RADIUS_M
        lat_deg = self.polygon.centroid.y
        return float(self.polygon.area) * degree_m**2 * math.cos(math.radians(lat_deg))


@dataclass
class _Zones:
    """The places that become zones, and the omitted ones."""

    zones: list[_OsmPlace] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    sheds: list[str] = field(default_factory=list)  # references


def site_from_osm(
    path: Path,
    boundary: str | None = None,
    site_id: str | None = None,
    timezone: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
    *,
    with_sheds: bool = False,
) -> ImportedSite:
    """Import the site of a campus: buildings and car parks with more than half of their area inside.

    Args:
        path: .osm, .osm.gz, .osm.bz2, .osm.pbf, or .json from the Overpass API (`out geom;`).
        boundary: name of the area that is the boundary, or `way/12` or `relation/34`; default: any area tagged
            `amenity=university` or `amenity=college`. Of several, the one nearest to the middle is chosen.
        site_id: the site's id; default: derived from the boundary's name.
        timezone: the site's time zone; default: none in the file, which means UTC.
        progress: called with a description of each step.
        with_sheds: whether sheds, garages and the like without a name become zones, too.

    Raises:
        SiteError: the file cannot be read, is not complete, has no such boundary or no zone in it, or id or
            time zone are not valid.
    """

    def wanted(ref: str, tags: Tags) -> bool:
        return _is_boundary(ref, tags, boundary) or zone_type(tags) is not None

    source = open_source(path)
    areas = read_areas(source, wanted, progress)
    progress(f"building {len(areas)} polygons")
    places = [_OsmPlace(area.ref, area.tags, area.polygon()) for area in areas]
    candidates = _boundaries(places, boundary, source.centre, str(path))
    campus = candidates[0][0]
    found = _zones(areas, places, campus, with_sheds=with_sheds)
    lines = [_candidate_line(place, zones) for place, zones in candidates]
    lines += [
        f"{place.title}: not complete in this file"
        for place in places
        if place.polygon.is_empty and _is_boundary(place.ref, place.tags, boundary)
    ]
    if not found.zones:
        raise _no_zones(str(path), campus, lines[1:], found)
    zones = _zone_features(found.zones, found.left_out)
    geojson = {
        "type": "FeatureCollection",
        "attribution": ATTRIBUTION,
        "features": [_site_feature(campus, site_id, timezone), *zones],
    }
    warnings = site_warnings(parse_site(geojson, str(path)))
    return ImportedSite(geojson, lines, found.left_out + _shed_line(found.sheds), warnings)


def _is_boundary(ref: str, tags: Tags, boundary: str | None) -> bool:
    if boundary is None:
        return tags.get("amenity") in CAMPUS
    return ref == boundary or name(tags).casefold() == boundary.strip().casefold()


def _boundaries(
    places: list[_OsmPlace], boundary: str | None, centre: Position | None, source: str
) -> list[tuple[_OsmPlace, int]]:
    """The possible boundaries with the number of buildings and car parks in each, the best one first."""
    named = [place for place in places if _is_boundary(place.ref, place.tags, boundary)]
    whole = [place for place in named if not place.polygon.is_empty]
    if not whole:
        raise _no_boundary(named, boundary, source)
    points = np.array(
        [
            place.polygon.centroid.coords[0]
            for place in places
            if zone_type(place.tags) and not place.polygon.is_empty
        ]
    ).reshape(-1, 2)
    if centre is None and len(points):
        centre = (float(np.median(points[:, 0])), float(np.median(points[:, 1])))
    middle = shapely.Point(centre) if centre else whole[0].polygon.centroid
    counted = [
        (place, int(shapely.contains_xy(place.polygon, points[:, 0], points[:, 1]).sum()))
        for place in _not_nested(whole)
    ]

    def rank(candidate: tuple[_OsmPlace, int]) -> tuple[bool, bool, float, float]:
        place, zones = candidate
        # a building that is a university by itself is hardly a campus
        is_building = zone_type(place.tags) is not None
        return zones == 0, is_building, float(place.polygon.distance(middle)), -place.polygon.area

    return sorted(counted, key=rank)


def _not_nested(places: list[_OsmPlace]) -> list[_OsmPlace]:
    """The places that do not lie mostly within a larger one."""
    by_size = sorted(places, key=lambda place: place.polygon.area, reverse=True)
    kept: list[_OsmPlace] = []
    for place in by_size:
        if not any(_share_inside(place.polygon, larger.polygon) > 0.5 for larger in kept):
            kept.append(place)
    return kept


def _candidate_line(place: _OsmPlace, zones: int) -> str:
    return f"{place.title}: {place.area_m2:,.0f} m², buildings and car parks inside: {zones}"


def _no_boundary(named: list[_OsmPlace], boundary: str | None, source: str) -> SiteError:
    where = "the boundary" if boundary is None else f'the boundary "{boundary}"'
    if named:
        problem = f"{named[0].title} is not complete in this file, or has no area"
        return SiteError(source, where, problem, _INCOMPLETE)
    problem = (
        "no area has the tag amenity=university or amenity=college"
        if boundary is None
        else "no closed way or multipolygon relation has this name or number"
    )
    return SiteError(source, where, problem, "Choose an area with --boundary NAME, way/12 or relation/34")


def _no_zones(source: str, campus: _OsmPlace, others: list[str], found: _Zones) -> SiteError:
    remedy = "Export its buildings and car parks, too"
    if others:
        remedy += ", or choose another campus with --campus: " + "; ".join(others[:_MAX_LISTED])
    reasons = [*found.left_out[:_MAX_LISTED], *_shed_line(found.sheds)]
    problem = "no building or car park in the file lies inside it"
    if reasons:
        problem = f"no building or car park inside it can be a zone ({'; '.join(reasons)})"
    return SiteError(source, f"the boundary {campus.title}", problem, remedy)


def _zones(areas: list[OsmArea], places: list[_OsmPlace], campus: _OsmPlace, *, with_sheds: bool) -> _Zones:
    """The places that become zones, and the reasons for omitted ones, except for those far away."""
    sides = {ref: zone_type(area.tags) for area in areas for ref in area.outer}
    shapely.prepare(campus.polygon)
    found = _Zones()
    for area, place in zip(areas, places, strict=True):
        own_type = zone_type(place.tags)
        if own_type is None or place is campus:
            continue
        share = _share_inside(place.polygon, campus.polygon)
        if place.polygon.is_empty and _is_near(area, campus.polygon):
            found.left_out.append(f"{place.title}: {_why_empty(area)}")
        elif share < 0.01:
            continue
        elif sides.get(place.ref) == own_type:
            found.left_out.append(f"{place.title}: it is part of a relation that is a zone already")
        elif share <= 0.5:
            found.left_out.append(f"{place.title}: only {share:.0%} of it is inside the boundary")
        elif is_unnamed_shed(place.tags) and not with_sheds:
            found.sheds.append(place.ref)
        else:
            found.zones.append(place)
            if area.missing_holes:
                found.left_out.append(f"{place.title}: missing ways around holes: {area.missing_holes}")
            if area.open_members:
                found.left_out.append(f"{place.title}: some of its ways do not close: that part")
    found.zones = _largest(found.zones, found.left_out)
    return found


def _why_empty(area: OsmArea) -> str:
    if area.missing:
        return "parts of it are not in the file"
    return "its ways do not close" if area.ref.startswith("relation/") else "it is not a closed way"


def _shed_line(sheds: list[str]) -> list[str]:
    if not sheds:
        return []
    more = f" and {len(sheds) - _MAX_LISTED} more" if len(sheds) > _MAX_LISTED else ""
    refs = ", ".join(sheds[:_MAX_LISTED]) + more
    return [f"sheds, garages and the like without a name: {refs} (import them with --with-sheds)"]


def _is_near(area: OsmArea, campus: BaseGeometry) -> bool:
    points = [point for line in area.lines for point in line]
    return not points or campus.intersects(shapely.MultiPoint(points))


def _share_inside(polygon: BaseGeometry, campus: BaseGeometry) -> float:
    if not campus.intersects(polygon):
        return 0.0
    return float(campus.intersection(polygon).area / polygon.area)


def _largest(zones: list[_OsmPlace], left_out: list[str]) -> list[_OsmPlace]:
    by_size = sorted(zones, key=lambda place: place.polygon.area, reverse=True)
    small = {place.ref for place in by_size[MAX_ZONES:]}
    left_out += [f"{place.title}: a site has at most {MAX_ZONES} zones" for place in by_size[MAX_ZONES:]]
    return [place for place in zones if place.ref not in small]


def _site_feature(campus: _OsmPlace, site_id: str | None, timezone: str | None) -> dict[str, Any]:
    title = name(campus.tags) or "Campus"
    site_id = id_from(campus.tags) or "campus" if site_id is None else site_id
    properties = {"role": "site", "id": site_id, "name": title, "osm": campus.ref}
    if timezone:
        properties["timezone"] = timezone
    return _feature(properties, campus.polygon)


def _zone_features(zones: list[_OsmPlace], left_out: list[str]) -> list[dict[str, Any]]:
    taken = {BOUNDARY}
    return [_zone_feature(place, taken, left_out) for place in zones]


def _zone_feature(place: _OsmPlace, taken: set[str], left_out: list[str]) -> dict[str, Any]:
    own_type = zone_type(place.tags)
    prefix = "parking" if own_type == "car_park" else "building"
    number = place.ref.split("/")[1].lstrip("-")
    titled = name(place.tags) or (f"{prefix} {label(place.tags)}" if label(place.tags) else "")
    zone_id = _unique(id_from(place.tags) or slug(titled) or f"{prefix}-{number}", taken)
    properties: dict[str, Any] = {
        "role": "zone",
        "id": zone_id,
        "name": titled or zone_id,
        "type": own_type,
        "osm": place.ref,
    }
    if own_type == "car_park":
        text = place.tags.get("capacity", "")
        spaces = capacity(text)
        if spaces is not None:
            properties["capacity"] = {"vehicle": spaces}
        elif text:
            left_out.append(f'{place.title}: its capacity "{text[:80]}" is not one plain number')
        properties["hold_s"] = properties["fresh_s"] = {"vehicle": CAR_PARK_HOLD_S}
    return _feature(properties, place.polygon)


def _unique(wish: str, taken: set[str]) -> str:
    number, unique = 1, wish
    while unique in taken:
        number += 1
        unique = f"{wish}-{number}"
    taken.add(unique)
    return unique


def _feature(properties: dict[str, Any], polygon: BaseGeometry) -> dict[str, Any]:
    geometry = geometry_of(shapely.orient_polygons(polygon))
    return {"type": "Feature", "properties": properties, "geometry": geometry}
