"""OpenStreetMap data → areas: closed ways and multipolygon relations with their tags and polygons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import shapely
from shapely.geometry.base import BaseGeometry

from headcount.adapters.osm_elements import NODE, RELATION, WAY, OsmElement, OsmSource, Position

#: Relations of these types are areas.
AREA_RELATIONS = ("multipolygon", "boundary")
#: About a centimetre: OpenStreetMap's own precision.
GRID_DEG = 1e-7

Tags = Mapping[str, str]
Line = list[Position]
#: Selects elements by their reference (`way/12`) and tags.
AreaFilter = Callable[[str, Tags], bool]


@dataclass
class OsmArea:
    """A closed way, or a relation of ways."""

    ref: str  # way/12, relation/34
    tags: Tags
    lines: list[Line] = field(default_factory=list)  # one of a way, one for each member of a relation
    outer: list[str] = field(default_factory=list)  # references of a relation's outer ways
    missing: bool = False  # a part of its outer ring is not in the data
    missing_holes: int = 0  # inner ways that are not in the data
    open_members: bool = False  # some member ways belong to no closed ring; known once the polygon is

    def polygon(self) -> BaseGeometry:
        """Its polygon or multipolygon, repaired if it crosses itself; empty if there is none."""
        lines = [line for line in self.lines if len(line) > 1]
        if self.missing or not lines:
            return shapely.Polygon()
        if self.ref.startswith("relation/"):
            # the even-odd rule needs no roles, which editors often omit
            noded = shapely.union_all([shapely.LineString(line) for line in lines])
            _, cuts, dangles, _ = shapely.polygonize_full([noded])
            self.open_members = not (cuts.is_empty and dangles.is_empty)
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


def read_areas(source: OsmSource, wanted: AreaFilter, progress: Callable[[str], None]) -> list[OsmArea]:
    """The selected areas of a file, ways first, by number; incomplete ones are included, deleted ones are not.

    The file is read once for relations, ways and nodes each, so that their order doesn't matter and only the
    elements that are needed are kept.

    Raises:
        SiteError: the file is of another format, or broken.
    """

    def is_area(element: OsmElement) -> bool:
        if element.type == RELATION and element.tags.get("type") not in AREA_RELATIONS:
            return False
        return wanted(f"{element.type}/{element.id}", element.tags)

    progress("reading relations")
    relations = [
        r
        for r in _newest(source.elements(RELATION), is_area, any_order=source.any_order).values()
        if is_area(r)
    ]
    members = {member.way for relation in relations for member in relation.members}

    progress("reading ways")
    ways = _newest(
        source.elements(WAY), lambda way: way.id in members or is_area(way), any_order=source.any_order
    )
    refs = {ref for way in ways.values() for ref in _unplaced(way)}

    progress("reading nodes")
    nodes = _newest(source.elements(NODE, refs), lambda node: node.id in refs, any_order=False)
    found = {id_: line for id_, way in ways.items() if (line := _line(way, nodes)) is not None}
    areas = [
        OsmArea(f"way/{way.id}", way.tags, [found.get(way.id, [])], missing=way.id not in found)
        for way in ways.values()
        if is_area(way)
    ]
    areas += [_relation_area(relation, found) for relation in relations]
    return sorted(areas, key=lambda area: (area.ref.startswith("relation/"), int(area.ref.split("/")[1])))


def _newest(
    elements: Iterable[OsmElement], is_needed: Callable[[OsmElement], bool], *, any_order: bool
) -> dict[int, OsmElement]:
    """The newest version of each element of which a version is needed, without deleted ones.

    With `any_order`, versions may descend, and what belongs together may be apart: all elements are kept.
    """
    found: dict[int, OsmElement] = {}
    others: dict[int, OsmElement] = {}
    for element in elements:
        known = found.get(element.id) or others.get(element.id)
        newest = element if known is None else known.merged(element)
        if element.id in found or is_needed(newest):
            found[element.id] = newest
        elif any_order:
            others[element.id] = newest
    return {id_: element for id_, element in found.items() if not element.deleted}


def _unplaced(way: OsmElement) -> list[int]:
    """The nodes of a way whose positions are not in the way."""
    if way.line is None:
        return way.refs
    if len(way.refs) != len(way.line):
        return []
    return [ref for ref, position in zip(way.refs, way.line, strict=True) if position is None]


def _line(way: OsmElement, nodes: Mapping[int, OsmElement]) -> Line | None:
    """The positions of a way; None if some are missing."""
    places = way.line or [None] * len(way.refs)
    if len(way.refs) == len(places):
        places = [
            place or (nodes[ref].position if ref in nodes else None)
            for place, ref in zip(places, way.refs, strict=True)
        ]
    return _whole(places)


def _whole(places: Sequence[Position | None]) -> Line | None:
    line = [place for place in places if place is not None]
    return line if line and len(line) == len(places) else None


def _relation_area(relation: OsmElement, found: Mapping[int, Line]) -> OsmArea:
    area = OsmArea(f"relation/{relation.id}", relation.tags)
    for member in relation.members:
        line = _whole(member.line or ()) or found.get(member.way)
        area.lines.append(line or [])
        if member.role != "inner":
            area.missing |= line is None
            area.outer.append(f"way/{member.way}")
        elif line is None:
            area.missing_holes += 1
    return area
