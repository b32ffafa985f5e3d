"""A short chaos test with a random seed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_random_seed_shows_no_difference(tmp_path: Path) -> None:
    """Under the load and faults of a random seed, all results follow the rules."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADCOUNT_")}
    finished = subprocess.run(
        [sys.executable, "-m", "headcount", "prove", "--minutes", "0.6", "--keep", str(tmp_path / "kept")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    output = f"{finished.stdout}\n{finished.stderr}"
    print(output)
    assert finished.returncode == 0, output
    seed = re.search(r"seed (\d+)", finished.stderr)
    assert seed is not None
    assert (tmp_path / f"headcount-prove-{seed[1]}.html").exists()
