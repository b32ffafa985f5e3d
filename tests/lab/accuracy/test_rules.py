"""Each rule on hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest

from headcount.counting.fix_columns import B1
from headcount.counting.zone_lookup import ZoneLookup
from headcount.lab.accuracy.comparison import OTHER_RULES
from headcount.lab.accuracy.error_model import ReceivedFixes
from headcount.lab.accuracy.rules.engine_rule import engine_counts, engine_seconds
from headcount.lab.accuracy.rules.filtered_fixes import MAX_ACC_M, filtered_fixes
from headcount.lab.accuracy.rules.kalman_filter import smooth
from headcount.lab.accuracy.rules.last_fix import last_fix
from headcount.lab.accuracy.rules.two_fences import two_fences
from headcount.lab.accuracy.rules.two_state_hmm import two_state_hmm
from headcount.lab.accuracy.rules.widened_zones import widened_zones

from .small_zones import EAST, SITE, WEST, fixes, two_buildings, zones

PERSON = np.zeros(1, np.uint8)


def west(found: B1) -> list[bool]:
    """Whether the device is in the building in the west, after each fix."""
    return [bool(each) for each in found[:, WEST]]


@pytest.mark.parametrize("rule", OTHER_RULES.values(), ids=OTHER_RULES)
def test_every_rule_agrees_on_clear_cases(rule: object) -> None:
    """A device in the middle of a building is in it and on site; one far away is in neither."""
    assert callable(rule)
    case = fixes([-60, -60, 0, 0, 60, 60, 60, 900, 900, 900], every_s=300)
    found = rule(case, zones())
    assert found[1].tolist() == [True, True, False]
    assert found[3].tolist() == [True, False, False]
    assert found[6].tolist() == [True, False, True]
    assert found[9].tolist() == [False, False, False]


@pytest.mark.parametrize("rule", OTHER_RULES.values(), ids=OTHER_RULES)
def test_devices_do_not_affect_each_other(rule: object) -> None:
    """Fixes of several devices, mixed, give the same zones as each device alone."""
    assert callable(rule)
    rng = np.random.default_rng(1)
    x_m = rng.uniform(-100, 100, 300)
    device = rng.integers(0, 3, 300)
    case = fixes(x_m.tolist(), device=device.tolist())
    mixed = rule(case, zones())
    for each in range(3):
        rows = device == each
        alone = ReceivedFixes(*(getattr(case, name)[rows] for name in ReceivedFixes.__slots__))
        assert (rule(alone, zones()) == mixed[rows]).all()


def test_last_fix() -> None:
    """The last position alone decides: a device at the wall comes and goes."""
    assert west(last_fix(fixes([-41, -39, -41]), zones())) == [True, False, True]


def test_accuracy_widens_the_zone() -> None:
    """A circle that touches a building counts; of two buildings, the nearer one does."""
    assert west(widened_zones(fixes([-36, -36, -36], [3, 5, 0]), zones())) == [False, True, False]
    both = widened_zones(fixes([-1], 90), zones())
    assert both[0].tolist() == [True, True, False]


def test_two_fences() -> None:
    """A device enters 5 m inside, stays up to 15 m outside, and does not enter between the fences."""
    assert west(two_fences(fixes([-38, -43, -46, -30, -26, -24, -38]), zones())) == [
        *(False, False, True, True, True, False, False)
    ]


def test_filter() -> None:
    """A fix with a poor accuracy, or at an impossible speed, is dropped: the zones before it stay."""
    assert west(filtered_fixes(fixes([-60, 0, 0], [5, MAX_ACC_M + 1, 5]), zones())) == [True, True, False]
    assert west(filtered_fixes(fixes([-60, 900, -60], every_s=10), zones())) == [True, True, True]
    first_dropped = filtered_fixes(fixes([-60], MAX_ACC_M + 1), zones())
    assert not first_dropped.any()


def test_kalman_filter_averages_a_standing_device() -> None:
    """The filtered position of a standing device has a smaller error than its fixes, and follows a walk."""
    noise = np.random.default_rng(2).normal(0, 8, 200)
    x_m, y_m = smooth(fixes(noise.tolist(), 12, every_s=5))
    assert x_m[20:].std() < 0.8 * noise[20:].std()
    assert not y_m.any()
    walk = np.arange(100) * 7.0
    x_m, _ = smooth(fixes(walk.tolist(), 5, every_s=5))
    assert np.abs(x_m[20:] - walk[20:]).max() < 3


def test_hmm_needs_evidence() -> None:
    """One poor fix across the wall changes nothing, several do; a good fix does alone."""
    assert west(two_state_hmm(fixes([-60, -36, -60], 20), zones())) == [True, True, True]
    assert west(two_state_hmm(fixes([-60, *([-30] * 8)], 20), zones()))[-1] is False
    assert west(two_state_hmm(fixes([-60, -30], 3), zones())) == [True, False]


def test_engine_counts_as_in_a_deployment() -> None:
    """The engine keeps a member within the margin, and its counts are those of its members."""
    case = fixes([-60, -36, -26, -60], 8)
    found = engine_counts(case, PERSON, ZoneLookup(two_buildings()), case.t_s)
    assert west(found.members[:, 0]) == [True, True, False, True]
    assert (found.bounds[:, :, 0, 0] == found.members.sum(axis=1)).all()
    low, count, high = (found.bounds[:, WEST, 0, number].tolist() for number in (1, 0, 2))
    assert (low, count, high) == ([1, 0, 0, 1], [1, 1, 0, 1], [1, 1, 0, 1])


def test_engine_holds_a_silent_device() -> None:
    """A device that stops reporting stays for 15 minutes, in the counts and in the members alike."""
    case = fixes([-60])
    found = engine_counts(case, PERSON, ZoneLookup(two_buildings()), np.array([0.0, 900.0, 901.0]))
    assert found.members[:, 0, SITE].tolist() == [True, True, False]
    assert found.bounds[:, EAST, 0, 0].tolist() == [0, 0, 0]
    assert found.bounds[:, SITE, 0, 0].tolist() == [1, 1, 0]


def test_engine_cost_is_measured() -> None:
    """The engine's CPU time for some fixes is above 0."""
    assert engine_seconds(fixes([-60.0] * 5000), PERSON, ZoneLookup(two_buildings())) > 0
