"""Behaviour of phones: some sleep and send no fixes, some deliver theirs late."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from headcount.counting.fix_columns import B1, F8, I8
from headcount.lab.accuracy.movement import LATE, REPORTING, SLEEPING, Movement, TrueFixes

#: Seconds that a phone is awake and asleep, and that it is connected and without a network.
AWAKE_S, ASLEEP_S = (300.0, 900.0), (900.0, 2700.0)
CONNECTED_S, OFFLINE_S = (300.0, 1200.0), (120.0, 1200.0)
#: Seconds from a fix to its receipt.
DELAY_S = (0.1, 2.0)


def always_reporting(movement: Movement) -> Movement:
    """The same movement with phones that neither sleep nor deliver late."""
    population = movement.population
    reports = (population == SLEEPING) | (population == LATE)
    return replace(movement, population=np.where(reports, np.uint8(REPORTING), population))


def behave(movement: Movement, seed: int) -> Movement:
    """The movement as its phones report it: a sleeping phone reports only while it moves (as in Android's Doze)."""
    rng = np.random.default_rng([seed, 2])
    fixes = movement.fixes
    population = movement.population[fixes.device]
    asleep, _ = _in_pause(fixes, len(movement), AWAKE_S, ASLEEP_S, rng)
    fixes = fixes.pick(~(asleep & (population == SLEEPING) & ~fixes.moving))
    offline, ends_s = _in_pause(fixes, len(movement), CONNECTED_S, OFFLINE_S, rng)
    late = offline & (movement.population[fixes.device] == LATE)
    received_s = np.where(late, ends_s, fixes.t_s + rng.uniform(*DELAY_S, len(fixes)))
    # no fix overtakes an earlier one of its device
    order = np.lexsort((fixes.t_s, fixes.device))
    ordered = received_s[order] + fixes.device[order] * 1e7
    received_s[order] = np.maximum.accumulate(ordered) - fixes.device[order] * 1e7
    return replace(movement, fixes=TrueFixes.joined([replace(fixes, received_s=received_s)]))


def _in_pause(
    fixes: TrueFixes,
    devices: int,
    on_s: tuple[float, float],
    pause_s: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[B1, F8]:
    """Which fixes fall into a pause of their device, and when that pause ends."""
    start_s, stop_s = fixes.t_s.min(), fixes.t_s.max()
    count = int((stop_s - start_s) / (on_s[0] + pause_s[0])) + 2
    lengths = np.empty((devices, 2 * count))
    lengths[:, ::2] = rng.uniform(*on_s, (devices, count))
    lengths[:, 1::2] = rng.uniform(*pause_s, (devices, count))
    # all devices in one column of times, one after the other
    span_s = stop_s - start_s + 1 + lengths.sum(axis=1).max()
    ends_s = np.cumsum(lengths, axis=1) - rng.uniform(0, on_s[1], (devices, 1))
    column = (ends_s + np.arange(devices)[:, None] * span_s).ravel()
    found = np.searchsorted(column, fixes.t_s - start_s + fixes.device * span_s, side="right")
    place: I8 = np.minimum(found, len(column) - 1)
    return place % 2 == 1, ends_s.ravel()[place] + start_s
