"""The figures of the history: the generated day, its size on disk, and answers equal to those of PostGIS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely

from headcount.lab.figures.generated_day import GeneratedDay
from headcount.lab.figures.history import Headcount
from headcount.lab.figures.postgres_server import installed
from headcount.sites.files import bundled_site, load_site

SITE = load_site(bundled_site("ul"))


def test_a_day_is_drawn_from_its_seed() -> None:
    """The same seed gives the same rows and counts, another one others."""
    one, same, other = (next(GeneratedDay(SITE, 50, seed).hours(0.1)) for seed in (1, 1, 2))
    for name, column in one.fixes.items():
        np.testing.assert_array_equal(column, same.fixes[name])
    np.testing.assert_array_equal(one.counts.values, same.counts.values)
    assert not np.array_equal(one.fixes["lat"], other.fixes["lat"])


def test_rows_are_those_of_a_log() -> None:
    """Sequences are consecutive in each partition in the order of arrival, also from one hour to the next."""
    day = GeneratedDay(SITE, 50, 1)
    hours = [hour.fixes for hour in day.hours(1.1)]
    assert [len(hour["t"]) for hour in hours] == [50 * 360, 50 * 36]
    rows = {name: np.concatenate([hour[name] for hour in hours]) for name in hours[0]}
    assert (np.diff(rows["received"]) >= 0).all()
    for partition in np.unique(rows["partition"]):
        seq = rows["seq"][rows["partition"] == partition]
        np.testing.assert_array_equal(seq, np.arange(len(seq)) + 1)


def test_devices_stay_on_the_site() -> None:
    """Almost all positions are on the site, and neighbouring ones of a device are as far apart as it moves."""
    rows = next(GeneratedDay(SITE, 50, 1).hours(1)).fixes
    assert shapely.contains_xy(SITE.zones[0].geometry, rows["lon"], rows["lat"]).mean() > 0.95
    one = rows["device"] == rows["device"][0]
    steps_m = np.hypot(*(np.diff(each) for each in SITE.project(rows["lat"][one], rows["lon"][one])))
    assert np.median(steps_m) < 10 < steps_m.max() < 100


@pytest.mark.slow
def test_a_fix_takes_at_most_ten_bytes(tmp_path: Path) -> None:
    """An hour of 1 000 devices, written and compacted, takes at most ten bytes a fix."""
    store = Headcount(tmp_path, SITE)
    hour = next(GeneratedDay(SITE, 1000, 1).hours(1))
    store.load(hour)
    store.finish()
    assert store.size() / len(hour.fixes["t"]) <= 10.0


@pytest.mark.slow
def test_databases_answer_the_same() -> None:
    """All answers of headcount are those of PostGIS, and of the other databases that are installed."""
    if installed() is None:
        pytest.skip("needs PostgreSQL with PostGIS of Debian, and root to start it as another user")
    small = ["--devices", "40", "--hours", "1.2", "--questions", "5"]
    command = [sys.executable, "-m", "headcount.lab.figures.history", *small]
    run = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode == 0, run.stderr
    assert "| PostGIS |" in run.stdout
    assert "All answers were equal." in run.stdout
