"""Site files: the parsed values, and the error for each possible mistake."""

from __future__ import annotations

import copy
import json
import math
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from headcount.counting.site import EARTH_RADIUS_M
from headcount.counting.site_file import MAX_ZONES, at_speed, check_site, parse_site, unscaled
from headcount.errors import SiteError
from headcount.sites.files import bundled_site, decode_json, format_geojson, load_site
from shared import shared

ROOT = Path(__file__).resolve().parents[2]


def square(west: float, south: float, size: float) -> dict[str, Any]:
    """A square with the corner at `west`, `south`, counter-clockwise."""
    east, north = west + size, south + size
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def feature(geometry: object, **properties: object) -> dict[str, Any]:
    """A GeoJSON feature."""
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def campus(**properties: object) -> dict[str, Any]:
    """A site of one square kilometre or so with a library and a car park."""
    return {
        "type": "FeatureCollection",
        "features": [
            feature(square(8.0, 50.0, 0.01), role="site", id="c", name="Campus", **properties),
            feature(square(8.001, 50.001, 0.001), role="zone", id="library", name="L", type="building"),
            feature(
                square(8.005, 50.005, 0.002),
                role="zone",
                id="p1",
                type="car_park",
                capacity={"vehicle": 80},
                hold_s={"vehicle": 43_200},
                leave_margin_m=3,
            ),
        ],
    }


def test_defaults() -> None:
    """Omitted values have the defaults of the counting rules, and the boundary is the first zone."""
    site = parse_site(campus(), "c.geojson")
    assert (site.id, site.name, site.timezone) == ("c", "Campus", "UTC")
    assert [zone.id for zone in site.zones] == ["site", "library", "p1"]
    assert [zone.type for zone in site.zones] == ["site", "building", "car_park"]
    assert site.hold_s == (900, 300)
    assert site.max_speed_mps == (70, 70)
    assert (site.leave_margin_m, site.max_accuracy_m, site.fresh_s) == (15, 100, (120, 120))
    assert (site.leave_margin_acc, site.max_position_age_s) == (1.5, 3600)
    assert site.on_offline_leave == (False, False)
    assert site.offline_grace_s == 60
    assert site.zones[2].name == "p1"


def test_zones_override_the_site_and_inherit_the_rest() -> None:
    """A zone's hold per kind and margin win over the site's, which win over the defaults."""
    site = parse_site(campus(hold_s={"person": 100}, leave_margin_m=8), "c.geojson")
    boundary, library, car_park = site.zones
    assert boundary.hold_s == library.hold_s == (100, 300)
    assert car_park.hold_s == (100, 43_200)
    assert (library.leave_margin_m, car_park.leave_margin_m) == (8, 3)
    assert (library.capacity, car_park.capacity) == ((None, None), (None, 80))


def test_one_number_for_both_kinds() -> None:
    """`hold_s`, `max_speed_mps` and `on_offline` may be one value for both kinds or one each."""
    site = parse_site(campus(hold_s=5, max_speed_mps=3.5, on_offline="leave"), "c.geojson")
    assert site.hold_s == (5, 5)
    assert site.max_speed_mps == (3.5, 3.5)
    assert site.on_offline_leave == (True, True)
    site = parse_site(campus(max_speed_mps={"vehicle": 20}, on_offline={"vehicle": "leave"}), "c.geojson")
    assert site.max_speed_mps == (70, 20)
    assert site.on_offline_leave == (False, True)


def test_plane_is_the_local_equirectangular_projection() -> None:
    """Zones in the plane have the metres of the counting rules' formula at the boundary's centroid."""
    site = parse_site(campus(), "c.geojson")
    centroid = site.zones[0].geometry.centroid
    assert (site.lat0_deg, site.lon0_deg) == (centroid.y, centroid.x)
    lon, lat = shapely.get_coordinates(site.zones[1].geometry).T
    x = EARTH_RADIUS_M * np.radians(lon - centroid.x) * math.cos(math.radians(centroid.y))
    y = EARTH_RADIUS_M * np.radians(lat - centroid.y)
    assert np.array_equal(shapely.get_coordinates(site.zones[1].plane), np.column_stack([x, y]))


