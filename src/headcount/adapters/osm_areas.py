"""OpenStreetMap data → areas: closed ways and multipolygon relations with their tags and polygons.

Reads OSM XML and PBF (also compressed) through osmium, and the JSON responses of the Overpass API
(`out geom;`, or with the nodes in the response).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import osmium
import shapely
from shapely.geometry.base import BaseGeometry

from headcount.errors import SiteError
from headcount.sites.files import decode_json

#: Relations of these types are areas.
AREA_RELATIONS = ("multipolygon", "boundary")
#: About a centimetre: OpenStreetMap's own precision.
GRID_DEG = 1e-7

Tags = Mapping[str, str]
Line = list[tuple[float, float]]  # lon and lat in degrees
#: Selects elements by their reference (`way/12`) and tags.
AreaFilter = Callable[[str, Tags], bool]

_FORMATS = "Use OpenStreetMap data as .osm, .osm.gz, .osm.bz2 or .osm.pbf, or an Overpass response as .json"


@dataclass
class OsmArea:
    """A closed way, or a relation of ways."""

    ref: str  # way/12, relation/34
    tags: Tags
    lines: list[Line] = field(default_factory=list)  # one of a way, one for each member of a relation
    outer: list[str] = field(default_factory=list)  # references of a relation's outer ways
    missing: bool = False  # a part of its outer ring is not in the data
    missing_holes: int = 0  # inner ways that are not in the data

    def polygon(self) -> BaseGeometry:
        """Its polygon or multipolygon, repaired if it crosses itself; empty if there is none."""
        lines = [line for line in self.lines if len(line) > 1]
        if self.missing or not lines:
            return shapely.Polygon()
        if self.ref.startswith("relation/"):
            # the even-odd rule needs no roles, which editors often omit
            noded = shapely.union_all([shapely.LineString(line) for line in lines])
            return _polygons_of(shapely.build_area(noded))
        line = lines[0]
        if len(line) < 4 or line[0] != line[-1]:
            return shapely.Polygon()
        return _polygons_of(shapely.make_valid(shapely.Polygon(line)))


def _polygons_of(shape: BaseGeometry) -> BaseGeometry:
    """Only the polygons of a shape, rounded: make_valid may return lines and points, too."""
    shape = shapely.set_precision(shape, GRID_DEG)
    polygons = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon" and part.area > 0]
    nested = [part for part in shapely.get_parts(shape) if part.geom_type == "MultiPolygon"]
    polygons += [polygon for part in nested for polygon in shapely.get_parts(part)]
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)


def read_areas(path: Path, wanted: AreaFilter, progress: Callable[[str], None]) -> list[OsmArea]:
    """The selected areas of a file, ways first, by number; incomplete ones are included.

    Raises:
        SiteError: the file is missing, of another format, or broken.
    """
    if not path.is_file():
        raise SiteError(str(path), "the file", "does not exist", _FORMATS)
    try:
        areas = (
            _from_overpass(path, wanted) if path.suffix == ".json" else _from_osmium(path, wanted, progress)
        )
    except (RuntimeError, OSError) as error:  # osmium's errors for files that it cannot read
        raise SiteError(str(path), "the file", f"cannot be read: {error}", _FORMATS) from None
    return sorted(areas, key=lambda area: (area.ref.startswith("relation/"), int(area.ref.split("/")[1])))


def _from_osmium(path: Path, wanted: AreaFilter, progress: Callable[[str], None]) -> list[OsmArea]:
    """Read in two passes, relations and ways, so that only the ways of selected relations are kept."""
    progress("reading relations")
    relations = []
    for relation in osmium.FileProcessor(str(path), osmium.osm.RELATION):
        if not isinstance(relation, osmium.osm.Relation):
            continue
        ref, tags = f"relation/{relation.id}", dict(relation.tags)
        if tags.get("type") in AREA_RELATIONS and wanted(ref, tags):
            members = [(m.ref, m.role) for m in relation.members if m.type == "w"]
            relations.append((OsmArea(ref, tags), members))
    needed = {way for _, members in relations for way, _ in members}

    progress("reading ways")
    found: dict[int, Line] = {}
    ways = []
    processor = osmium.FileProcessor(str(path)).with_locations()
    for way in processor.with_filter(osmium.filter.EntityFilter(osmium.osm.WAY)):
        if not isinstance(way, osmium.osm.Way):
            continue
        ref, tags = f"way/{way.id}", dict(way.tags)
        if way.id not in needed and not wanted(ref, tags):
            continue
        line = [(node.lon, node.lat) for node in way.nodes if node.location.valid()]
        if len(line) == len(way.nodes):
            found[way.id] = line
        if wanted(ref, tags):
            ways.append(OsmArea(ref, tags, [line], missing=len(line) != len(way.nodes)))
    return ways + [_with_members(area, members, found) for area, members in relations]


def _with_members(area: OsmArea, members: Iterable[tuple[int, str]], found: Mapping[int, Line]) -> OsmArea:
    for way, role in members:
        area.lines.append(found.get(way, []))
        if role != "inner":
            area.missing |= way not in found
            area.outer.append(f"way/{way}")
        elif way not in found:
            area.missing_holes += 1
    return area


def _from_overpass(path: Path, wanted: AreaFilter) -> list[OsmArea]:
    response = decode_json(path.read_bytes(), str(path))
    if not isinstance(response, dict) or not isinstance(response.get("elements"), list):
        problem = "is JSON, but not a response of the Overpass API: it has no list of elements"
        raise SiteError(str(path), "the file", problem, _FORMATS)
    try:
        return list(_overpass_areas(response["elements"], wanted))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        problem = f"has an element that the Overpass API does not write ({type(error).__name__}: {error})"
        raise SiteError(
            str(path), "the file", problem, "Request `out geom;` and save the whole response"
        ) from None


def _overpass_areas(elements: list[dict[str, Any]], wanted: AreaFilter) -> Iterator[OsmArea]:
    nodes = {e["id"]: (e["lon"], e["lat"]) for e in elements if e["type"] == "node"}
    ways = {e["id"]: e for e in elements if e["type"] == "way"}
    lines = {way_id: _overpass_line(way, nodes) for way_id, way in ways.items()}
    for way_id, way in ways.items():
        ref, tags = f"way/{way_id}", way.get("tags", {})
        if wanted(ref, tags):
            line = lines[way_id]
            yield OsmArea(ref, tags, [line or []], missing=line is None)
    for relation in (e for e in elements if e["type"] == "relation"):
        ref, tags = f"relation/{relation['id']}", relation.get("tags", {})
        if tags.get("type") in AREA_RELATIONS and wanted(ref, tags):
            members = [m for m in relation.get("members", []) if m["type"] == "way"]
            own = {m["ref"]: _overpass_line(m, nodes) or lines.get(m["ref"]) for m in members}
            found = {way: line for way, line in own.items() if line}
            yield _with_members(OsmArea(ref, tags), [(m["ref"], m.get("role", "")) for m in members], found)


def _overpass_line(way: Mapping[str, Any], nodes: Mapping[int, tuple[float, float]]) -> Line | None:
    """The positions of a way from its own geometry or its nodes; None if some are missing."""
    geometry = way.get("geometry")
    if geometry is not None:
        return None if None in geometry else [(float(p["lon"]), float(p["lat"])) for p in geometry]
    refs = way.get("nodes")
    return [nodes[ref] for ref in refs] if refs and all(ref in nodes for ref in refs) else None
