"""The back-test of the forecast as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from headcount.history.forecast import SLOTS, forecast
from headcount.lab.figures.forecast_days import CountSeries
from headcount.lab.figures.forecast_errors import LEVEL, WEEK, ForecastErrors
from headcount.lab.plots import COLOURS, as_svg, figure, legend

#: Forecasts of the example are made this many slots before, and for this zone.
AHEAD, EXAMPLE = 16, "building, people"
#: Days of the example before and after the holiday.
DAYS_AROUND = 3


def plot_horizons(errors: Sequence[ForecastErrors], horizons: Mapping[int, str]) -> str:
    """Mean error, coverage and width by horizon."""
    ticks = range(len(horizons))
    by_horizon = [[each for each in errors if each.horizon == horizon] for horizon in horizons]
    with figure([2.2, 1.2]) as (drawn, (mase, coverage)):
        lines = {"expected": "forecast", "last_week": "same time last week", "last": "last value"}
        for colour, (column, label) in zip(COLOURS, lines.items(), strict=False):
            means = [np.mean([each.mase(column) for each in found]) for found in by_horizon]
            mase.plot(ticks, means, color=colour, label=label, marker="o", markersize=3)
        mase.set_title("mean absolute scaled error (MASE)")
        mase.set_ylim(0, 2)
        legend(mase)
        shares = [100 * np.mean([each.coverage() for each in found]) for found in by_horizon]
        coverage.plot(ticks, shares, color=COLOURS[0], marker="o", markersize=3)
        coverage.axhline(100 * LEVEL, color=COLOURS[6], linewidth=0.8)
        coverage.set_title(f"% of the counts in the {LEVEL:.0%} interval")
        coverage.set_ylim(50, 100)
        coverage.set_xticks(ticks, list(horizons.values()))
        coverage.set_xlabel("horizon")
        return as_svg(drawn, "Error and coverage of the forecast by horizon")


def plot_example(series: Sequence[CountSeries], seed: int) -> str:
    """The fullest building around the holiday: what was forecast four hours before, and what came."""
    one = max((each for each in series if each.zone_type == EXAMPLE), key=lambda each: each.values.max())
    holiday = one.special_days[0]
    slots = np.arange(
        (holiday - DAYS_AROUND) * SLOTS, min((holiday + DAYS_AROUND + 1) * SLOTS, len(one.values))
    )
    made = [
        forecast(one.values[: slot - AHEAD + 1], one.first_slot + int(slot) - AHEAD, [AHEAD], LEVEL)
        for slot in slots
    ]
    low, high, expected = (
        np.array([getattr(each, name)[0] for each in made]) for name in ("low", "high", "expected")
    )
    days = slots / SLOTS + 1
    with figure([2.2]) as (drawn, (panel,)):
        panel.fill_between(
            days, low, high, color=COLOURS[4], alpha=0.35, label=f"{LEVEL:.0%} interval", linewidth=0
        )
        panel.plot(
            days, one.values[slots - WEEK], color=COLOURS[5], label="same time last week", linewidth=1.0
        )
        panel.plot(days, expected, color=COLOURS[0], label="forecast, 4 h before")
        panel.plot(days, one.values[slots], color=COLOURS[6], label="count", linewidth=1.0)
        panel.set_title("a building with a holiday: people")
        panel.set_ylim(bottom=0)
        panel.set_xlim(days[0], days[-1])
        panel.set_xlabel(f"day (the holiday is day {holiday + 1}); seed {seed}")
        legend(panel)
        return as_svg(drawn, "Forecast and count around a holiday")