def test_wrong_winding_is_corrected_silently() -> None:
    """Rings of the wrong direction come out as RFC 7946 has them, in the zones and in the GeoJSON."""
    wrong = campus()
    hole = square(8.0013, 50.0013, 0.0002)["coordinates"][0]
    rings = wrong["features"][1]["geometry"]["coordinates"]
    rings[0].reverse()
    rings.append(hole)
    site = parse_site(wrong, "c.geojson")
    polygon = site.zones[1].geometry
    assert polygon.exterior.is_ccw
    assert not polygon.interiors[0].is_ccw
    written = site.geojson["features"][1]["geometry"]["coordinates"]
    assert shapely.LinearRing(written[0]).is_ccw
    assert not shapely.LinearRing(written[1]).is_ccw


def test_partly_outside_and_multipolygon_are_allowed() -> None:
    """A zone may reach over the boundary, and may have several parts."""
    reaching = campus()
    parts = [square(7.999, 50.002, 0.002)["coordinates"], square(8.006, 50.002, 0.001)["coordinates"]]
    reaching["features"][1]["geometry"] = {"type": "MultiPolygon", "coordinates": parts}
    assert len(parse_site(reaching, "c.geojson").zones[1].geometry.geoms) == 2


def change(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """A change of a campus: `1/properties/id` of the features becomes `value`."""

    def apply(site: dict[str, Any]) -> None:
        *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
        target: Any = site["features"]
        for step in way:
            target = target[step]
        target[last] = value

    return apply


BOW_TIE = {
    "type": "Polygon",
    "coordinates": [[[8.001, 50.001], [8.003, 50.003], [8.003, 50.001], [8.001, 50.003], [8.001, 50.001]]],
}
HOLE_OUTSIDE = {
    "type": "Polygon",
    "coordinates": square(8.001, 50.001, 0.001)["coordinates"] + square(8.004, 50.001, 0.001)["coordinates"],
}
OVER_THE_LINE = {
    "type": "Polygon",
    "coordinates": [[[179.9, 1.0], [-179.9, 1.0], [-179.9, 2.0], [179.9, 2.0], [179.9, 1.0]]],
}

MISTAKES: list[tuple[str, object, str]] = [
    (
        "1/geometry",
        BOW_TIE,
        'zone "library": has a ring that crosses itself at longitude 8.002, latitude 50.002',
    ),
    ("1/geometry", HOLE_OUTSIDE, "is not a valid polygon: hole lies outside shell at longitude 8.004"),
    (
        "1/geometry",
        square(9.0, 50.0, 0.001),
        'zone "library": lies outside the site\'s boundary. Move it inside',
    ),
    ("1/geometry", square(8.01, 50.001, 0.001), "lies outside the site's boundary"),
    ("2/properties/id", "library", 'zone "library": has an id that another zone has already'),
    ("1/properties/role", None, 'feature "library": has no role. Set the property "role"'),
    ("1/properties/role", "room", "room \"library\": has the unknown role 'room'"),
    ("1/properties", None, "features[1]: has no role"),
    ("1/properties/id", None, 'features[1]: has no id. Give it a property "id"'),
    ("1/properties/id", 7, "features[1]: has the id '7', which is no id. An id has 1 to 64 characters"),
    ("1/properties/id", "a b", "has the id 'a b', which is no id"),
    ("1/properties/id", "x" * 65, "which is no id"),
    ("0/properties/id", "c/d", "site \"c/d\": has the id 'c/d', which is no id"),
    ("1/properties/id", "site", 'has the id "site", which is the boundary\'s own'),
    ("1/properties/type", "pub", "has the unknown type 'pub'. Set the property \"type\" to one of building,"),
    ("1/properties/type", None, "has no type"),
    ("1/properties/type", ["gate"], "has the unknown type"),
    ("1/properties/name", 5, "has a name that is not a text"),
    (
        "1/geometry",
        {"type": "Point", "coordinates": [8, 50]},
        "has a Point where a Polygon or MultiPolygon is",
    ),
    ("1/geometry", None, "has no geometry where a Polygon"),
    ("1/geometry/coordinates", [], "has coordinates without rings"),
    ("1/geometry/coordinates", [[]], "has coordinates without positions"),
    (
        "1/geometry/coordinates",
        [[[8, 50], [8.1, 50], [8, 50]]],
        "has a ring of too few points near longitude 8",
    ),
    (
        "1/geometry/coordinates/0/4",
        [8.0015, 50.0015],
        "has a ring that is not closed: it starts at longitude 8.001",
    ),
    ("1/geometry/coordinates/0/1", [8.001], "has '[8.001]' where a position is needed"),
    ("1/geometry/coordinates/0/1", [8.001, math.nan], "where a position is needed"),
    ("1/geometry/coordinates/0/1", [8.001, 10**400], "where a position is needed"),
    ("1/geometry/coordinates/0/1", [8.001, True], "where a position is needed"),
    ("1/geometry/coordinates/0/1", [52.6, -118.5], "has the latitude -118.5, which is out of range"),
    ("1/geometry/coordinates/0/1", [52.6, -118.5], "GeoJSON has the longitude first: are the two swapped?"),
    ("1/geometry/coordinates/0/1", [181, 50], "has the longitude 181, which is out of range"),
    (
        "0/geometry",
        OVER_THE_LINE,
        'site "c": crosses the antimeridian (it reaches from longitude -179.9 to 179.9)',
    ),
    ("1/properties/hold_s", -1, 'has hold_s = -1, which is negative. Set "hold_s" to 0 or more'),
    ("1/properties/hold_s", {"vehicle": -2}, "has hold_s.vehicle = -2, which is negative"),
    ("1/properties/hold_s", {"bike": 2}, "has hold_s of the unknown kind 'bike'. The kinds are person and"),
    ("1/properties/hold_s", "5", "has hold_s = '5'. Set \"hold_s\" to a finite number"),
    ("1/properties/leave_margin_m", math.inf, "has leave_margin_m = 'inf'"),
    ("1/properties/capacity", 80, "has a capacity that is not one per kind"),
    ("1/properties/capacity", {"person": 1.5}, "has capacity.person = 1.5, which is not a whole number"),
    ("0/properties/max_speed_mps", -3, "has max_speed_mps = -3, which is negative"),
    ("0/properties/fresh_s", [], "has fresh_s = '[]'"),
    ("0/properties/on_offline", "go", 'has on_offline = \'go\'. Set "on_offline" to "leave" or "stay"'),
    ("0/properties/on_offline", ["leave"], "has on_offline = "),
    ("0/properties/role", "zone", "the file: has no feature with the role site"),
    ("1/properties/role", "site", 'site "library": is a second feature with the role site'),
    ("1/type", "Thing", "is not a GeoJSON Feature"),
    ("1", "text", "features[1]: is not a GeoJSON Feature"),
]


@pytest.mark.parametrize(("path", "value", "text"), MISTAKES)
def test_mistakes_are_named(path: str, value: object, text: str) -> None:
    """Each mistake raises an error that names the file, the feature, the problem and the remedy."""
    wrong = campus()
    change(path, value)(wrong)
    with pytest.raises(SiteError) as raised:
        parse_site(wrong, "dir/c.geojson")
    assert text in str(raised.value)
    assert str(raised.value).startswith("dir/c.geojson: ")
    assert raised.value.remedy
    assert str(check_site(wrong, "dir/c.geojson")[0]) == str(raised.value)


@pytest.mark.parametrize(
    "value", [None, [], "x", {"type": "Feature"}, {"type": "FeatureCollection", "features": 3}]
)
def test_no_feature_collection(value: object) -> None:
    """Anything else than a FeatureCollection is refused as such."""
    with pytest.raises(SiteError, match="c: the file: is not a GeoJSON FeatureCollection"):
        parse_site(value, "c")


def test_too_many_zones() -> None:
    """More zones than the limit are refused with both numbers, before any other check."""
    large = campus()
    large["features"] += [large["features"][1]] * MAX_ZONES
    with pytest.raises(SiteError, match=r"has 4002 zones, more than 4000"):
        parse_site(large, "c")


def test_all_problems_at_once() -> None:
    """`check_site` lists every problem, in the order of the features, and nothing for a good file."""
    wrong = campus(hold_s=-1, fresh_s="x")
    change("1/properties/type", "pub")(wrong)
    change("1/geometry", square(9, 50, 1))(wrong)
    change("2/properties/capacity", {"vehicle": -1})(wrong)
    found = [problem.feature for problem in check_site(wrong, "c")]
    assert found == ['site "c"', 'site "c"', 'zone "library"', 'zone "library"', 'zone "p1"']
    assert check_site(campus(), "c") == []


def test_the_same_boundary_twice() -> None:
    """A boundary that was pasted twice is one problem, not more."""
    twice = campus()
    twice["features"].append(copy.deepcopy(twice["features"][0]))
    assert len(check_site(twice, "c")) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
places = st.sampled_from(sorted({path for path, _, _ in MISTAKES}))


@given(places, json_values)
def test_nonsense_is_always_a_site_error(path: str, value: object) -> None:
    """Whatever stands in a file, it is a site or a `SiteError`, never another exception."""
    wrong = campus()
    change(path, value)(wrong)
    try:
        site = parse_site(wrong, "c")
    except SiteError:
        assert check_site(wrong, "c")
    else:
        assert parse_site(site.geojson, "c") == site


def test_at_speed() -> None:
    """A time-lapse run divides times and multiplies speeds; the GeoJSON gives the same site again."""
    site = parse_site(campus(offline_grace_s=30, hold_s=1200), "c")
    fast = at_speed(site, 60)
    assert fast.hold_s == (20, 20)
    assert fast.zones[2].hold_s == (20, 720)
    assert (fast.fresh_s, fast.offline_grace_s, fast.max_position_age_s) == ((2, 2), 0.5, 60)
    assert fast.max_speed_mps == (4200, 4200)
    assert (fast.leave_margin_m, fast.max_accuracy_m) == (site.leave_margin_m, site.max_accuracy_m)
    assert fast.geojson["features"][0]["properties"]["speed"] == 60
    assert parse_site(fast.geojson, "c") == fast
    assert at_speed(fast, 2).geojson["features"][0]["properties"]["speed"] == 120
    # what a time-lapse run serves can be edited and sent back
    again = unscaled(fast)
    assert (again.hold_s, again.zones[2].hold_s) == (site.hold_s, site.zones[2].hold_s)
    assert (again.max_speed_mps, again.offline_grace_s) == (site.max_speed_mps, site.offline_grace_s)
    assert unscaled(site) is site


@given(st.floats(0.01, 10_000))
def test_at_speed_round_trip(speed: float) -> None:
    """At any speed, the GeoJSON of the result is read as the same site."""
    fast = at_speed(parse_site(campus(), "c"), speed)
    assert parse_site(json.loads(json.dumps(fast.geojson)), "c") == fast


def test_load_site(tmp_path: Path) -> None:
    """A file with or without byte order mark is read, and written again it gives the same site."""
    path = tmp_path / "c.geojson"
    path.write_text(json.dumps(campus()), encoding="utf-8-sig")
    site = load_site(path)
    path.write_text(format_geojson(site.geojson), encoding="utf-8")
    assert load_site(path) == site
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3 + 2


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is not JSON"),
        (b'{"type":\n nope}', "is not JSON: Expecting value (line 2, column 2)"),
        (b"\xff\xfe", "is not JSON: 'utf-8' codec"),
        (b"[NaN]", "is not JSON: NaN is not a number"),
        (b"[" * 200_000, "is nested too deeply"),
        (b"[]", "is not a GeoJSON FeatureCollection"),
        (
            '{"type":"FeatureCollection"}'.encode("utf-16"),
            "is not JSON in UTF-8: it is UTF-16. A site file is",
        ),
        (b"\x1f\x8b\x08\x00rest", "it is compressed (gzip)"),
        (b"PK\x03\x04rest", "it is a zip archive, such as KMZ or a shapefile"),
        (b'<?xml version="1.0"?><kml/>', "it is XML or HTML, such as KML"),
    ],
)
def test_files_that_are_no_site(tmp_path: Path, content: bytes, text: str) -> None:
    """The error for invalid JSON gives its place."""
    path = tmp_path / "c.geojson"
    path.write_bytes(content)
    with pytest.raises(SiteError) as raised:
        load_site(path)
    assert str(raised.value).startswith(f"{path}: the file: ")
    assert text in str(raised.value)


