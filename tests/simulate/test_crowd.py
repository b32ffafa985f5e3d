"""The simulated crowd: deterministic, plausible, with realistic noise, and without reports off site."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from headcount.counting.site import Site
from headcount.counting.site_file import parse_site
from headcount.simulate.crowd import Crowd, Reports
from headcount.simulate.ground_truth import HEADER, GroundTruth
from headcount.simulate.places import to_degrees
from small_site import feature, site_of, small_site, square

READY = Path(__file__).resolve().parents[2] / "sites" / "ul.geojson"
PEOPLE, VEHICLES = 400, 150


def day_of(crowd: Crowd, start_s: float, end_s: float, step_s: float = 10.0) -> list[Reports]:
    """All reports between two times of day."""
    return [crowd.step(float(t)) for t in np.arange(start_s, end_s, step_s)]


def errors_m(site: Site, reports: Reports) -> NDArray[np.float64]:
    """Distance of each report from the true position."""
    x, y = site.project(reports.lat_deg, reports.lon_deg)
    true_x, true_y = site.project(reports.true_lat_deg, reports.true_lon_deg)
    return np.hypot(x - true_x, y - true_y)


def test_the_same_seed_is_the_same_day() -> None:
    """Two crowds of one seed report the same; another seed reports something else."""
    first, second, other = (
        [
            np.concatenate([r.device, r.lat_deg, r.acc_m])
            for r in day_of(Crowd(small_site(), 50, 20, seed, 3e4), 3e4, 4e4)
        ]
        for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(np.concatenate(first), np.concatenate(other))


def test_a_day_has_two_peaks_and_an_empty_night() -> None:
    """There are no people at 3:00, a peak before lunch, a dip at lunch, a peak after it, and few at 21:00."""
    crowd = Crowd(small_site(), PEOPLE, VEHICLES, 3, 0.0)
    there = {}
    for hour in (3.0, 8.0, 9.5, 11.5, 13.4, 15.0, 18.5, 21.2, 23.5):
        crowd.step(3600 * hour)
        there[hour] = int(crowd.on_site()[:PEOPLE].sum())
    assert there[3.0] == there[23.5] == 0
    assert there[8.0] < 0.2 * PEOPLE < there[9.5] < there[11.5]
    assert there[13.4] < 0.85 * min(there[11.5], there[15.0])
    assert there[11.5] > 0.6 * PEOPLE
    assert 0 < there[21.2] < 0.15 * PEOPLE < there[18.5] < there[15.0]


def test_a_crowd_starts_with_reports() -> None:
    """In a crowd that starts at 09:30, all devices on site report within a minute, parked cars too."""
    crowd = Crowd(small_site(), PEOPLE, VEHICLES, 5)
    there = crowd.on_site()
    assert there[:PEOPLE].sum() > 0.3 * PEOPLE
    assert crowd.parked().sum() > 10
    reported = np.concatenate([r.device for r in day_of(crowd, 34_201, 34_262, 1.0)])
    stayed = there & crowd.on_site() & ~crowd.moving()
    assert set(np.flatnonzero(stayed)) <= set(reported.tolist())


def test_speeds_are_plausible() -> None:
    """By true positions, people walk at 1.2 to 1.5 m/s or ride in a car, and cars drive at 5 to 10 m/s."""
    site = small_site()
    crowd = Crowd(site, PEOPLE, VEHICLES, 7, 7.5 * 3600)
    everybody = np.arange(PEOPLE + VEHICLES)
    x, y = crowd.plane(everybody)
    fastest = np.zeros(len(everybody))
    said = []
    for t in np.arange(7.5 * 3600, 10.5 * 3600, 5.0):
        reports = crowd.step(float(t))
        said.append(reports.vel_kmh[reports.vel_kmh > 0.01] / 3.6)
        new_x, new_y = crowd.plane(everybody)
        fastest = np.maximum(fastest, np.hypot(new_x - x, new_y - y) / 5.0)
        x, y = new_x, new_y
    speeds = np.concatenate(said)
    walking = speeds[speeds < 3]
    assert fastest.max() < 10.01
    assert walking.min() > 1.19
    assert walking.max() < 1.51
    assert speeds[speeds >= 3].min() > 4.99
    assert len(walking) > 500


def test_noise_matches_the_accuracy() -> None:
    """About 68 % of the fixes are within their own acc, which is at least 3 m, and larger indoors."""
    site = small_site()
    crowd = Crowd(site, PEOPLE, VEHICLES, 9)
    reports = [r for r in day_of(crowd, 34_300, 45_000, 20.0) if len(r)]
    acc = np.concatenate([r.acc_m for r in reports])
    error = np.concatenate([errors_m(site, r) for r in reports])
    assert len(acc) > 10_000
    assert np.mean(error <= acc) == pytest.approx(0.68, abs=0.03)
    assert acc.min() >= 3.0
    assert np.quantile(acc, 0.99) < 45.0
    moves = np.concatenate([r.vel_kmh > 0.01 for r in reports])
    assert np.median(acc[moves]) < 0.6 * np.median(acc[~moves])


def test_errors_of_neighbouring_fixes_are_alike() -> None:
    """A phone's error is correlated half a minute later, but not after ten minutes."""
    crowd = Crowd(small_site(), 3000, 0, 11)
    before = crowd._error.copy()
    crowd._error_s[:] = crowd.t_s - 30
    crowd._draw_error(np.arange(3000))
    soon = crowd._error.copy()
    crowd._error_s[:] = crowd.t_s - 600
    crowd._draw_error(np.arange(3000))
    assert np.corrcoef(before[0], soon[0])[0, 1] == pytest.approx(0.5 ** (30 / 45), abs=0.06)
    assert abs(np.corrcoef(soon[0], crowd._error[0])[0, 1]) < 0.06


