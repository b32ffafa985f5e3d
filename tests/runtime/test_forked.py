"""Work in a forked process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from headcount.errors import SiteError
from headcount.runtime.forked import in_fork


def test_the_result_is_handed_over() -> None:
    """The function runs in another process, and its result arrives here."""
    pid, value = in_fork(lambda: (os.getpid(), 7))
    assert pid != os.getpid()
    assert value == 7


def test_errors_are_raised_here() -> None:
    """An error of ours arrives with its attributes and its text."""

    def fail() -> None:
        raise SiteError("site.geojson", "the file", "does not exist", "Name another")

    with pytest.raises(SiteError, match="does not exist") as caught:
        in_fork(fail)
    assert caught.value.remedy == "Name another"


def test_a_killed_process_is_an_error() -> None:
    """A process that ends without a result does not pass for one."""
    with pytest.raises(RuntimeError, match="without a result"):
        in_fork(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_imports_stay_in_the_forked_process() -> None:
    """An import of the function does not affect this process."""
    code = (
        "import sys\n"
        "from headcount.runtime.forked import in_fork\n"
        "assert in_fork(lambda: __import__('decimal').__name__) == 'decimal'\n"
        "assert 'decimal' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
