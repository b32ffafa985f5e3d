"""Forecast of a zone's counts for the next hours, with an interval: pure.

The series is cut into days of SLOTS slots of the local clock. The forecast of a slot is

    usual(slot) + correction(what was unusual until now, by horizon)

`usual` is a weighted mean of the same slot of earlier days: the same weekday has the largest weight, then
days of the same class (working days, weekends), then other days; older days have less. So a deployment in its
first week uses the days that it has. The correction is a ridge regression for each horizon,
fitted to what `usual` missed earlier: its coefficients decide how fast the correction decays. Without an
earlier day, the forecast is the last value.

The interval has the quantiles of the errors that these forecasts would have had, at the same horizon and a
similar hour of the day (a conformal interval: Vovk, Gammerman and Shafer, "Algorithmic learning in a random
world", 2005; it holds as far as the errors of different days are exchangeable). In the first days, it is as
wide as the counts have changed within that time. The weights and constants were
chosen by the back-test (docs/concepts/forecast.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headcount.counting.fix_columns import B1, F8, I8

#: Slots of a day, and their length.
SLOTS, SLOT_S = 96, 900
#: The longest series that is used, in days.
MAX_DAYS = 35
#: Weights of an earlier day: the same weekday, the same class of day, another one.
SAME_WEEKDAY, SAME_CLASS, OTHER_CLASS = 1.0, 0.1, 0.01
#: Days after which the weight of an earlier day is halved.
HALF_LIFE_DAYS = 28.0
#: Slots whose deviation from the usual corrects the forecast, and the share of the mean below which a
#: usual value is too small to divide by.
RECENT, SMALL_SHARE = 8, 0.05
#: How many times the usual value the recent slots may have had, minus 1.
RATIO_LIMITS = (-1.0, 2.0)
#: Weight of "no correction" in the regression, which grows with the horizon: doubled at DOUBLED slots.
RIDGE, DOUBLED = 0.01, 16
#: Slots that the regression assumes to have had no correction: for the first days.
PRIOR = 2 * SLOTS
#: An interval is made from errors at most this many slots from the hour of the day.
SIMILAR = 8
#: The smallest number of earlier forecasts from which an interval is made, and of changes where those are fewer.
MIN_CHECKS, MIN_CHANGES = 30, 12


@dataclass(frozen=True, slots=True)
class SeriesForecast:
    """The forecast for n horizons. All arrays have length n; NaN where there is no forecast."""

    expected: F8
    low: F8
    high: F8
    checks: I8  # earlier forecasts, or changes, from which each interval was made


def forecast(values: F8, last_slot: int, horizons: Sequence[int], level: float = 0.8) -> SeriesForecast:
    """Forecast slots after a series; none where the interval could not be made.

    Args:
        values: the mean of each slot up to now, oldest first, not negative; NaN where nothing is known.
        last_slot: that of the last value: SLOTS for each day since 1970-01-01, of the local calendar.
        horizons: slots ahead, 1 to SLOTS.
        level: share of the outcomes that the interval should hold.
    """
    known: F8 = np.asarray(values[-MAX_DAYS * SLOTS :], dtype=np.float64)
    slots = last_slot + np.arange(1 - len(known), SLOTS + 1)
    usual = _usual(np.concatenate([known, np.full(SLOTS, np.nan)]), slots)
    ratio, deviation = _recent(known, usual[: len(known)])
    rows = []
    for horizon in horizons:
        base = usual[horizon : len(known) + horizon]
        causes = np.stack([deviation, ratio * base], axis=1)
        if len(known) and np.isnan(base[-1]):
            base, causes = known, np.zeros((len(known), 0))  # the last value
        rows.append(_at_horizon(known, base, causes, slots, horizon, level))
    expected, low, high, checks = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return SeriesForecast(expected, low, high, checks.astype(np.int64))


def is_weekend(slots: I8) -> B1:
    """Whether each slot is on a Saturday or Sunday."""
    weekend: B1 = _weekday(slots) >= 5
    return weekend


def _weekday(slots: I8) -> I8:
    """0 = Monday; 1970-01-01 was a Thursday."""
    return (slots // SLOTS + 3) % 7


def _usual(values: F8, slots: I8) -> F8:
    """The weighted mean of the same slot of earlier days, for each slot; NaN without one."""
    total, weight = np.zeros(len(values)), np.zeros(len(values))
    weekday = _weekday(slots)
    for days in range(1, -(-len(values) // SLOTS)):
        then, now = weekday[: -days * SLOTS], weekday[days * SLOTS :]
        similarity = np.where(
            then == now, SAME_WEEKDAY, np.where((then >= 5) == (now >= 5), SAME_CLASS, OTHER_CLASS)
        )
        earlier = values[: -days * SLOTS]
        of_day = np.where(np.isnan(earlier), 0.0, similarity * 0.5 ** (days / HALF_LIFE_DAYS))
        total[days * SLOTS :] += of_day * np.nan_to_num(earlier)
        weight[days * SLOTS :] += of_day
    usual: F8 = np.divide(total, weight, out=np.full(len(values), np.nan), where=weight > 0)
    return usual


def _recent(known: F8, usual: F8) -> tuple[F8, F8]:
    """By how many times the usual value the slots up to each one differed from it, and how much that one did."""
    deviation = known - usual
    valid = ~np.isnan(deviation)
    if not valid.any():
        return np.zeros(len(known)), np.zeros(len(known))
    sums = [
        np.cumsum(np.concatenate([np.zeros(RECENT), np.where(valid, series, 0.0)]))
        for series in (deviation, usual)
    ]
    missed, base = (each[RECENT:] - each[:-RECENT] for each in sums)
    base = base + RECENT * SMALL_SHARE * np.nanmean(known)
    ratio = np.divide(missed, base, out=np.zeros(len(known)), where=base > 0)
    return np.clip(ratio, *RATIO_LIMITS), np.where(valid, deviation, 0.0)


def _at_horizon(
    known: F8, base: F8, causes: F8, slots: I8, horizon: int, level: float
) -> tuple[float, float, float, int]:
    """Expected value, low, high and checks."""
    earlier = max(len(known) - horizon, 0)
    missed = known[horizon:] - base[:earlier]
    valid = ~np.isnan(missed)
    missed, rows = missed[valid], causes[:earlier][valid]
    if not earlier or np.isnan(base[-1]):
        return np.nan, np.nan, np.nan, 0
    factors = _factors(rows, missed, RIDGE * (1 + horizon / DOUBLED) * float(np.nanmean(known)) ** 2)
    expected = max(0.0, float(base[-1] + causes[-1] @ factors))
    errors: F8 = missed - rows @ factors
    targets = slots[horizon : len(known)]
    target = int(slots[len(known) + horizon - 1])
    chosen: F8 = errors[_similar(targets[valid], target)]
    if len(chosen) >= MIN_CHECKS:
        below, above = (float(each) for each in np.quantile(chosen, [(1 - level) / 2, (1 + level) / 2]))
    else:
        chosen = _changes(known, targets, horizon, target)
        if len(chosen) < MIN_CHANGES:
            return np.nan, np.nan, np.nan, len(chosen)
        above = float(np.quantile(np.abs(chosen), level))
        below = -above
    return expected, min(expected, max(0.0, expected + below)), max(expected, expected + above), len(chosen)


def _factors(rows: F8, missed: F8, ridge: float) -> F8:
    """The coefficients of the causes."""
    if ridge <= 0 or not rows.shape[1]:
        return np.zeros(rows.shape[1])
    prior = ridge * (len(missed) + PRIOR) * np.eye(rows.shape[1])
    factors: F8 = np.linalg.solve(rows.T @ rows + prior, rows.T @ missed).astype(np.float64)
    return factors


def _similar(slots: I8, slot: int) -> B1:
    """The slots of a similar hour and the same class of day; of a similar hour, where these are few."""
    near = _is_near(slots, slot)
    same: B1 = near & (is_weekend(slots) == is_weekend(np.array(slot)))
    return same if same.sum() >= MIN_CHECKS else near


def _is_near(slots: I8, slot: int) -> B1:
    near: B1 = np.abs((slots - slot + SLOTS // 2) % SLOTS - SLOTS // 2) <= SIMILAR
    return near


def _changes(known: F8, targets: I8, horizon: int, target: int) -> F8:
    """How much the value changed within the horizon, at a similar hour; at any hour, where these are few."""
    changes = known[horizon:] - known[: len(known) - horizon]
    valid = ~np.isnan(changes)
    near = _is_near(targets, target) & valid
    found: F8 = changes[near if near.sum() >= MIN_CHANGES else valid]
    return found
