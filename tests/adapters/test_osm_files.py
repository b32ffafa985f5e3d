"""OpenStreetMap files as programs and users write them: order, positions, versions, errors, several campuses."""

from __future__ import annotations

import bz2
import gzip
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import osmium
import pytest

from case_files import case, case_json
from headcount.adapters.osm import ImportedSite, site_from_osm
from headcount.counting.site_file import parse_site
from headcount.errors import SiteError

COMPLETE = {"way/1": "hill-college", "way/2": "library", "way/3": "lot"}


def ids(found: ImportedSite) -> dict[str, str]:
    """The ids of the boundary and the zones by their references."""
    return {f["properties"]["osm"]: f["properties"]["id"] for f in found.geojson["features"]}


def box(west: float, south: float, size: float = 0.001) -> list[dict[str, float]]:
    """A closed ring as the Overpass API writes it."""
    corners = ((0, 0), (size, 0), (size, size), (0, size), (0, 0))
    return [{"lat": round(south + y, 7), "lon": round(west + x, 7)} for x, y in corners]


def way(number: int, geometry: list[dict[str, float]], **tags: str) -> dict[str, Any]:
    """A closed way with inline positions."""
    nodes = [number * 10 + i for i in range(len(geometry) - 1)]
    return {"type": "way", "id": number, "nodes": [*nodes, nodes[0]], "geometry": geometry, "tags": tags}


def response(folder: Path, *elements: dict[str, Any], **more: object) -> Path:
    """A response of the Overpass API in a file."""
    path = folder / "overpass.json"
    path.write_text(json.dumps({"version": 0.6, "elements": elements, **more}), encoding="utf-8")
    return path


def hill() -> list[dict[str, Any]]:
    """A college with a library and a car park."""
    return [
        way(1, box(14.0, 47.0, 0.01), amenity="university", name="Hill College"),
        way(2, box(14.001, 47.001), building="yes", name="Library"),
        way(3, box(14.003, 47.003), amenity="parking", name="Lot"),
    ]


def by_lines(change: Callable[[list[str]], list[str]], folder: Path) -> Path:
    """The college as XML with nodes, ways changed by a function of its lines."""
    lines = case("ways_first.osm").read_text(encoding="utf-8").splitlines()
    path = folder / "hill.osm"
    path.write_text("\n".join([*lines[:2], *change(lines[2:-1]), lines[-1]]), encoding="utf-8")
    return path


def inline(lines: list[str]) -> list[str]:
    """Ways with their positions within, and no nodes, as Overpass writes XML for `out geom;`."""
    places = {m[1]: m[2] for line in lines if (m := re.match(r'<node id="(\d+)"  (.*)/>', line))}
    return [
        re.sub(r'<nd ref="(\d+)"/>', lambda m: f'<nd ref="{m[1]}" {places[m[1]]}/>', line)
        for line in lines
        if line.startswith("<way")
    ]


def mixed(lines: list[str]) -> list[str]:
    """Nodes and ways in turn, in no order."""
    return sorted(lines, key=lambda line: line[-20:][::-1])


@pytest.mark.parametrize(
    "change", [list, reversed, inline, mixed], ids=["ways first", "reversed", "inline", "mixed"]
)
def test_the_order_of_elements_does_not_matter(
    change: Callable[[list[str]], list[str]], tmp_path: Path
) -> None:
    """Ways before their nodes, between them, or with positions of their own give the same site."""
    assert ids(site_from_osm(by_lines(lambda lines: list(change(lines)), tmp_path))) == COMPLETE


def test_relation_members_with_positions(tmp_path: Path) -> None:
    """A relation whose members have positions needs no ways, in XML too."""
    members = "".join(
        f'<member type="way" ref="{n}" role="outer">'
        + "".join(f'<nd lat="{p["lat"]}" lon="{p["lon"]}"/>' for p in part)
        + "</member>"
        for n, part in ((7, box(14.005, 47.005)[:3]), (8, box(14.005, 47.005)[2:]))
    )
    tags = '<tag k="type" v="multipolygon"/><tag k="building" v="yes"/><tag k="name" v="Hall"/>'
    path = by_lines(lambda lines: [*lines, f'<relation id="9">{members}{tags}</relation>'], tmp_path)
    assert ids(site_from_osm(path)) == COMPLETE | {"relation/9": "hall"}


