"""Import of sites from OpenStreetMap: zones, their names, and omitted areas."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import osmium
import pytest
import shapely
from shapely.geometry import shape

from headcount.adapters.osm import ATTRIBUTION, site_from_osm
from headcount.adapters.osm_tags import slug
from headcount.counting.site_file import parse_site
from headcount.errors import SiteError
from headcount.sites.files import load_site
from shared import shared

Tags = dict[str, str]
Ring = list[tuple[float, float]]


class Map:
    """A small map, to write as OSM XML or as an Overpass response."""

    def __init__(self) -> None:
        """Start with an empty map."""
        self.nodes: list[tuple[float, float]] = []
        self.ways: dict[int, tuple[list[int], Tags]] = {}
        self.relations: dict[int, tuple[list[tuple[int, str]], Tags]] = {}

    def way(self, number: int, ring: Ring, **tags: str) -> None:
        """Add a way through new nodes, closed if the last position is the first."""
        refs: list[int] = []
        for place in ring:
            known = [ref for ref in refs if self.nodes[ref - 1] == place]
            if not known:
                self.nodes.append(place)
            refs.append(known[0] if known else len(self.nodes))
        self.ways[number] = (refs, tags)

    def relation(self, number: int, members: list[tuple[int, str]], **tags: str) -> None:
        """Add a multipolygon relation of ways with their roles."""
        self.relations[number] = (members, {"type": "multipolygon", **tags})

    def xml(self) -> str:
        """The map as OSM XML."""

        def tags(of: Tags) -> str:
            return "".join(f'<tag k="{key}" v="{value}"/>' for key, value in of.items())

        lines = [f'<node id="{i}" lon="{lon}" lat="{lat}"/>' for i, (lon, lat) in enumerate(self.nodes, 1)]
        for number, (refs, of) in self.ways.items():
            nodes = "".join(f'<nd ref="{ref}"/>' for ref in refs)
            lines.append(f'<way id="{number}">{nodes}{tags(of)}</way>')
        for number, (members, of) in self.relations.items():
            inside = "".join(f'<member type="way" ref="{ref}" role="{role}"/>' for ref, role in members)
            lines.append(f'<relation id="{number}">{inside}{tags(of)}</relation>')
        return f'<osm version="0.6">{"".join(lines)}</osm>'

    def overpass(self, *, geometry: bool) -> dict[str, Any]:
        """The map as a response of the Overpass API: to `out geom;`, or with nodes."""
        elements: list[dict[str, Any]] = []
        for number, (refs, tags) in self.ways.items():
            way: dict[str, Any] = {"type": "way", "id": number, "nodes": refs, "tags": tags}
            elements.append(way | ({"geometry": self._geometry(number)} if geometry else {}))
        for number, (members, tags) in self.relations.items():
            inside = [{"type": "way", "ref": ref, "role": role} for ref, role in members]
            if geometry:
                inside = [
                    m | {"geometry": self._geometry(ref)} for m, (ref, _) in zip(inside, members, strict=True)
                ]
            elements.append({"type": "relation", "id": number, "members": inside, "tags": tags})
        if not geometry:
            elements += [
                {"type": "node", "id": i, "lon": lon, "lat": lat}
                for i, (lon, lat) in enumerate(self.nodes, 1)
            ]
        return {"version": 0.6, "elements": elements}

    def _geometry(self, way: int) -> list[dict[str, float]]:
        return [dict(zip(("lon", "lat"), self.nodes[ref - 1], strict=True)) for ref in self.ways[way][0]]


def square(west: float, south: float, size: float) -> Ring:
    """A closed ring, clockwise, in units of 0.001 degrees from 8 east, 50 north."""
    corners = [(0.0, 0.0), (0.0, size), (size, size), (size, 0.0), (0.0, 0.0)]
    return [(round(8 + (west + x) / 1000, 7), round(50 + (south + y) / 1000, 7)) for x, y in corners]


def campus() -> Map:
    """A campus with one of everything."""
    drawn = Map()
    drawn.way(1, square(0, 0, 10), amenity="university", name="Ollscoil Luimnigh")
    drawn.way(2, square(1, 1, 1), building="yes", name="Léann")
    drawn.way(3, square(3, 1, 1), building="yes", name="Léann")
    drawn.way(4, square(5, 1, 1), building="yes")
    drawn.way(5, square(9.4, 1, 1), building="yes", name="Mostly inside")
    drawn.way(6, square(9.6, 3, 1), building="yes", name="Mostly outside")
    drawn.way(7, square(20, 3, 1), building="yes", name="Elsewhere")
    drawn.way(8, square(1, 5, 1), amenity="parking", name="Site", capacity="120")
    drawn.way(9, square(3, 5, 1), amenity="parking", building="parking", ref="P 7", capacity="many")
    drawn.way(10, square(1, 7, 2))
    drawn.way(11, square(1.5, 7.5, 0.5))
    drawn.relation(1, [(10, "outer"), (11, "inner")], building="university", name="Court")
    drawn.way(12, square(5, 7, 1)[:3], building="yes", name="Half")
    bow = square(7, 7, 1)
    drawn.way(13, [bow[0], bow[2], bow[1], bow[3], bow[0]], building="yes", name="Bow")
    drawn.way(14, square(7, 5, 1), building="no", name="Gone")
    return drawn


def write(drawn: Map, folder: Path, form: str) -> Path:
    """Write the map as `.osm`, `.osm.gz`, `.osm.pbf`, `geom.json` or `nodes.json`."""
    path = folder / f"campus{form}"
    if form.endswith(".json"):
        path.write_text(json.dumps(drawn.overpass(geometry=form == "geom.json")), encoding="utf-8")
    elif form == ".osm.gz":
        path.write_bytes(gzip.compress(drawn.xml().encode()))
    else:
        plain = folder / "campus.osm"
        plain.write_text(drawn.xml(), encoding="utf-8")
        if form == ".osm.pbf":
            with osmium.SimpleWriter(str(path), overwrite=True) as writer:
                for thing in osmium.FileProcessor(str(plain)):
                    writer.add(thing)
    return path


def properties(geojson: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The properties of each feature by its OpenStreetMap reference."""
    return {f["properties"]["osm"]: f["properties"] for f in geojson["features"]}