def test_missing_file(tmp_path: Path) -> None:
    """The errors for a missing file and for a folder give the cause."""
    with pytest.raises(SiteError, match=r"does not exist. Use the path of a site file"):
        load_site(tmp_path / "nope.geojson")
    with pytest.raises(SiteError, match="cannot be read: Is a directory"):
        load_site(tmp_path)


@pytest.mark.parametrize("name", ["csusb", "mc_rockville"])
def test_real_sites(name: str) -> None:
    """Real campuses are read with all their zones."""
    path = shared("data", "sites", f"{name}.geojson")
    site = load_site(path)
    assert len(site.zones) == len(json.loads(path.read_text())["features"])


def test_ul_is_usable() -> None:
    """The bundled site has all its zones and its attribution, and no two zones cross."""
    site = load_site(ROOT / "sites" / "ul.geojson")
    assert (site.id, site.timezone) == ("ul", "Europe/Dublin")
    types = [zone.type for zone in site.zones]
    assert (types.count("building"), types.count("car_park"), types.count("gate")) == (13, 18, 5)
    properties = [f["properties"] for f in site.geojson["features"]]
    assert "drawn" in properties[0]["source"]
    assert all(p["drawn"] == "by hand" for p in properties)
    for one, other in combinations(site.zones, 2):
        apart = one.geometry.disjoint(other.geometry)
        nested = one.geometry.covers(other.geometry) or other.geometry.covers(one.geometry)
        assert apart or nested, (one.id, other.id)


