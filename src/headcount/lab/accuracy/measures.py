"""Errors of a rule's counts, changes of membership and bounds, measured against the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headcount.counting.fix_columns import B1, F8, I8
from headcount.lab.accuracy.movement import GRID_S


@dataclass(frozen=True, slots=True)
class CountErrors:
    """Count minus truth over zones and instants, in devices."""

    truth: float  # mean of the true count
    bias: float
    mae: float
    p95: float  # of the absolute error

    @classmethod
    def of(cls, counts: I8, truth: I8) -> CountErrors:
        """The errors of some zones: counts and truth are [T, Z]."""
        error = counts.astype(np.int64) - truth
        size = np.abs(error)
        return cls(
            float(truth.mean()), float(error.mean()), float(size.mean()), float(np.percentile(size, 95))
        )


@dataclass(frozen=True, slots=True)
class EventErrors:
    """Wrong changes of membership, per hour of a device on site; and how long a wrong membership lasts."""

    false_enters: float
    missed_enters: float
    false_exits: float
    missed_exits: float
    correct_p50_s: float
    correct_p95_s: float

    @classmethod
    def of(cls, members: B1, truth: B1, device_hours: float) -> EventErrors:
        """The errors of some devices and zones.

        A visit of the rule and a true one match if they overlap, and each is the first of the other. All other
        visits of the rule have a false enter, all other true visits a missed one. Exits match by the last visits.

        Args:
            members: [T, N, Z] by the rule.
            truth: [T, N, Z].
            device_hours: hours of all devices on site.
        """
        instants = len(truth)
        used = (members.any(axis=0) | truth.any(axis=0)).reshape(-1)
        ours, true = members.reshape(instants, -1)[:, used], truth.reshape(instants, -1)[:, used]
        our_visit, our_number = _visits(ours)
        true_visit, true_number = _visits(true)
        both = ours & true
        pairs = np.unique(true_visit[both].astype(np.int64) * (our_number + 1) + our_visit[both])
        true_of, our_of = np.divmod(pairs, our_number + 1)
        first = _matches(true_of, our_of)
        last = _matches(true_of[::-1], our_of[::-1])
        wrong_s = GRID_S * _runs(ours ^ true)
        return cls(
            false_enters=(our_number - first) / device_hours,
            missed_enters=(true_number - first) / device_hours,
            false_exits=(our_number - last) / device_hours,
            missed_exits=(true_number - last) / device_hours,
            correct_p50_s=float(np.percentile(wrong_s, 50)) if len(wrong_s) else 0.0,
            correct_p95_s=float(np.percentile(wrong_s, 95)) if len(wrong_s) else 0.0,
        )


@dataclass(frozen=True, slots=True)
class BoundErrors:
    """How often the truth is within low and high, as a share of the zone-instants, and how far apart they are."""

    covered: float
    above_high: float  # the truth is above high
    below_low: float
    width: float  # mean of high - low

    @classmethod
    def of(cls, low: I8, high: I8, truth: I8) -> BoundErrors:
        """The errors of some zones; all are [T, Z]."""
        above, below = truth > high, truth < low
        return cls(
            float((~above & ~below).mean()),
            float(above.mean()),
            float(below.mean()),
            float((high.astype(np.int64) - low).mean()),
        )


def wrong_minutes(members: B1, truth: B1) -> float:
    """Minutes of each hour on site during which a device is in a wrong set of zones."""
    present = truth[:, :, 0] | members[:, :, 0]
    wrong = (members ^ truth).any(axis=2)
    return float(60 * wrong.sum() / max(1, present.sum()))


def device_hours(truth: B1) -> float:
    """Hours of all devices on site."""
    return max(1.0, float(truth[:, :, 0].sum())) * GRID_S / 3600


def _visits(inside: B1) -> tuple[NDArray[np.int32], int]:
    """The number of the visit, from 0, in each cell of [T, columns] that is inside; and the number of visits."""
    starts = inside.copy()
    starts[1:] &= ~inside[:-1]
    by_column = starts.T
    number = (np.cumsum(by_column.ravel(), dtype=np.int32) - 1).reshape(by_column.shape).T
    return number, int(starts.sum())


def _matches(a: I8, b: I8) -> int:
    """The number of pairs of which each is the first of the other; pairs are in order."""
    _, first_of_a = np.unique(a, return_index=True)
    _, first_of_b = np.unique(b, return_index=True)
    return len(np.intersect1d(first_of_a, first_of_b))


def _runs(wrong: B1) -> F8:
    """The lengths of all runs of true cells along the first axis of [T, columns]."""
    edges = np.diff(np.pad(wrong, ((1, 1), (0, 0))).astype(np.int8), axis=0)
    _, start = np.nonzero((edges == 1).T)
    _, stop = np.nonzero((edges == -1).T)
    return (stop - start).astype(np.float64)
