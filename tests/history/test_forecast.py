"""Properties of the forecast, and its values for simple series."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.counting.fix_columns import F8
from headcount.history.forecast import MIN_CHANGES, SLOTS, SeriesForecast, forecast

MONDAY = 4 * SLOTS  # 1970-01-05
HORIZONS = [1, 4, 16, SLOTS]
COLUMNS = ("expected", "low", "high")


def weeks(seed: int, slots: int, gaps: float | None = None) -> F8:
    """Days with a usual course, weekends, noise and gaps."""
    rng = np.random.default_rng(seed)
    at = np.arange(slots)
    course = 100 * np.clip(np.sin((at % SLOTS / SLOTS - 0.25) * 2 * np.pi), 0, 1)
    course[at // SLOTS % 7 >= 5] *= 0.1
    day = np.exp(rng.normal(0, 0.2, -(-slots // SLOTS) or 1))[at // SLOTS]
    values = rng.poisson(course * day).astype(np.float64)
    values[rng.random(slots) < (rng.choice([0.0, 0.05, 0.5]) if gaps is None else gaps)] = np.nan
    return values


def same(one: SeriesForecast, other: SeriesForecast, factor: float = 1.0) -> bool:
    """Whether `other` is `one` times a factor."""
    return all(
        np.allclose(getattr(one, name) * factor, getattr(other, name), rtol=1e-6, atol=1e-6, equal_nan=True)
        for name in COLUMNS
    )


series = st.builds(weeks, st.integers(0, 1000), st.integers(0, 36 * SLOTS))


@given(series, st.sampled_from([0.001, 3.0, 1e6]))
def test_scaled_counts_have_scaled_forecasts(values: F8, factor: float) -> None:
    """A zone with three times the counts has three times the forecast."""
    found = forecast(values, MONDAY, HORIZONS)
    assert same(found, forecast(values * factor, MONDAY, HORIZONS), factor)


@given(series, st.integers(1, 3000))
def test_whole_weeks_later_is_the_same(values: F8, later: int) -> None:
    """The same counts some weeks later have the same forecast."""
    found = forecast(values, MONDAY, HORIZONS)
    assert same(found, forecast(values, MONDAY + later * 7 * SLOTS, HORIZONS))


@given(series, st.floats(0.05, 0.95))
def test_intervals_hold_the_forecast_and_grow_with_the_level(values: F8, level: float) -> None:
    """0 <= low <= expected <= high, a higher level has a wider interval, and the same call the same answer."""
    found = forecast(values, MONDAY, HORIZONS, level)
    wider = forecast(values, MONDAY, HORIZONS, (1 + level) / 2)
    assert same(found, forecast(values, MONDAY, HORIZONS, level))
    known = ~np.isnan(found.expected)
    assert (np.isnan(found.low) == np.isnan(found.high)).all()
    assert (found.checks[known] >= MIN_CHANGES).all()
    low, expected, high = (getattr(found, name)[known] for name in ("low", "expected", "high"))
    assert (low >= 0).all()
    assert (low <= expected).all()
    assert (expected <= high).all()
    assert (wider.low[known] <= low + 1e-9).all()
    assert (wider.high[known] >= high - 1e-9).all()


@given(series)
def test_each_horizon_is_independent_of_the_others(values: F8) -> None:
    """A forecast for 24 hours begins as the one for 4 hours."""
    found = forecast(values, MONDAY, HORIZONS)
    for index, horizon in enumerate(HORIZONS):
        alone = forecast(values, MONDAY, [horizon])
        assert np.array_equal(alone.expected, found.expected[index : index + 1], equal_nan=True)


@given(st.integers(0, 1000), st.integers(0, 200))
def test_older_values_than_the_longest_series_have_no_effect(seed: int, more: int) -> None:
    """A series of more than five weeks has the forecast of its last five weeks."""
    values = weeks(seed, 36 * SLOTS)
    longer = np.concatenate([np.full(more, 1e6), values])
    assert same(forecast(values, MONDAY, HORIZONS), forecast(longer, MONDAY, HORIZONS))


@pytest.mark.parametrize("count", [0.0, 7.0])
def test_a_constant_zone_stays_constant(count: float) -> None:
    """A zone that never changes is forecast exactly, with an interval of width 0."""
    found = forecast(np.full(10 * SLOTS, count), MONDAY, HORIZONS)
    for name in COLUMNS:
        assert getattr(found, name) == pytest.approx(np.full(4, count))


def test_the_same_course_each_day_is_forecast_exactly() -> None:
    """Without noise, the usual course is the forecast, also over midnight and across a gap of a day."""
    course = np.round(50 * np.sin(np.arange(SLOTS) / SLOTS * np.pi))
    values = np.tile(course, 20)
    values[15 * SLOTS : 16 * SLOTS] = np.nan
    found = forecast(values[:-40], MONDAY - 40, list(range(1, SLOTS + 1)))
    wanted = np.tile(course, 2)[SLOTS - 40 : 2 * SLOTS - 40]
    assert found.expected == pytest.approx(wanted)
    assert found.high - found.low == pytest.approx(np.zeros(SLOTS), abs=1e-6)


def test_an_unusual_day_lowers_the_next_hour_more_than_the_next_day() -> None:
    """On a day with half the counts, the next hour is forecast near half, the next day near the usual."""
    values = weeks(6, 28 * SLOTS, gaps=0)
    noon = 23 * SLOTS + SLOTS // 2  # a Wednesday
    usual = forecast(values[: noon + 1], MONDAY + noon, [4, SLOTS])
    today = values[: noon + 1].copy()
    today[23 * SLOTS :] *= 0.5
    low = forecast(today, MONDAY + noon, [4, SLOTS])
    assert low.expected[0] < 0.75 * usual.expected[0]
    assert low.expected[1] > 0.75 * usual.expected[1]


def test_weekends_differ_from_working_days() -> None:
    """After two weeks, Friday's forecast for Saturday is low, and Sunday's for Monday is high."""
    values = weeks(3, 21 * SLOTS, gaps=0)
    for day, is_low in ((18, True), (20, False)):
        noon = day * SLOTS + SLOTS // 2
        found = forecast(values[: noon + 1], MONDAY + noon, [SLOTS])
        assert (found.expected[0] < 30) == is_low


def test_a_new_deployment_has_no_forecast_at_first() -> None:
    """Without a value, or with less than the changes that make an interval, there is none; then the last value."""
    for n in (0, 1, MIN_CHANGES):
        assert np.isnan(forecast(np.ones(n), MONDAY, [1]).expected).all()
    found = forecast(np.arange(20.0), MONDAY, [1, 16])
    assert found.expected[0] == 19
    assert (found.low[0], found.high[0]) == (18, 20)
    assert np.isnan(found.expected[1])


def test_a_zone_without_recent_counts_has_its_usual_course() -> None:
    """After some hours without counts, the forecast is the usual course, not nothing and not 0."""
    values = np.full(10 * SLOTS, 5.0)
    values[-20:] = np.nan
    assert forecast(values, MONDAY, [1]).expected == pytest.approx([5.0])
