"""Import of a site from OpenStreetMap data: the boundary of a campus, its buildings and car parks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from headcount.adapters.osm_areas import OsmArea, Tags, read_areas
from headcount.counting.polygons import geometry_of
from headcount.counting.site_feature import BOUNDARY
from headcount.counting.site_file import MAX_ZONES, parse_site
from headcount.errors import SiteError

ATTRIBUTION = "© OpenStreetMap contributors, ODbL 1.0"  # as the licence requires
#: Parked cars do not report: they are counted for this long (half a day).
CAR_PARK_HOLD_S = 43_200
#: Ids derived from names are cut to this, which leaves room for a number.
MAX_SLUG_CHARS = 48

_CAMPUS = ("university", "college")


@dataclass(frozen=True)
class ImportedSite:
    """An imported site."""

    geojson: dict[str, Any]
    left_out: list[str]  # one line for each omitted area, with the reason


@dataclass(frozen=True)
class _OsmPlace:
    """An area with its polygon."""

    ref: str
    tags: Tags
    polygon: BaseGeometry

    @property
    def title(self) -> str:
        name = self.tags.get("name")
        return f'{self.ref} "{name}"' if name else self.ref


def site_from_osm(
    path: Path,
    boundary: str | None = None,
    site_id: str | None = None,
    timezone: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> ImportedSite:
    """Import the site of a campus: buildings and car parks with more than half of their area inside.

    Args:
        path: .osm, .osm.gz, .osm.bz2, .osm.pbf, or .json from the Overpass API (`out geom;`).
        boundary: name of the area that is the boundary, or `way/12` or `relation/34`;
            default: the largest area tagged `amenity=university` or `amenity=college`.
        site_id: the site's id; default: derived from the boundary's name.
        timezone: the site's time zone; default: none in the file, which means UTC.
        progress: called with a description of each step.

    Raises:
        SiteError: the file cannot be read or has no such boundary, or id or time zone are not valid.
    """

    def wanted(ref: str, tags: Tags) -> bool:
        return _is_boundary(ref, tags, boundary) or _zone_type(tags) is not None

    areas = read_areas(path, wanted, progress)
    progress(f"building {len(areas)} polygons")
    places = [_OsmPlace(area.ref, area.tags, area.polygon()) for area in areas]
    campus = _choose_boundary(places, boundary, str(path))
    zones, left_out = _zones(areas, places, campus)
    geojson = {
        "type": "FeatureCollection",
        "attribution": ATTRIBUTION,
        "features": [_site_feature(campus, site_id, timezone), *_zone_features(zones)],
    }
    parse_site(geojson, str(path))
    return ImportedSite(geojson, left_out)


def _is_boundary(ref: str, tags: Tags, boundary: str | None) -> bool:
    if boundary is None:
        return tags.get("amenity") in _CAMPUS
    return ref == boundary or tags.get("name", "").casefold() == boundary.casefold()


def _zone_type(tags: Tags) -> str | None:
    if tags.get("amenity") == "parking":
        return "car_park"
    return "building" if tags.get("building", "no") != "no" else None


def _choose_boundary(places: list[_OsmPlace], boundary: str | None, source: str) -> _OsmPlace:
    named = [place for place in places if _is_boundary(place.ref, place.tags, boundary)]
    whole = [place for place in named if not place.polygon.is_empty]
    if whole:
        return max(whole, key=lambda place: place.polygon.area)
    label = "the boundary" if boundary is None else f'the boundary "{boundary}"'
    if named:
        problem = f"{named[0].title} is not complete in this file, or has no area"
        raise SiteError(source, label, problem, "Export the whole campus, with all members of its relation")
    problem = (
        "no area has the tag amenity=university or amenity=college"
        if boundary is None
        else "no closed way or multipolygon relation has this name or number"
    )
    raise SiteError(source, label, problem, "Choose an area with --boundary NAME, way/12 or relation/34")


def _zones(
    areas: list[OsmArea], places: list[_OsmPlace], campus: _OsmPlace
) -> tuple[list[_OsmPlace], list[str]]:
    """The places that become zones, and the reasons for omitted ones, except for those far away."""
    sides = {ref: _zone_type(area.tags) for area in areas for ref in area.outer}
    shapely.prepare(campus.polygon)
    zones, left_out = [], []
    for area, place in zip(areas, places, strict=True):
        zone_type = _zone_type(place.tags)
        if zone_type is None or place is campus:
            continue
        share = _share_inside(place.polygon, campus.polygon)
        if place.polygon.is_empty and _is_near(area, campus.polygon):
            why = "parts of it are not in the file" if area.missing else "it is not a closed way"
            left_out.append(f"{place.title}: {why}")
        elif share < 0.01:
            continue
        elif sides.get(place.ref) == zone_type:
            left_out.append(f"{place.title}: it is part of a relation that is a zone already")
        elif share <= 0.5:
            left_out.append(f"{place.title}: only {share:.0%} of it is inside the boundary")
        else:
            zones.append(place)
            if area.missing_holes:
                left_out.append(f"{place.title}: missing ways around holes: {area.missing_holes}")
    return _largest(zones, left_out), left_out


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
    name = campus.tags.get("name", "Campus")
    site_id = slug(name) or "campus" if site_id is None else site_id
    properties = {"role": "site", "id": site_id, "name": name, "osm": campus.ref}
    if timezone:
        properties["timezone"] = timezone
    return _feature(properties, campus.polygon)


def _zone_features(zones: list[_OsmPlace]) -> list[dict[str, Any]]:
    taken = {BOUNDARY}
    return [_zone_feature(place, taken) for place in zones]


def _zone_feature(place: _OsmPlace, taken: set[str]) -> dict[str, Any]:
    zone_type = _zone_type(place.tags)
    prefix = "parking" if zone_type == "car_park" else "building"
    number = place.ref.split("/")[1]
    name = place.tags.get("name") or f"{prefix} {place.tags.get('ref', number)}"
    properties: dict[str, Any] = {
        "role": "zone",
        "id": _unique(slug(name) or f"{prefix}-{number}", taken),
        "name": name,
        "type": zone_type,
        "osm": place.ref,
    }
    if zone_type == "car_park":
        spaces = place.tags.get("capacity", "")
        if re.fullmatch(r"[0-9]{1,6}", spaces):
            properties["capacity"] = {"vehicle": int(spaces)}
        properties["hold_s"] = {"vehicle": CAR_PARK_HOLD_S}
    return _feature(properties, place.polygon)


def slug(name: str) -> str:
    """Derive an id from a name: `Músaem & Café` → `musaem-cafe`; empty if no letter or digit is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"['.]", "", plain)
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:MAX_SLUG_CHARS].rstrip("-")


def _unique(wish: str, taken: set[str]) -> str:
    number, name = 1, wish
    while name in taken:
        number += 1
        name = f"{wish}-{number}"
    taken.add(name)
    return name


def _feature(properties: dict[str, Any], polygon: BaseGeometry) -> dict[str, Any]:
    geometry = geometry_of(shapely.orient_polygons(polygon))
    return {"type": "Feature", "properties": properties, "geometry": geometry}
