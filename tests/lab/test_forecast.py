"""The back-test of the forecast on few days."""

from __future__ import annotations

import re

import numpy as np
import pytest

from headcount.history.forecast import SLOTS
from headcount.lab.figures.forecast import HORIZONS, PAGE, RECORDINGS, parts, with_last_week
from headcount.lab.figures.forecast_days import CountSeries, recorded_day, simulated_weeks
from headcount.lab.figures.forecast_errors import WEEK, ForecastErrors, back_test
from headcount.lab.figures.forecast_plots import plot_example, plot_horizons
from headcount.lab.marked_page import filled
from headcount.sites.files import bundled_site, load_site
from shared import shared


@pytest.fixture(scope="module")
def series() -> list[CountSeries]:
    """Two weeks and the special days of a campus."""
    return simulated_weeks(load_site(bundled_site("ul")), 18, 5)


@pytest.fixture(scope="module")
def errors(series: list[CountSeries]) -> list[ForecastErrors]:
    """Forecasts at few instants."""
    return [each for one in series for each in back_test(one, SLOTS, 19, HORIZONS)]


def test_the_forecast_is_better_than_last_week(errors: list[ForecastErrors]) -> None:
    """Up to four hours ahead, the mean error is well below that of "same time last week"."""
    for horizon in (1, 4, 16):
        found = [each for each in with_last_week(errors) if each.horizon == horizon]
        ours, theirs = (np.mean([each.mase(name) for each in found]) for name in ("expected", "last_week"))
        assert ours < 0.8 * theirs


def test_the_interval_holds_what_it_promises(errors: list[ForecastErrors]) -> None:
    """At least 75 % of the counts are in the interval of 80 %."""
    for horizon in HORIZONS:
        assert np.mean([each.coverage() for each in errors if each.horizon == horizon]) > 0.75


def test_a_forecast_sees_only_the_past(series: list[CountSeries]) -> None:
    """Changing the second half of a series changes no forecast that was made before."""
    one = series[0]
    half = len(one.values) // 2
    other = CountSeries(one.zone_type, one.values.copy(), one.first_slot)
    other.values[half:] = 12_345
    for before, after in zip(back_test(one, SLOTS, 19, [4]), back_test(other, SLOTS, 19, [4]), strict=True):
        early = before.made < half
        assert early.any()
        assert np.array_equal(before.expected[early], after.expected[early])
        assert np.array_equal(before.high[early], after.high[early])


def test_errors_compare_with_the_right_instants() -> None:
    """The outcome is at the horizon; last week, yesterday and the last value are where they should be."""
    values = np.arange(20.0 * SLOTS)
    (found,) = back_test(CountSeries("site", values, 4 * SLOTS), 15 * SLOTS, 7, [4])
    assert np.array_equal(found.actual, found.made + 4)
    assert np.array_equal(found.last, found.made)
    assert np.array_equal(found.last_week, found.made + 4 - WEEK)
    assert np.array_equal(found.yesterday, found.made + 4 - SLOTS)
    assert found.scale == WEEK


def test_the_same_seed_gives_the_same_days(series: list[CountSeries]) -> None:
    """Simulated weeks depend on the seed alone; weekends and the holiday have fewer people."""
    again = simulated_weeks(load_site(bundled_site("ul")), 18, 5)
    assert all(np.array_equal(a.values, b.values) for a, b in zip(series, again, strict=True))
    days = series[0].values.reshape(-1, SLOTS).max(axis=1)
    assert days[[5, 6, 12, 13]].max() < 0.5 * days[[0, 1, 2, 3, 4]].min()
    assert days[series[0].special_days[0]] < 0.5 * days[0]


def test_the_page_has_the_marks_of_all_parts(series: list[CountSeries], errors: list[ForecastErrors]) -> None:
    """Tables and figures can be drawn, and the page has a place for each table."""
    tables = parts(errors)
    page = filled(PAGE.read_text(), "forecast", tables | {"run": "-", "buses": "-"})
    assert all(table in page for table in tables.values())
    assert not re.search(r"\| nan", page)
    assert plot_horizons(with_last_week(errors), HORIZONS).startswith("<svg")
    assert plot_example(series, 5).startswith("<svg")


@pytest.mark.parametrize("name", RECORDINGS)
def test_recorded_buses_can_be_counted(name: str) -> None:
    """A recording has a series of all buses, which has those of each cell, without negative or absurd counts."""
    total, *cells = recorded_day(shared("data", "traces", name))
    known = ~np.isnan(total.values)
    assert total.values[known].min() > 0
    assert all((each.values[known] <= total.values[known]).all() for each in cells)
