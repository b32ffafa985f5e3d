"""The public's flows under attack; flow_differencing.py describes what is tried."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import SystemRandom

import numpy as np
import pytest

from attack.campus import Campus
from attack.continual_noise import noise_std, tree_errors
from attack.flow_differencing import NAMES, attack, relations


@pytest.mark.parametrize("seed", [1, 6, None])
def test_attack_finds_no_hidden_number(seed: int | None) -> None:
    """No hidden number of arrivals, dwell times or trips can be deduced; by a threshold alone hundreds can."""
    seed = SystemRandom().randrange(1 << 32) if seed is None else seed
    print(f"seed {seed}")
    report = attack(seed, 6)
    print(report.text())
    assert report.hidden > 1000
    assert report.shown > 500
    assert report.found == 0
    assert report.fewest_values >= 3
    assert report.unsound < 0.01 * report.hidden
    assert report.differences == 0
    assert report.guessed - report.prior < 0.15
    assert report.control_found > 300
    assert report.control_right == report.control_found


def test_attackers_map_knows_what_makes_up_what() -> None:
    """The wings of a block make it up, and the rooms of a hall."""
    parts = {(whole[0][1], frozenset(part[1] for part in found)) for whole, found in relations(Campus())}
    assert ("block", frozenset({"west-wing", "east-wing"})) in parts
    assert ("hall", frozenset({"room-1", "room-2", "room-3", "room-4"})) in parts
    assert len(NAMES) == 17


def test_script_runs_by_itself() -> None:
    """A sceptic can run it from the command line and reads what was found."""
    script = Path(__file__).with_name("flow_differencing.py")
    ran = subprocess.run(
        [sys.executable, script, "--seed", "3", "--days", "2"], capture_output=True, text=True, check=True
    )
    assert "bounds                   0 found" in ran.stdout


def test_the_estimated_noise_is_that_of_the_mechanism() -> None:
    """The binary-tree mechanism, run on 4096 instants, has the error of the formula."""
    errors = np.concatenate([tree_errors(12, 1.0, np.random.default_rng(seed)) for seed in range(20)])
    # an instant sums the nodes of the ones in its binary number: half of the levels on average
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(noise_std(2**12 - 1, 1.0) / np.sqrt(2), rel=0.1)
