"""Site files that parse but can't be used as they are: time zones, projections, shared edges, odd values."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from case_files import case_json
from headcount.counting.engine import Engine
from headcount.counting.fix_columns import FixColumns
from headcount.counting.site_feature import MAX_AMOUNT
from headcount.counting.site_file import MAX_SITE_BYTES, at_speed, check_site, parse_site
from headcount.counting.site_warnings import site_warnings
from headcount.counting.time_zones import time_zones

Ring = list[list[float]]


def hill(**site: object) -> dict[str, Any]:
    """A college with a library and a car park, with more properties of the site."""
    geojson: dict[str, Any] = case_json("base.geojson")
    geojson["features"][0]["properties"] |= site
    return geojson


def box(west: int, south: int, east: int, north: int) -> Ring:
    """A ring in units of 0.0001 degrees from 14.005 east, 47.003 north."""
    corners = ((west, south), (east, south), (east, north), (west, north), (west, south))
    return [[round(14.005 + x / 10_000, 7), round(47.003 + y / 10_000, 7)] for x, y in corners]


def library_of(*parts: list[Ring]) -> dict[str, Any]:
    """The college with a library of these parts, each an outer ring and its holes."""
    geojson = hill()
    geojson["features"][1]["geometry"] = {"type": "MultiPolygon", "coordinates": list(parts)}
    return geojson


def problems(geojson: object) -> list[str]:
    """All problems as texts."""
    return [str(problem) for problem in check_site(geojson, "f")]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Europe/Viena", 'Do you mean "Europe/Vienna"?'),
        ("europe/vienna", 'Do you mean "Europe/Vienna"?'),
        ("Vienna", 'Do you mean "Europe/Vienna"?'),
        (" Europe/Vienna", 'Do you mean "Europe/Vienna"?'),
        ("Europe", 'Use a name such as "Europe/Dublin"'),
        ("CEST", 'Use a name such as "Europe/Dublin"'),
        ("../etc/passwd", 'Use a name such as "Europe/Dublin"'),
        ("posix/Europe/Vienna", "Do you mean"),
    ],
)
def test_an_unknown_time_zone_is_a_problem(name: str, meant: str) -> None:
    """A name that no role could load is refused by the parser that all of them use, with the likely name."""
    (found,) = problems(hill(timezone=name))
    assert f'site "hill": has the unknown time zone {name!r}. ' in found
    assert meant in found


def test_legacy_time_zones_are_known() -> None:
    """Older names are valid."""
    assert parse_site(case_json("tz_us.geojson"), "f").timezone == "US/Central"


def test_every_known_time_zone_loads_on_a_machine_without_any() -> None:
    """A name that `site check` accepts is loaded by the scaler, whatever time zones the system has."""
    assert len(time_zones()) > 500
    code = (
        "from zoneinfo import ZoneInfo; from headcount.counting.time_zones import time_zones; "
        "[ZoneInfo(name) for name in time_zones()]"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONTZPATH": ""}, check=True)


def named(name: str) -> dict[str, Any]:
    """A `crs` as in the GeoJSON specification of 2008."""
    return {"type": "name", "properties": {"name": name}}


@pytest.mark.parametrize(
    ("crs", "text"),
    [
        (named("urn:ogc:def:crs:EPSG::3857"), "is projected (EPSG:3857)"),
        (named("urn:ogc:def:crs:EPSG:9.9:25833"), "is projected (EPSG:25833)"),
        (named("http://www.opengis.net/def/crs/EPSG/0/2157"), "is projected (EPSG:2157)"),
        (named("EPSG:900913"), "is projected (EPSG:900913)"),
        (named("urn:ogc:def:crs:ESRI::102100"), "is projected (ESRI:102100)"),
        ({"type": "EPSG", "properties": {"code": 27700}}, "is projected (EPSG:27700)"),
        (
            {"type": "link", "properties": {"href": "http://spatialreference.org/ref/epsg/2154/proj4/"}},
            "is projected (EPSG:2154)",
        ),
        (named("urn:ogc:def:crs:EPSG::4258"), "has coordinates in another system than WGS 84 (EPSG:4258)"),
        (
            named("WGS 84 / Pseudo-Mercator"),
            "has coordinates in another system than WGS 84: 'WGS 84 / Pseudo-Mercator'",
        ),
        ({"type": "name"}, "has a crs that names no coordinate reference system"),
        (7, "has a crs that names no coordinate reference system"),
    ],
)
def test_another_reference_system_is_a_problem(crs: object, text: str) -> None:
    """A file in other coordinates is refused once, whether their numbers look like degrees or not."""
    for name in ("crs3857.geojson", "crs3857_nearzero.geojson"):
        (found,) = problems(case_json(name) | {"crs": crs})
        assert f"f: the file: {text}" in found
        assert "Export it as EPSG:4326" in found


@pytest.mark.parametrize(
    "crs",
    [
        None,
        "EPSG:4326",
        named("urn:ogc:def:crs:OGC:1.3:CRS84"),
        named("urn:ogc:def:crs:EPSG::4326"),
        named("urn:ogc:def:crs:OGC::CRS84h"),
        named("EPSG:4979"),
        named("WGS84"),
    ],
)
def test_wgs_84_is_no_problem(crs: object) -> None:
    """The names of WGS 84 that programs write are accepted."""
    assert problems(hill() | {"crs": crs}) == []


def test_the_reference_system_of_a_geometry() -> None:
    """PostGIS writes `crs` into each geometry: it is a problem of that feature."""
    geojson = hill()
    geojson["features"][1]["geometry"]["crs"] = named("EPSG:3857")
    assert 'zone "lib": is projected (EPSG:3857)' in problems(geojson)[0]


def test_metres_without_a_reference_system() -> None:
    """Numbers that are no degrees in any order are named as metres; those that look like degrees get a warning."""
    far, near = case_json("crs3857.geojson"), case_json("crs3857_nearzero.geojson")
    del far["crs"], near["crs"]
    assert all("Are these metres of a projection?" in problem for problem in problems(far))
    (warning,) = site_warnings(parse_site(near, "f"))
    assert "the site is 6,672 km across" in warning
    assert "in degrees (EPSG:4326)?" in warning


def test_parts_that_touch_become_one() -> None:
    """Parts along a common edge are one outline of the same area, however long the edge is."""
    site = parse_site(case_json("multi_touch_edge.geojson"), "f")
    assert site.zones[1].geometry.geom_type == "Polygon"
    assert site.zones[1].geometry.area == pytest.approx(0.002 * 0.001)
    assert site.geojson["features"][1]["geometry"]["type"] == "Polygon"
    site = parse_site(
        library_of([box(0, 0, 5, 5)], [box(5, 2, 9, 7)], [box(7, 7, 9, 9)], [box(0, 8, 2, 9)]), "f"
    )
    assert site.zones[1].geometry.geom_type == "MultiPolygon"
    assert site.zones[1].geometry.area == pytest.approx((25 + 20 + 4 + 2) * 1e-8)


def test_holes_that_touch() -> None:
    """A hole along the outer ring is a notch, and two along each other are one."""
    notch = parse_site(library_of([box(0, 0, 9, 9), box(0, 2, 3, 5)]), "f").zones[1].geometry
    assert notch.area == pytest.approx((81 - 9) * 1e-8)
    holes = parse_site(library_of([box(0, 0, 9, 9), box(1, 1, 3, 3), box(3, 1, 5, 3)]), "f").zones[1].geometry
    assert holes.area == pytest.approx((81 - 8) * 1e-8)
    assert len(holes.geoms[0].interiors if holes.geom_type == "MultiPolygon" else holes.interiors) == 1


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (
            [[box(0, 0, 5, 5)], [box(4, 0, 9, 5)]],
            "has parts that overlap: number 1 and number 2, at longitude 14.00545",
        ),
        (
            [[box(0, 0, 5, 5)], [box(6, 0, 9, 5)], [box(0, 0, 5, 5)]],
            "has parts that overlap: number 1 and number 3",
        ),
        ([[box(0, 0, 9, 9), box(1, 1, 8, 8), box(2, 2, 3, 3)]], "is not a valid polygon: holes are nested"),
        ([[box(0, 0, 9, 9), box(0, 0, 9, 9)]], "crosses itself"),
    ],
)
def test_other_faults_stay_problems(parts: list[list[Ring]], text: str) -> None:
    """Overlapping parts are named by their numbers, and other faults as before."""
    assert text in problems(library_of(*parts))[0]


def test_a_hold_below_the_sites_is_a_warning() -> None:
    """It has no effect, because every member of a zone is also one of the site; a longer one has."""
    geojson = hill(hold_s={"vehicle": 600})
    geojson["features"][1]["properties"]["hold_s"] = 599
    first, second = site_warnings(parse_site(geojson, "f"))
    assert first.startswith('zone "lib": its hold_s of 599 s for kind person has no effect.')
    assert "for kind vehicle has no effect. It is below the site's, 600 s" in second
    assert site_warnings(parse_site(hill(), "f")) == []


def test_narrow_zones_are_a_warning() -> None:
    """Zones that are nowhere 20 m wide are named in one line, L-shaped ones too; a corridor at a hall is none."""
    corridor = [[0, 0], [9, 0], [9, 1], [5, 1], [5, 4], [1, 4], [1, 1], [0, 1], [0, 0]]
    geojson = library_of([[[14.005 + x / 10_000, 47.003 + y / 10_000] for x, y in corridor]])
    assert site_warnings(parse_site(geojson, "f")) == []
    geojson = library_of([box(0, 0, 9, 1)], [box(0, 1, 1, 9)])
    (warning,) = site_warnings(parse_site(geojson, "f"))
    assert warning.startswith("1 zone is narrower than 20 m everywhere: lib.")


EXTREME = [0, 1e-9, 1, 1e6, MAX_AMOUNT]
LIMITS = ["hold_s", "leave_margin_m", "max_accuracy_m", "max_speed_mps", "fresh_s", "offline_grace_s"]


@pytest.mark.parametrize("value", EXTREME)
@pytest.mark.parametrize("key", LIMITS)
def test_what_the_check_accepts_can_be_counted(key: str, value: float) -> None:
    """With the smallest and largest limits that the check accepts, an engine starts and counts."""
    site = parse_site(hill(**{key: value}), "f")
    engine = Engine(site)
    now, lat, lon = (np.array([number]) for number in (1.7e9, 47.004, 14.006))
    fix = FixColumns(np.zeros(1, np.uint8), now, now, lat, lon, np.array([5.0]))
    engine.step(fix, engine.slots([b"person.a"]))
    engine.advance(1.7e9 + 1)
    expected = [0, 0, 0] if value <= {"hold_s": 0.5, "max_accuracy_m": 1}.get(key, -1) else [1, 1, 0]
    assert engine.counts(1.7e9 + 1)[:, 0, 0].tolist() == expected
    at_speed(site, 1000)


@pytest.mark.parametrize("key", LIMITS)
def test_larger_limits_are_a_problem(key: str) -> None:
    """Numbers that the engine can't compute with are refused."""
    (found,) = problems(hill(**{key: 1e13}))
    assert "= 1e+13, which is too large. Set" in found


@pytest.mark.parametrize("value", ["\ud800", "x" * MAX_SITE_BYTES])
def test_what_cannot_be_published_is_a_problem(value: str) -> None:
    """Half a character, or more than a message may have, is found by the check and not by the first worker."""
    (found,) = problems(hill(remark=value))
    assert "cannot be published" in found or "for one message" in found
