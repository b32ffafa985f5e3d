"""The measures on hand-made counts and visits."""

from __future__ import annotations

import numpy as np
import pytest

from headcount.counting.fix_columns import B1
from headcount.lab.accuracy.measures import (
    BoundErrors,
    CountErrors,
    EventErrors,
    device_hours,
    wrong_minutes,
)
from headcount.lab.accuracy.movement import GRID_S


def visits(*lines: str) -> B1:
    """Each line is a device, each character an instant: `#` is inside the only zone. Shape [T, N, 1]."""
    return np.array([[[each == "#"] for each in line] for line in lines]).transpose(1, 0, 2)


def test_count_errors() -> None:
    """Bias, mean absolute error and 95th percentile over all zones and instants."""
    truth = np.zeros((10, 2), np.int64) + 5
    counts = truth.copy()
    counts[:5, 0] += 4
    counts[:, 1] -= 1
    found = CountErrors.of(counts, truth)
    assert (found.truth, found.bias, found.mae, found.p95) == (5.0, 0.5, 1.5, 4.0)


def test_a_perfect_rule_has_no_wrong_event() -> None:
    """The truth itself has no error."""
    truth = visits("..##..##", "########", "........")
    found = EventErrors.of(truth, truth, 1.0)
    assert found == EventErrors(0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("truth", "rule", "false", "missed"),
    [
        ("..####..", "...####.", 0, 0),  # late, but the same visit
        ("........", "..##....", 1, 0),
        ("..####..", "........", 0, 1),
        ("########", "##.##.##", 2, 0),  # one visit, left and entered twice
        ("##.##.##", "########", 0, 2),
        (".##..##.", ".##.....", 0, 1),
        (".##...##", ".##.#.##", 1, 0),
    ],
)
def test_wrong_events(truth: str, rule: str, false: int, missed: int) -> None:
    """Visits that match no other are false or missed, with their enter and their exit."""
    found = EventErrors.of(visits(rule), visits(truth), 0.5)
    assert (found.false_enters, found.missed_enters) == (2 * false, 2 * missed)
    assert (found.false_exits, found.missed_exits) == (2 * false, 2 * missed)


def test_visits_of_devices_are_apart() -> None:
    """A visit of one device does not match that of another."""
    found = EventErrors.of(visits("##..", "...."), visits("....", "##.."), 1.0)
    assert (found.false_enters, found.missed_enters) == (1, 1)


def test_time_to_correct() -> None:
    """The lengths of all times with a wrong membership, as percentiles."""
    found = EventErrors.of(visits("..####....####"), visits("####......####"), 1.0)
    assert found.correct_p50_s == 2 * GRID_S
    assert found.correct_p95_s == 2 * GRID_S


def test_bound_errors() -> None:
    """The truth is covered, above high, or below low."""
    low, high, truth = (
        np.array([[values]]).reshape(-1, 1) for values in ([1, 1, 1, 5], [3, 3, 3, 6], [1, 3, 4, 2])
    )
    found = BoundErrors.of(low, high, truth)
    assert (found.covered, found.above_high, found.below_low, found.width) == (0.5, 0.25, 0.25, 1.75)


def test_wrong_minutes_and_device_hours() -> None:
    """A device that is missing for a quarter of its time is wrong for 15 minutes of an hour."""
    truth, rule = visits("####"), visits("###.")
    assert wrong_minutes(rule, truth) == 15
    assert device_hours(np.repeat(truth, 300, axis=0)) == 1200 * GRID_S / 3600
