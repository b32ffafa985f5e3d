"""One short proof with a seed that nobody has chosen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROVE = "from headcount.cli.prove import prove_command; prove_command()"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_random_seed_shows_no_difference(tmp_path: Path) -> None:
    """Under the load and faults of a random seed nothing that the system says differs from the rules."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADCOUNT_")}
    answer = subprocess.run(
        [sys.executable, "-c", PROVE, "--minutes", "0.6", "--keep", str(tmp_path / "kept")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = f"{answer.stdout}\n{answer.stderr}"
    print(said)
    assert answer.returncode == 0, said
    seed = re.search(r"seed (\d+)", answer.stderr)
    assert seed is not None
    assert (tmp_path / f"headcount-proof-{seed[1]}.html").exists()
