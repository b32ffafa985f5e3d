"""Errors of forecasts that were made from the past of a series."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from headcount.counting.fix_columns import B1, F8
from headcount.history.forecast import SLOTS, forecast
from headcount.lab.figures.forecast_days import CountSeries

WEEK = 7 * SLOTS
LEVEL = 0.8


@dataclass(frozen=True, slots=True)
class ForecastErrors:
    """n forecasts of one zone at one horizon. Arrays have length n; NaN where there is no such forecast."""

    zone_type: str
    horizon: int
    scale: float
    made: F8  # slots since the start of the series
    actual: F8
    expected: F8
    low: F8
    high: F8
    last_week: F8
    yesterday: F8
    last: F8
    special: B1

    def mase(self, column: str) -> float:
        """The mean absolute scaled error of a forecast, by the name of its column."""
        return float(np.mean(np.abs(getattr(self, column) - self.actual)) / self.scale)

    def coverage(self) -> float:
        """The share of the outcomes within the interval, rounded as the API does."""
        return float(np.mean((self.actual >= np.round(self.low)) & (self.actual <= np.round(self.high))))

    def width(self) -> float:
        """The mean width of the interval."""
        return float(np.mean(self.high - self.low))

    def only(self, rows: B1) -> ForecastErrors:
        """Some of the forecasts."""
        names = ("made", "actual", "expected", "low", "high", "last_week", "yesterday", "last", "special")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def back_test(series: CountSeries, first: int, every: int, horizons: Iterable[int]) -> list[ForecastErrors]:
    """Forecast from each `every`-th slot from `first` on; those without an outcome or a forecast are left out."""
    values, wanted = series.values, list(horizons)
    scale = float(np.mean(np.abs(values[WEEK:] - values[:-WEEK]))) if len(values) > WEEK else 0.0
    scale = scale or max(float(np.nanmean(np.abs(np.diff(values)))), 1e-9)
    made = np.arange(first, len(values) - 1, every)
    found = np.zeros((len(made), 3, len(wanted)))
    for row, slot in zip(found, made.tolist(), strict=True):
        one = forecast(values[: slot + 1], series.first_slot + slot, wanted, LEVEL)
        row[:] = one.expected, one.low, one.high
    padded = np.concatenate([np.full(WEEK, np.nan), values, np.full(SLOTS, np.nan)])
    results = []
    for index, horizon in enumerate(wanted):
        target = WEEK + made + horizon
        is_special = np.isin((made + horizon) // SLOTS, series.special_days)
        expected, low, high = found[:, :, index].T
        errors = ForecastErrors(
            zone_type=series.zone_type,
            horizon=horizon,
            scale=scale,
            made=made.astype(np.float64),
            actual=padded[target],
            expected=expected,
            low=low,
            high=high,
            last_week=padded[target - WEEK],
            yesterday=padded[target - SLOTS],
            last=values[made],
            special=is_special,
        )
        results.append(errors.only(~np.isnan(errors.actual + errors.expected + errors.last)))
    return [each for each in results if len(each.actual)]
