"""The device's own rules agree with the counting rules of the system."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from device.make_vectors import START_S, at, sites
from headcount.counting import site_file
from headcount.counting.site import Site
from headcount.counting.site_file import parse_site
from headcount.counting.zone_lookup import ZoneLookup
from headcount.device import site_areas
from headcount.device.fix_buffer import FixBuffer, WaitingFix
from headcount.device.positions import DevicePosition, position_of_payload
from headcount.device.reporting import Reporter, ReportState
from headcount.device.retry_delay import MAX_RETRY_S, retry_delay_s
from headcount.device.saved_state import decode_state, encode_state
from headcount.device.site_areas import KINDS, DeviceKind, SiteAreas
from headcount.lab.chaos.oracle import Oracle

#: Positions nearer than this to an edge or to the end of a margin are not compared: the planes differ there.
UNCERTAIN_M = 0.3


def _lookup(geojson: Any) -> ZoneLookup:
    return ZoneLookup(parse_site(geojson, "test"))


CAMPUS = {**sites()["campus"], "features": sites()["campus"]["features"][:-1]}
SITES = {
    "ul": json.loads((Path(__file__).parents[2] / "sites" / "ul.geojson").read_text()),
    "campus": CAMPUS,
    "two-parts": sites()["two-parts"],
}
LOOKUPS = {name: _lookup(geojson) for name, geojson in SITES.items()}


def _is_near_a_limit(site: Site, x: float, y: float, acc: float, before: set[str]) -> bool:
    point = shapely.Point(x, y)
    for zone in site.zones:
        edge_m = shapely.distance(zone.plane.boundary, point)
        margin_m = min(zone.leave_margin_m, site.leave_margin_acc * acc if acc else math.inf)
        beyond_m = shapely.distance(zone.plane, point)
        if edge_m < UNCERTAIN_M or abs(beyond_m - 2 * acc) < UNCERTAIN_M:
            return True
        if zone.id in before and abs(beyond_m - margin_m) < UNCERTAIN_M:
            return True
    return False


@given(data=st.data())
def test_zones_are_those_of_the_system(data: st.DataObject) -> None:
    """For any position, accuracy and zones before, a device predicts the zones that the system finds."""
    name = data.draw(st.sampled_from(sorted(SITES)))
    lookup = LOOKUPS[name]
    site = lookup.site
    west, south, east, north = site.zones[0].geometry.buffer(0.001).bounds
    lat, lon = data.draw(st.floats(south, north)), data.draw(st.floats(west, east))
    acc = data.draw(st.sampled_from([0.0, 2.0, 9.0, 40.0]))
    ids = [zone.id for zone in site.zones]
    before = set(data.draw(st.lists(st.sampled_from(ids), max_size=4)))
    before = before | {"site"} if before else before
    x, y = site.project(np.array([lat]), np.array([lon]))
    assume(not _is_near_a_limit(site, float(x[0]), float(y[0]), acc, before))
    zone = np.array([ids.index(id_) for id_ in before], dtype=np.int64)
    old = lookup.sets.numbers(lookup.sets.from_pairs(np.zeros_like(zone), zone, 1))
    new = lookup.move(old, lookup.cells(x, y), x, y, np.array([acc]))
    _, members = lookup.sets.members(new)
    expected = {ids[i] for i in members}
    kind = data.draw(st.sampled_from(KINDS))
    found = SiteAreas(site.geojson, kind).move(before, DevicePosition(START_S, lat, lon, acc or None))
    assert found == (expected if "site" in expected else set())
    if found:
        assert SiteAreas(site.geojson, kind).hold_s(found) == lookup.sets.hold_s[new[0], KINDS.index(kind)]


@pytest.mark.parametrize("name", sorted(SITES))
def test_limits_of_a_site_are_those_of_the_system(name: str) -> None:
    """Limits of a site, and their defaults, are read as the system reads them."""
    site = LOOKUPS[name].site
    for i, kind in enumerate(KINDS):
        areas = SiteAreas(SITES[name], kind)
        assert areas.max_speed_mps == site.max_speed_mps[i]
        assert areas.max_accuracy_m == site.max_accuracy_m
        assert areas.leave_margin_acc == site.leave_margin_acc
        assert [(a.id, a.hold_s, a.leave_margin_m) for a in areas.areas.values()] == [
            (zone.id, zone.hold_s[i], zone.leave_margin_m) for zone in site.zones
        ]


def test_defaults_are_those_of_the_system() -> None:
    """The defaults of the counting rules are the same on both sides."""
    assert tuple(site_areas.HOLD_S[kind] for kind in KINDS) == site_file.HOLD_S
    for name in ("LEAVE_MARGIN_M", "LEAVE_MARGIN_ACC", "MAX_ACCURACY_M"):
        assert getattr(site_areas, name) == getattr(site_file, name)
    assert site_file.MAX_SPEED_MPS == (site_areas.MAX_SPEED_MPS,) * 2


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "features",
                    "properties",
                    "geometry",
                    "role",
                    "id",
                    "hold_s",
                    "type",
                    "coordinates",
                    "person",
                ]
            ),
            inner | st.sampled_from(["site", "zone", "Polygon", "MultiPolygon"]),
            max_size=5,
        )
    ),
    max_leaves=30,
)


@given(geojson=JSON)
def test_any_site_message_is_read_or_refused(geojson: Any) -> None:
    """Any JSON as a site either is a site or raises ValueError."""
    with contextlib.suppress(ValueError):
        SiteAreas(geojson, "person")


@given(
    t=st.floats(0, 4e9),
    lat=st.floats(-90, 90),
    lon=st.floats(-180, 180),
    optional=st.lists(st.none() | st.floats(), min_size=5, max_size=5),
)
def test_a_payload_is_the_position_rounded(
    t: float, lat: float, lon: float, optional: list[float | None]
) -> None:
    """The bytes of a fix are JSON without exponents, and give the same bytes again."""
    assume(lat or lon)
    payload = DevicePosition(t, lat, lon, *optional).payload()
    fields = json.loads(payload)
    assert b"e" not in payload.replace(b"vel", b"")
    assert list(fields)[:3] == ["tst", "lat", "lon"]
    assert fields["lat"] == pytest.approx(lat, abs=6e-8)
    assert fields["tst"] == pytest.approx(t, abs=6e-4)
    if fields["lat"] or fields["lon"]:
        assert position_of_payload(payload).payload() == payload


@pytest.mark.parametrize(
    "values",
    [(math.nan, 1, 1), (1, math.inf, 1), (1, 91, 0), (1, 0, 181), (1, 0, 0), (1_795_532_550_000, 1, 1)],
)
def test_positions_that_the_system_would_refuse(values: tuple[float, float, float]) -> None:
    """A position that would be malformed or invalid cannot be made."""
    with pytest.raises(ValueError, match=r"must be|is not"):
        DevicePosition(*values)


@given(
    capacity=st.integers(1, 12),
    fixes=st.lists(st.tuples(st.integers(1, 50), st.booleans()), max_size=60),
)
def test_a_full_buffer_keeps_what_matters(capacity: int, fixes: list[tuple[int, bool]]) -> None:
    """A buffer is bounded, in order, has the newest fix, and drops fixes that change counts last, oldest first."""
    buffer, t, counted = FixBuffer(capacity), 0.0, []
    for number, (step, is_counted) in enumerate(fixes):
        t += step
        buffer.append(WaitingFix(number, t, is_counted, b""))
        counted += [number] if is_counted else []
    numbers = [fix.number for fix in buffer.fixes]
    assert len(numbers) == min(capacity, len(fixes))
    assert numbers == sorted(numbers)
    assert not fixes or numbers[-1] == len(fixes) - 1
    if len(counted) <= capacity - 2:
        assert set(counted) <= set(numbers)


@given(attempt=st.integers(0, 10_000), share=st.floats(0, 1, exclude_max=True), after_s=st.floats(0, 1e4))
def test_pauses_are_bounded(attempt: int, share: float, after_s: float) -> None:
    """A pause is never shorter than what the server asks for, and at most a minute longer."""
    assert after_s <= retry_delay_s(attempt, share, after_s) <= after_s + MAX_RETRY_S


POSITIONS = st.builds(
    DevicePosition, st.floats(0, 4e9), st.floats(1, 89), st.floats(-180, 180), st.none() | st.floats(0, 9)
)


@given(
    zones=st.frozensets(st.text(max_size=5)),
    last=st.none() | POSITIONS,
    placed=st.none() | POSITIONS,
    interval_s=st.none() | st.floats(1, 100),
    paused_until=st.just(-math.inf) | st.floats(0, 4e9),
    is_requested=st.booleans(),
)
def test_a_state_survives_a_restart(
    zones: frozenset[str],
    last: DevicePosition | None,
    placed: DevicePosition | None,
    interval_s: float | None,
    paused_until: float,
    is_requested: bool,
) -> None:
    """A saved state is the same when it is read."""
    state = ReportState(zones, last, placed, interval_s, paused_until, is_requested)
    assert decode_state(encode_state(state)) == state


@given(text=st.text(max_size=50) | JSON.map(json.dumps))
def test_any_saved_state_is_read_or_refused(text: str) -> None:
    """Any text as a saved state raises ValueError at most."""
    with contextlib.suppress(ValueError):
        decode_state(text)


@given(
    steps=st.lists(
        st.tuples(st.floats(0.5, 200), st.floats(-0.004, 0.004), st.floats(-0.004, 0.004), st.floats(0, 60)),
        max_size=60,
    )
)
def test_the_last_report_decides_what_the_system_counts(
    steps: list[tuple[float, float, float, float]],
) -> None:
    """After each position, the zones of the last report are those of the newest plausible position."""
    reporter = Reporter("person")
    reporter.site = SiteAreas(CAMPUS, "person")
    t = float(START_S)
    for step_s, north, east, acc in steps:
        t += step_s
        position = DevicePosition(t, 52.67 + north, -8.57 + east, acc)
        state = reporter.state
        if reporter.judge(position) is None and not (
            state.placed and reporter.site.is_implausible(state.placed, position)
        ):
            assert reporter.site.move(reporter.state.zones, position) == reporter.state.zones


STEPS_OF_A_TRACK = st.lists(
    st.tuples(
        st.sampled_from([1.0, 2.0, 9.0, 55.0]),
        st.floats(-14, 14),
        st.floats(-14, 14),
        st.sampled_from([None, 3.0, 12.0, 150.0]),
    ),
    min_size=10,
    max_size=40,
)
#: Places near the edges of zones, in metres from the middle.
STARTS = st.sampled_from(
    [(-190.0, -95.0), (-120.0, -60.0), (5.0, -130.0), (95.0, -120.0), (15.0, 35.0), (290.0, 0.0)]
)


@settings(max_examples=50)
@given(
    name=st.sampled_from(["campus", "two-parts"]),
    kind=st.sampled_from(KINDS),
    start=STARTS,
    steps=STEPS_OF_A_TRACK,
)
def test_reports_are_counted_like_all_positions(
    name: str,
    kind: DeviceKind,
    start: tuple[float, float],
    steps: list[tuple[float, float, float, float | None]],
) -> None:
    """After each position, the reports so far have the same zones as all positions so far would have."""
    site = LOOKUPS[name].site
    every, reported = Oracle(site.geojson), Oracle(site.geojson)
    reporter = Reporter(kind)
    reporter.site = SiteAreas(site.geojson, kind)
    t, (east, north) = float(START_S), start
    zones: set[str] = set()
    for step_s, dx, dy, acc in steps:
        position = at(east + dx, north + dy, t + step_s - START_S, **({} if acc is None else {"acc": acc}))
        x, y = site.project(np.array([position.lat]), np.array([position.lon]))
        if _is_near_a_limit(site, float(x[0]), float(y[0]), acc or 0.0, zones):
            continue
        t, east, north = t + step_s, east + dx, north + dy
        row = (kind, "d", t, position.lat, position.lon, acc)
        every.fix(t, *row)
        if reporter.judge(position):
            reported.fix(t, *row)
        for oracle in (every, reported):
            oracle.advance(t)
        zones = every.devices[kind, "d"].zones
        known = reported.devices.get((kind, "d"))
        assert (known.zones if known else set()) == zones == reporter.state.zones