def test_negative_ids(tmp_path: Path) -> None:
    """Objects that were not uploaded yet have negative ids, which derived ids don't show."""
    found = site_from_osm(case("josm_negative.osm"))
    assert ids(found) == {"way/-1": "hill-college", "way/-2": "library", "way/-3": "lot"}
    assert ids(site_from_osm(case("josm_negative.osm"), "way/-1")) == ids(found)
    path = tmp_path / "unnamed.osm"
    path.write_text(case("josm_negative.osm").read_text().replace('<tag k="name" v="Library"/>', ""))
    assert ids(site_from_osm(path))["way/-2"] == "building-2"


def test_deleted_objects(tmp_path: Path) -> None:
    """Objects that the editor or the history marks as deleted are no zones."""
    assert ids(site_from_osm(case("josm_deleted.osm"))) == {"way/1": "hill-college", "way/3": "lot"}
    gone = [way(2, box(14.001, 47.001), building="yes") | {"visible": False}]
    assert "way/2" not in ids(site_from_osm(response(tmp_path, *hill()[::2], *gone)))


def versions(*texts: str) -> Callable[[list[str]], list[str]]:
    """The library in these versions, instead of the only one."""
    return lambda lines: [*(line for line in lines if not line.startswith('<way id="2"')), *texts]


LIBRARY = '<way id="2" version="{}"{}><nd ref="20"/><nd ref="21"/><nd ref="22"/><nd ref="23"/><nd ref="20"/>{}</way>'
NAMED = '<tag k="building" v="yes"/><tag k="name" v="Library {}"/>'


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("history", "known"),
    [
        (
            [LIBRARY.format(1, "", NAMED.format("old")), LIBRARY.format(2, "", NAMED.format("new"))],
            "library-new",
        ),
        ([LIBRARY.format(1, "", NAMED.format("")), LIBRARY.format(2, ' visible="false"', "")], None),
        (
            [LIBRARY.format(1, "", NAMED.format("")), LIBRARY.format(2, "", "<tag k='landuse' v='grass'/>")],
            None,
        ),
        ([LIBRARY.format(1, "", ""), LIBRARY.format(2, "", NAMED.format("new"))], "library-new"),
    ],
    ids=["renamed", "deleted", "demolished", "built"],
)
def test_histories(history: list[str], known: str | None, order: int, tmp_path: Path) -> None:
    """Of several versions the newest counts, whatever their order."""
    found = ids(site_from_osm(by_lines(versions(*history[::order]), tmp_path)))
    assert found.get("way/2") == known


def test_a_history_as_pbf(tmp_path: Path) -> None:
    """The same holds in PBF."""
    plain = by_lines(
        versions(LIBRARY.format(1, "", NAMED.format("")), LIBRARY.format(2, ' visible="false"', "")), tmp_path
    )
    path = tmp_path / "hill.osh.pbf"
    with osmium.SimpleWriter(str(path)) as writer:
        for thing in osmium.FileProcessor(str(plain)):
            writer.add(thing)
    assert ids(site_from_osm(path)) == {"way/1": "hill-college", "way/3": "lot"}


def test_a_way_in_two_pieces(tmp_path: Path) -> None:
    """Tags and geometry from two `out` statements of a query belong together."""
    tags = [{"type": "way", "id": e["id"], "tags": e["tags"]} for e in hill()]
    shapes = [{key: value for key, value in e.items() if key != "tags"} for e in hill()]
    assert ids(site_from_osm(response(tmp_path, *tags, *shapes))) == COMPLETE
    assert ids(site_from_osm(response(tmp_path, *shapes, *tags))) == COMPLETE


def test_members_that_do_not_close(tmp_path: Path) -> None:
    """An open ring is reported as open; beside a closed one, the closed part is the zone."""
    tags = {"type": "multipolygon", "building": "yes"}

    def relation(number: int, *parts: list[dict[str, float]]) -> dict[str, Any]:
        members = [
            {"type": "way", "ref": 100 * number + i, "role": "outer", "geometry": part}
            for i, part in enumerate(parts)
        ]
        return {"type": "relation", "id": number, "members": members, "tags": tags}

    open_ = box(14.005, 47.005)[:4]
    path = response(tmp_path, *hill(), relation(1, open_), relation(2, box(14.007, 47.007), open_))
    found = site_from_osm(path)
    assert ids(found) == COMPLETE | {"relation/2": "building-2"}
    assert found.left_out == [
        "relation/1: its ways do not close",
        "relation/2: some of its ways do not close: that part",
    ]


