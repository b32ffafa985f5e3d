"""True movement: the campus, its hard populations, and what their phones do."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from headcount.lab.accuracy.campus import KERB_M, WALL_M, campus_movement
from headcount.lab.accuracy.membership import members_at, true_members
from headcount.lab.accuracy.movement import (
    CARS,
    GRID_S,
    KERB,
    LATE,
    POPULATIONS,
    SECOND,
    SLEEPING,
    WALL,
    Movement,
)
from headcount.lab.accuracy.phone_behaviour import ASLEEP_S, always_reporting, behave
from headcount.lab.accuracy.sumo import MISSING, sumo_movement
from headcount.lab.accuracy.zone_geometry import CLASSES, WHOLE_SITE, ZoneGeometry
from headcount.sites.files import bundled_site, load_site

from .small_zones import EAST, WEST, fixes, zones

SITE = load_site(bundled_site("ul"))


@pytest.fixture(scope="module")
def campus() -> Movement:
    """A small campus for half an hour."""
    return campus_movement(SITE, 200, 0.5, 1, lambda _text, _share: None)


def test_the_campus_has_all_populations(campus: Movement) -> None:
    """Each population has devices, and cars are vehicles."""
    assert set(campus.population.tolist()) == set(range(len(POPULATIONS)))
    assert ((campus.population == CARS) == (campus.kind == 1)).all()
    assert len(campus.at_s) == 0.5 * 3600 / GRID_S + 1


def test_fixes_are_where_the_device_is(campus: Movement) -> None:
    """A fix at an instant of the comparison has the device's true position."""
    rows = np.flatnonzero(np.isin(campus.fixes.t_s, campus.at_s))
    at = np.searchsorted(campus.at_s, campus.fixes.t_s[rows])
    device = campus.fixes.device[rows]
    assert len(rows) > 100
    assert np.allclose(campus.fixes.x_m[rows], campus.x_m[at, device])
    assert np.allclose(campus.fixes.y_m[rows], campus.y_m[at, device])


@pytest.mark.parametrize(("population", "limits_m"), [(KERB, KERB_M), (WALL, WALL_M)])
def test_people_outside_are_near_a_building(
    campus: Movement, population: int, limits_m: tuple[float, float]
) -> None:
    """People at the kerb and along a wall are outside of their building, within the promised distance."""
    chosen = np.flatnonzero(campus.population == population)
    buildings = shapely.union_all([zone.plane for zone in SITE.zones if zone.type == "building"])
    points = shapely.points(campus.x_m[:, chosen].ravel(), campus.y_m[:, chosen].ravel())
    distance_m = shapely.distance(points, buildings)
    assert distance_m.max() <= limits_m[1] + 1e-6
    assert (distance_m > 0).mean() > 0.8  # another building may be as near


def test_a_second_device_belongs_to_its_person(campus: Movement) -> None:
    """A second device has the positions of a first one, and its person's number."""
    for device in np.flatnonzero(campus.population == SECOND):
        first = int(campus.person[device])
        assert campus.person[first] == first
        assert (campus.x_m[:, device] == campus.x_m[:, first]).all()
    phones = campus.kind == 0
    assert phones.sum() - len(np.unique(campus.person[phones])) == (campus.population == SECOND).sum()


def test_sleeping_phones_have_gaps_and_late_ones_deliver_later(campus: Movement) -> None:
    """Phones that sleep send fewer fixes; those that deliver late send all, in order; all others do neither."""
    behaving, before = behave(campus, 1), campus.fixes
    after = behaving.fixes
    for population, share in ((SLEEPING, 0.8), (LATE, 1.0), (KERB, 1.0)):
        chosen = np.flatnonzero(campus.population == population)
        sent, due = np.isin(after.device, chosen).sum(), np.isin(before.device, chosen).sum()
        assert sent <= share * due
        assert population == SLEEPING or sent == due
    delay_s = after.received_s - after.t_s
    late = campus.population[after.device] == LATE
    assert delay_s[late].max() > 60
    assert delay_s[~late].max() < 3
    assert (np.diff(after.received_s) >= 0).all()
    for device in np.unique(after.device[late]):
        assert (np.diff(after.t_s[after.device == device]) >= 0).all()
    assert ASLEEP_S[1] > 900  # longer than the hold of a person
    assert not np.isin(always_reporting(campus).population, (SLEEPING, LATE)).any()


def test_true_members_and_classes(campus: Movement) -> None:
    """The truth is geometry alone: a device in a zone is on site; each zone is in one class."""
    geometry = ZoneGeometry(SITE)
    truth = true_members(campus, geometry)
    assert (truth[:, :, 1:].any(axis=2) <= truth[:, :, 0]).all()
    device, at = int(campus.fixes.device[0]), 3
    expected = [
        shapely.intersects_xy(zone.plane, campus.x_m[at, device], campus.y_m[at, device])
        for zone in SITE.zones
    ]
    assert truth[at, device].tolist() == (expected if expected[0] else [False] * len(expected))
    classes = geometry.classes()
    assert sorted(np.concatenate(list(classes.values())).tolist()) == list(range(len(SITE.zones)))
    assert list(classes) == [*CLASSES, WHOLE_SITE]
    for name, bounds in zip(CLASSES[1:3], ((1000, 2000), (2000, 5000)), strict=True):
        assert all(bounds[0] <= geometry.area_m2[zone] < bounds[1] for zone in classes[name])


def test_distance_is_positive_inside() -> None:
    """The signed distance to an outline is positive inside, negative outside, and cut at the reach."""
    found = zones().distance_m(np.array([-60.0, -36.0, -45.0]), np.zeros(3), 25.0)
    assert found[:, WEST].tolist() == pytest.approx([20, -4, 5], abs=0.2)
    assert found[:, EAST].tolist() == [-25, -25, -25]


def test_members_stay_for_their_hold() -> None:
    """A device is where its last fix put it, from its receipt until the hold after its time has passed."""
    case = fixes([-60, 60])
    found = np.zeros((2, 3), np.bool_)
    found[0, [0, WEST]] = found[1, [0, EAST]] = True
    at_s = np.array([-1.0, 0.0, 29.0, 30.0, 930.0, 931.0])
    members = members_at(found, case, np.zeros(1, np.uint8), zones(), at_s)
    assert members[:, 0, WEST].tolist() == [False, True, True, False, False, False]
    assert members[:, 0, EAST].tolist() == [False, False, False, True, True, False]


def test_sumo() -> None:
    """Cars of SUMO cross the site and leave it; without SUMO there is a reason."""
    movement = sumo_movement(SITE, 60, 0.25, 1)
    if isinstance(movement, str):
        assert movement == MISSING
        pytest.skip(movement)
    truth = true_members(movement, ZoneGeometry(SITE))
    assert truth[:, :, 0].any()
    on_site = truth[:, :, 0]
    assert (on_site[:-1] & ~on_site[1:]).any(axis=0).sum() >= 2
    assert (on_site[1:] & ~on_site[:-1]).any(axis=0).sum() >= 2
    assert on_site.any(axis=0).sum() > on_site[-1].sum()