def test_ul_buildings_lie_where_they_are() -> None:
    """Every known building position is inside the building of that name."""
    site = load_site(ROOT / "sites" / "ul.geojson")
    buildings = {zone.name: zone.geometry for zone in site.zones}
    rows = shared("data", "ul", "building_points.csv").read_text().splitlines()[1:]
    for name, lat, lon in (row.split(",") for row in rows):
        assert buildings[name].contains(shapely.Point(float(lon), float(lat))), name


def test_bundled_site() -> None:
    """The ready site is found by its name, and an unknown name is answered with those that there are."""
    assert load_site(bundled_site("ul")).id == "ul"
    with pytest.raises(SiteError, match=r"x: the site: does not come with headcount. Available: ul"):
        bundled_site("x")


def test_wheel_has_the_site(tmp_path: Path) -> None:
    """A wheel carries the ready site as a file of its own, not as a link out of the package."""
    pytest.importorskip("setuptools", reason="building a wheel needs setuptools")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "sites", source / "sites")
    skip = shutil.ignore_patterns("web", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", source / "src", symlinks=True, ignore=skip)
    build = "from setuptools.build_meta import build_wheel; import sys; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read("headcount/sites/bundled/ul.geojson")
    assert parse_site(decode_json(content, "ul"), "ul").id == "ul"