@pytest.mark.parametrize("name", ["remark.json", "remark_empty.json"])
def test_an_unfinished_answer_is_an_error(name: str) -> None:
    """An answer with a remark of the Overpass API is not complete."""
    with pytest.raises(SiteError) as raised:
        site_from_osm(case(name))
    assert 'is not complete: the Overpass API reports "runtime error: Query timed out' in str(raised.value)
    assert "Request it again" in raised.value.remedy


def test_an_unfinished_answer_in_xml(tmp_path: Path) -> None:
    """The same remark in XML, compressed too."""
    path = by_lines(
        lambda lines: [*lines, "<remark> runtime error: Query ran out of memory </remark>"], tmp_path
    )
    packed = tmp_path / "hill.osm.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for each in (path, packed):
        with pytest.raises(SiteError, match='reports "runtime error: Query ran out of memory"'):
            site_from_osm(each)


OVERPASS_ERROR = b"""<?xml version="1.0"?><!DOCTYPE html PUBLIC "x"><html><head><title>OSM3S Response</title></head><body>
<p><strong style="color:#FF0000">Error</strong>: line 1: parse error: Unknown type &quot;wy&quot; </p></body></html>"""


@pytest.mark.parametrize(
    ("name", "content", "problem", "remedy"),
    [
        (
            "a.json",
            case("html.json").read_bytes(),
            'is an HTML page ("504 Gateway Timeout")',
            "The download failed",
        ),
        (
            "a.osm",
            case("html.json").read_bytes(),
            'is an HTML page ("504 Gateway Timeout")',
            "The download failed",
        ),
        (
            "a.osm",
            b"<!DOCTYPE html><html>x",
            "is an HTML page, not OpenStreetMap data",
            "The download failed",
        ),
        ("a.osm.gz", gzip.compress(b"<html>"), "is an HTML page", "The download failed"),
        (
            "a.osm",
            OVERPASS_ERROR,
            'HTML page ("line 1: parse error: Unknown type "wy"")',
            "The download failed",
        ),
        ("a.json", b"", "is empty", "The download failed"),
        ("a.osm.pbf", b"", "is empty", "The download failed"),
        (
            "a.json",
            b'{"elements": [{"type": "no',
            "is not JSON: Unterminated string",
            "Download it again, completely",
        ),
        (
            "a.json",
            b'{"type": "FeatureCollection", "features": []}',
            "is GeoJSON, not Open",
            "Export the raw data",
        ),
        ("a.json", b"[]", "no list of elements", "Overpass response"),
        ("a.json", b'{"elements": [{"type": "way", "id": "x"}]}', "does not write (ValueError", "out geom"),
        (
            "a.osm",
            b"<osm><node id='1' lat='x' lon='2'/></osm>",
            "OpenStreetMap does not write (ValueError",
            "",
        ),
        (
            "a.osm",
            b"<osm><way id='1'><nd ref='1'/>",
            "is not complete, or not XML",
            "Download it again, completely",
        ),
        ("a.osm.bz2", bz2.compress(b"<osm>" * 9)[:-9], "cut off|cannot be read", ""),
        ("a.osm.gz", gzip.compress(b"<osm>" + b"<node id='1'/>" * 9999)[:-99], "cut off|cannot be read", ""),
    ],
    ids=range(15),
)
def test_failed_downloads(name: str, content: bytes, problem: str, remedy: str, tmp_path: Path) -> None:
    """A file that is not OpenStreetMap data is named as what it is, with a remedy that fits."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SiteError) as raised:
        site_from_osm(path)
    assert any(text in str(raised.value) for text in problem.split("|")), raised.value
    assert remedy in raised.value.remedy
    assert "site file is GeoJSON" not in raised.value.remedy


def test_a_zip_archive(tmp_path: Path) -> None:
    """An archive has to be unpacked."""
    with zipfile.ZipFile(tmp_path / "hill.osm", "w") as archive:
        archive.write(case("ways_first.osm"))
    with pytest.raises(SiteError, match=r"is a zip archive\. Unpack it"):
        site_from_osm(tmp_path / "hill.osm")


@pytest.mark.parametrize("name", ["hill.json", "hill.xml", "hill", "hill.pbf"])
def test_the_content_decides_the_format(name: str, tmp_path: Path) -> None:
    """The name of a file doesn't matter, except for PBF."""
    path = tmp_path / name
    if name.endswith("pbf"):
        with osmium.SimpleWriter(osmium.io.File(str(path), "pbf")) as writer:
            for thing in osmium.FileProcessor(str(by_lines(list, tmp_path))):
                writer.add(thing)
    else:
        path.write_bytes(case("ways_first.osm").read_bytes())
    assert ids(site_from_osm(path)) == COMPLETE