def test_zones(tmp_path: Path) -> None:
    """Buildings and car parks that are mostly inside become zones with their names and unique ids."""
    found = site_from_osm(write(campus(), tmp_path, ".osm"))
    ids = {ref: p["id"] for ref, p in properties(found.geojson).items()}
    assert ids == {
        "way/1": "ollscoil-luimnigh",
        "way/2": "leann",
        "way/3": "leann-2",
        "way/4": "building-4",
        "way/5": "mostly-inside",
        "way/8": "site-2",
        "way/9": "parking-p-7",
        "way/13": "bow",
        "relation/1": "court",
    }
    of = properties(found.geojson)
    assert of["way/2"]["name"] == "Léann"
    assert of["way/8"]["capacity"] == {"vehicle": 120}
    assert of["way/8"]["hold_s"] == of["way/9"]["hold_s"] == {"vehicle": 43_200}
    assert of["way/9"]["type"] == "car_park"
    assert "capacity" not in of["way/9"]
    assert found.geojson["attribution"] == ATTRIBUTION


def test_polygons(tmp_path: Path) -> None:
    """Holes are kept, a self-crossing polygon is repaired, and the result is a valid site."""
    found = site_from_osm(write(campus(), tmp_path, ".osm"))
    site = parse_site(found.geojson, "campus")
    zones = {zone.id: zone.geometry for zone in site.zones}
    assert len(zones["court"].interiors) == 1
    assert zones["court"].area == pytest.approx((4 - 0.25) * 1e-6)
    assert zones["bow"].area == pytest.approx(0.5e-6)
    assert site.geojson == found.geojson


def test_omitted_areas_are_reported(tmp_path: Path) -> None:
    """Omitted areas are listed with the reason, except for those far away."""
    found = site_from_osm(write(campus(), tmp_path, "geom.json"))
    assert found.left_out == [
        'way/6 "Mostly outside": only 40% of it is inside the boundary',
        'way/12 "Half": it is not a closed way',
        'way/9: its capacity "many" is not one plain number',
    ]


@pytest.mark.parametrize("form", [".osm.gz", ".osm.pbf", "geom.json", "nodes.json"])
def test_every_format_gives_the_same_site(tmp_path: Path, form: str) -> None:
    """XML, compressed XML, PBF and both kinds of Overpass responses give the same site."""
    plain = site_from_osm(write(campus(), tmp_path, ".osm"))
    assert site_from_osm(write(campus(), tmp_path, form)).geojson == plain.geojson


def test_boundary_by_name_and_by_number(tmp_path: Path) -> None:
    """The boundary may be any area, by name in any case or by number, and the id can be set."""
    drawn = campus()
    drawn.way(20, square(0, 0, 2.5), landuse="grass", name="Lawn")
    path = write(drawn, tmp_path, ".osm")
    by_name = site_from_osm(path, "LAWN", "north").geojson
    assert by_name == site_from_osm(path, "way/20", "north").geojson
    assert {p["id"] for p in properties(by_name).values()} == {"north", "leann"}


def test_the_largest_university_is_the_boundary(tmp_path: Path) -> None:
    """Of several areas tagged as university, the largest is the boundary; a building stays a building."""
    drawn = campus()
    drawn.way(20, square(7, 3, 1), amenity="university", building="yes", name="School")
    of = properties(site_from_osm(write(drawn, tmp_path, ".osm")).geojson)
    assert of["way/1"]["role"] == "site"
    assert of["way/20"]["type"] == "building"


