"""The example notebook runs against a generated history."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from headcount.devices.pseudonyms import Pseudonyms
from headcount.history.objects import FolderStore
from headcount.settings.retention_periods import RetentionPeriods
from headcount.simulate.past_day import store_past_day
from headcount.sites.files import bundled_site, load_site

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "notebooks" / "history.ipynb"
#: Runs in a process of its own: its libraries warn of deprecations of each other.
_RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def outputs(path: Path) -> list[list[dict[str, Any]]]:
    """The outputs of each cell with code."""
    cells = json.loads(path.read_text())["cells"]
    return [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_the_notebook_draws_three_figures(tmp_path: Path) -> None:
    """All cells run, and the curve, the busiest zones and the map are drawn."""
    store_past_day(
        FolderStore(tmp_path / "data" / "history"),
        load_site(bundled_site("ul")),
        Pseudonyms({}),
        time.time(),
        periods=RetentionPeriods(),
        people=200,
        vehicles=40,
        seed=1,
        stop=threading.Event(),
    )
    done = tmp_path / "done.ipynb"
    variables = os.environ | {
        "HEADCOUNT_DATA": str(tmp_path / "data"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    run = subprocess.run(
        [sys.executable, "-c", _RUN, NOTEBOOK, done],
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    drawn = [sum("image/png" in each.get("data", {}) for each in cell) for cell in outputs(done)]
    assert drawn == [0, 1, 1, 1]


def test_the_notebook_is_committed_without_outputs() -> None:
    """The file has no outputs and no numbers of executions."""
    assert not any(outputs(NOTEBOOK))
    assert '"execution_count": null' in NOTEBOOK.read_text()
    assert '"execution_count": 1' not in NOTEBOOK.read_text()