def test_several_campuses() -> None:
    """All candidates are listed with their areas, the chosen one first; a name may mean several."""
    found = site_from_osm(case("two_campus_ways.json"))
    assert found.candidates == [
        'way/1 "Hill College": 1,686,335 m², buildings and car parks inside: 1',
        'way/5 "Hill College": 843,167 m², buildings and car parks inside: 1',
    ]
    assert ids(found) == {"way/1": "hill-college", "way/2": "library"}
    assert site_from_osm(case("two_campus_ways.json"), "hill college").candidates == found.candidates
    other = site_from_osm(case("two_campus_ways.json"), "way/5")
    assert ids(other) == {"way/5": "hill-college", "way/6": "annex"}
    assert len(other.candidates) == 1


def test_a_bigger_neighbour_is_not_the_campus() -> None:
    """The campus with buildings is chosen; the other one would be an error that lists the first."""
    found = site_from_osm(case("bigger_neighbour.json"))
    assert ids(found) == COMPLETE
    assert len(found.candidates) == 2
    with pytest.raises(SiteError) as raised:
        site_from_osm(case("bigger_neighbour.json"), "Other University")
    assert 'the boundary way/8 "Other University": no building or car park in the file lies' in str(
        raised.value
    )
    assert "Export its buildings and car parks, too" in raised.value.remedy


def test_the_nearest_campus_is_chosen(tmp_path: Path) -> None:
    """Of two campuses with buildings, the one in the middle of the export or of the buildings is chosen."""
    east = [
        way(5, box(14.03, 47.0, 0.02), amenity="university", name="East"),
        way(6, box(14.031, 47.001), building="yes"),
    ]
    assert "way/1" in ids(site_from_osm(response(tmp_path, *hill(), *east)))
    more = [way(n, box(14.03 + n / 10_000, 47.01), building="yes") for n in (11, 25, 39, 53)]
    assert "way/5" in ids(site_from_osm(response(tmp_path, *hill(), *east, *more)))
    bounds = "<bounds minlat='46.99' minlon='13.99' maxlat='47.01' maxlon='14.02'/>"
    path = by_lines(
        lambda lines: [
            bounds,
            *lines,
            *(
                f'<way id="{e["id"]}">'
                + "".join(
                    f'<nd ref="{r}" lat="{p["lat"]}" lon="{p["lon"]}"/>'
                    for r, p in zip(e["nodes"], e["geometry"], strict=True)
                )
                + "".join(f'<tag k="{k}" v="{v}"/>' for k, v in e["tags"].items())
                + "</way>"
                for e in (*east, *more)
            ),
        ],
        tmp_path,
    )
    assert "way/1" in ids(site_from_osm(path))


def test_a_building_is_hardly_a_campus(tmp_path: Path) -> None:
    """A building that is tagged as a university is no candidate before a campus, nor one inside it."""
    school = way(7, box(14.011, 47.001), amenity="college", building="yes", name="Language School")
    inside = way(8, box(14.005, 47.005), amenity="university", building="yes", name="Faculty")
    found = site_from_osm(response(tmp_path, *hill(), school, inside))
    assert ids(found) == COMPLETE | {"way/8": "faculty"}
    assert [line.split(":")[0] for line in found.candidates] == [
        'way/1 "Hill College"',
        'way/7 "Language School"',
    ]