def test_boundary_of_several_ways(tmp_path: Path) -> None:
    """A boundary relation may consist of open ways, with wrong or missing roles."""
    drawn = Map()
    ring = square(0, 0, 10)
    drawn.way(1, ring[:3])
    drawn.way(2, ring[2:])
    drawn.way(3, square(1, 1, 1), building="yes")
    drawn.relation(9, [(1, ""), (2, "outer")], amenity="college", name="C")
    for form in (".osm", "geom.json"):
        site = parse_site(site_from_osm(write(drawn, tmp_path, form)).geojson, "c")
        assert site.zones[0].geometry.equals(shapely.box(8, 50, 8.01, 50.01))


def test_old_style_multipolygon_is_one_zone(tmp_path: Path) -> None:
    """A building tagged on the relation and on its outer way gives one zone."""
    drawn = campus()
    drawn.ways[10][1]["building"] = "yes"
    found = site_from_osm(write(drawn, tmp_path, ".osm"))
    assert "way/10" not in properties(found.geojson)
    assert "way/10: it is part of a relation that is a zone already" in found.left_out


def test_incomplete_relations(tmp_path: Path) -> None:
    """A relation without an outer way is omitted, one without an inner way is kept, and both are reported."""
    drawn = campus()
    drawn.relation(2, [(10, "outer"), (999, "outer")], building="yes", name="Open")
    drawn.relation(3, [(10, "outer"), (999, "inner")], building="yes", name="Full")
    for form in (".osm", "nodes.json"):
        found = site_from_osm(write(drawn, tmp_path, form))
        assert "relation/3" in properties(found.geojson)
        assert "relation/2" not in properties(found.geojson)
        assert 'relation/2 "Open": parts of it are not in the file' in found.left_out
        assert 'relation/3 "Full": missing ways around holes: 1' in found.left_out


@pytest.mark.parametrize(
    ("boundary", "text"),
    [
        (
            None,
            "the boundary: no area has the tag amenity=university or amenity=college. Choose an area with --boundary",
        ),
        ("Nowhere", 'the boundary "Nowhere": no closed way or multipolygon relation has this name or number'),
        ("Half", 'the boundary "Half": way/12 "Half" is not complete in this file, or has no area'),
    ],
)
def test_no_boundary(tmp_path: Path, boundary: str | None, text: str) -> None:
    """Without a valid boundary the error has the requested one and a remedy."""
    drawn = campus()
    drawn.ways[1][1].clear()
    with pytest.raises(SiteError) as raised:
        site_from_osm(write(drawn, tmp_path, "geom.json"), boundary)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.json", b"{}", "is JSON, but not a response of the Overpass API: it has no list of elements"),
        (
            "a.json",
            b'{"elements": [{"type": "node"}]}',
            "has an element that the Overpass API does not write",
        ),
        ("a.json", b"{", "is not JSON"),
        ("a.osm", b"not XML", "cannot be read"),
        ("a.osm.pbf", b"not PBF", "cannot be read"),
        ("a.txt", b"text", "cannot be read"),
    ],
)
def test_invalid_files(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    """Broken files and other formats are rejected with the supported formats."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SiteError) as raised:
        site_from_osm(path)
    assert text in str(raised.value)


def test_missing_file(tmp_path: Path) -> None:
    """A missing file is reported as missing."""
    with pytest.raises(SiteError, match=r"nope.osm: the file: does not exist. Use OpenStreetMap data as"):
        site_from_osm(tmp_path / "nope.osm")


def test_an_invalid_id_is_rejected(tmp_path: Path) -> None:
    """An invalid id is the same error as in a site file."""
    with pytest.raises(SiteError, match="has the id 'a b', which is no id"):
        site_from_osm(write(campus(), tmp_path, ".osm"), site_id="a b")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("Músaem & Café", "musaem-cafe"), ("St. John's", "st-johns"), ("図書館", ""), ("x" * 90, "x" * 48)],
)
def test_slug(name: str, wanted: str) -> None:
    """Ids consist of the plain letters and digits of a name."""
    assert slug(name) == wanted


def test_real_campus() -> None:
    """The raw data of Rockville give the same zones as an independently created site."""
    found = site_from_osm(shared("data", "osm", "mc_rockville.osm.gz"))
    ours = {f["properties"]["osm"]: f for f in found.geojson["features"]}
    known = load_site(shared("data", "sites", "mc_rockville.geojson")).geojson["features"]
    boundary, *zones = known
    assert {f["properties"]["osm"] for f in zones} == ours.keys() - {"way/46976126"}
    for theirs in zones:
        mine = ours[theirs["properties"]["osm"]]
        assert mine["properties"].get("capacity") == theirs["properties"].get("capacity")
        assert mine["properties"]["type"] == theirs["properties"]["type"]
        assert shape(mine["geometry"]).symmetric_difference(shape(theirs["geometry"])).area < 1e-12
    drawn = shape(ours["way/46976126"]["geometry"])
    assert drawn.symmetric_difference(shape(boundary["geometry"])).area < 1e-12