def test_devices_off_site_send_one_fix() -> None:
    """Every fix is on site by its true position, except for one clearly outside after each departure."""
    site = small_site()
    crowd = Crowd(site, PEOPLE, VEHICLES, 13, 6 * 3600)
    boundary = site.zones[0].plane
    outside_after: dict[int, bool] = {}
    outside = 0
    for reports in day_of(crowd, 6 * 3600, 23 * 3600, 15.0):
        x, y = site.project(reports.true_lat_deg, reports.true_lon_deg)
        away_m = shapely.distance(boundary, shapely.points(x, y))
        for device, distance in zip(reports.device.tolist(), away_m.tolist(), strict=True):
            if distance > 1e-6:
                assert distance > 55
                assert not outside_after.get(device, True), "a second fix outside"
                outside += 1
            outside_after[device] = distance > 1e-6
    assert outside > 0.5 * PEOPLE
    assert all(outside_after.values()), "somebody left without saying so"


def test_parked_cars_stop_reporting_and_never_overfill_a_car_park() -> None:
    """A parked car sends three fixes and then none until it drives; 40 spaces hold 40 cars."""
    crowd = Crowd(small_site(), PEOPLE, VEHICLES, 15, 6 * 3600)
    sent_parked: dict[int, int] = {}
    most = 0
    for t in np.arange(6 * 3600, 22 * 3600, 10.0):
        reports = crowd.step(float(t))
        parked = crowd.parked()
        most = max(most, int(parked.sum()))
        for device in reports.device[parked[reports.device]].tolist():
            sent_parked[device] = sent_parked.get(device, 0) + 1
    assert most == 40
    assert set(sent_parked.values()) == {3}


def test_truth_agrees_with_geometry() -> None:
    """After every step, each device's newest row has exactly the zones that cover its true position."""
    site = small_site()
    crowd = Crowd(site, 150, 60, 17, 8 * 3600)
    truth = GroundTruth(crowd)
    newest = dict.fromkeys(crowd.names, "")
    everybody = np.arange(len(crowd.names))
    for t in np.arange(8 * 3600, 14 * 3600, 30.0):
        reports = crowd.step(float(t))
        rows = [row.split(",") for row in truth.rows(float(t), reports)]
        assert {row[1] for row in rows} >= {crowd.names[index] for index in reports.device}
        newest |= {row[1]: row[5] for row in rows}
        x, y = crowd.plane(everybody)
        for zone in site.zones:
            covered = shapely.intersects_xy(zone.plane, x, y)
            said = [zone.id in newest[name].split(";") for name in crowd.names]
            assert covered.tolist() == said, (t, zone.id)
    assert HEADER.count(",") == 5


@pytest.mark.parametrize(
    "site",
    [
        site_of(),
        site_of(feature(square(4, 4, 2), role="zone", id="a", type="area")),
        site_of(feature(square(4, 4, 0.001), role="zone", id="b", type="building")),
        site_of(feature(square(9, 9, 5), role="zone", id="p", type="car_park")),
    ],
    ids=["no zones", "one lawn", "a sliver", "half outside"],
)
def test_any_site_works(site: Site) -> None:
    """Without buildings, car parks or gates, other places replace them."""
    crowd = Crowd(site, 60, 30, 19, 7 * 3600)
    assert sum(len(r) for r in day_of(crowd, 7 * 3600, 13 * 3600, 60.0)) > 500
    assert crowd.on_site().sum() > 20


def test_no_people_yield_nothing() -> None:
    """A crowd without people, without vehicles, or without both steps without their reports."""
    for people, vehicles in ((0, 0), (5, 0), (0, 5)):
        crowd = Crowd(small_site(), people, vehicles, 21, 8 * 3600)
        reports = day_of(crowd, 8 * 3600, 12 * 3600, 60.0)
        assert bool(sum(len(r) for r in reports)) == bool(people + vehicles)


def test_the_second_day_is_different() -> None:
    """After midnight a new day is drawn, and people come again."""
    crowd = Crowd(small_site(), 100, 20, 23, 20 * 3600)
    day_of(crowd, 20 * 3600, 35 * 3600, 60.0)
    assert crowd.on_site().sum() > 30


@pytest.mark.skipif(not READY.is_file(), reason="the ready site is not there")
def test_the_bundled_site() -> None:
    """On the University of Limerick's site the crowd uses most buildings and car parks."""
    site = parse_site(json.loads(READY.read_text()), str(READY))
    crowd = Crowd(site, 1000, 300, 25)
    crowd.step(11 * 3600.0)
    x, y = crowd.plane(np.flatnonzero(crowd.on_site()))
    busy = [
        zone for zone in site.zones if zone.type == "building" and shapely.contains_xy(zone.plane, x, y).any()
    ]
    assert len(busy) > 0.7 * sum(zone.type == "building" for zone in site.zones)


def test_degrees_and_metres_are_inverse() -> None:
    """`to_degrees` inverts `Site.project` to a micrometre."""
    site = small_site()
    x, y = np.array([0.0, 311.5, -200.0]), np.array([0.0, -55.25, 480.0])
    back_x, back_y = site.project(*to_degrees(site, x, y))
    assert np.allclose(back_x, x, atol=1e-6)
    assert np.allclose(back_y, y, atol=1e-6)