def test_an_incomplete_campus_is_listed(tmp_path: Path) -> None:
    """If the campus itself is not complete, the list of candidates shows it."""
    campus = way(9, box(14.02, 47.0, 0.02), amenity="university", name="Big")
    campus["geometry"][2] = None
    found = site_from_osm(response(tmp_path, *hill(), campus))
    assert found.candidates[1:] == ['way/9 "Big": not complete in this file']


def test_no_zone_is_an_error(tmp_path: Path) -> None:
    """A campus without zones is an error that states what was left out."""
    shed = way(4, box(14.005, 47.005), building="shed")
    half = way(5, box(14.0096, 47.005), building="yes", name="Half")
    with pytest.raises(SiteError) as raised:
        site_from_osm(response(tmp_path, hill()[0], shed, half))
    assert 'no building or car park inside it can be a zone (way/5 "Half": only' in str(raised.value)
    assert "without a name: way/4 (import them with --with-sheds)" in str(raised.value)


def test_sheds(tmp_path: Path) -> None:
    """Sheds and garages without a name are left out unless they are asked for; named ones are zones."""
    sheds = [
        way(10 + i, box(14.005 + i / 10_000, 47.005, 0.0005), building=kind)
        for i, kind in enumerate(("shed", "garage", "garages", "carport", "roof"))
    ]
    named = way(20, box(14.007, 47.007), building="garage", name="Fire Brigade")
    used = way(21, box(14.008, 47.007), building="hut", amenity="cafe")
    path = response(tmp_path, *hill(), *sheds, named, used)
    found = site_from_osm(path)
    assert ids(found) == COMPLETE | {"way/20": "fire-brigade", "way/21": "building-21"}
    refs = ", ".join(f"way/{10 + i}" for i in range(5))
    assert found.left_out == [
        f"sheds, garages and the like without a name: {refs} (import them with --with-sheds)"
    ]
    assert ids(site_from_osm(path, with_sheds=True)).keys() >= {f"way/{10 + i}" for i in range(5)}


def test_narrow_zones_are_a_warning(tmp_path: Path) -> None:
    """Zones that are nowhere 20 m wide are imported with a warning."""
    booth = way(4, box(14.005, 47.005, 0.0001), building="yes", name="Booth")
    found = site_from_osm(response(tmp_path, *hill(), booth))
    assert [warning.split(".")[0] for warning in found.warnings] == [
        "1 zone is narrower than 20 m everywhere: booth"
    ]


def test_names() -> None:
    """A blank name is none; names in other letters stay, with the number as id."""
    found = site_from_osm(case("names.json"))
    zones = {f["properties"]["osm"]: f["properties"] for f in found.geojson["features"][1:]}
    assert {ref: (zone["id"], zone["name"]) for ref, zone in zones.items()} == {
        "way/2": ("building-2", "图书馆"),
        "way/3": ("library", "Library"),
        "way/4": ("library-2", "Library"),
        "way/5": ("site-2", "Site"),
        "way/6": ("building-6", "building-6"),
        "way/7": ("a-b-cs-hall-no-3", "A/B & C's «Hall» (№ 3)"),
    }
    assert len(parse_site(found.geojson, "f").zones) == 7


def test_capacities() -> None:
    """Plain numbers are read however they are written, and the others are listed."""
    found = site_from_osm(case("caps.json"))
    tags = {f"way/{e['id']}": e["tags"] for e in case_json("caps.json")["elements"]}
    known = {
        tags[f["properties"]["osm"]]["capacity"]: f["properties"].get("capacity", {}).get("vehicle")
        for f in found.geojson["features"][1:]
    }
    assert known == {
        "120": 120,
        "~50": 50,
        "100;20": None,
        " 80 ": 80,
        "1,200": 1200,
        "0": 0,
        "yes": None,
        "ca. 30": 30,
        "30-40": None,
        "٣٠": 30,
        "１２": 12,  # noqa: RUF001
        "1e3": None,
        "-5": None,
        "12.0": 12,
    }
    assert [line.split("capacity ")[1].split(" is")[0] for line in found.left_out] == [
        '"100;20"',
        '"yes"',
        '"30-40"',
        '"1e3"',
        '"-5"',
    ]
