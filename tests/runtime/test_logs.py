"""The operator's log: warnings that repeat."""

from __future__ import annotations

import subprocess
import sys

REPEATING = """
import logging
from headcount.runtime.logs import configure_logging

configure_logging("test")
log = logging.getLogger("headcount.test")
for number in range(20):
    log.warning("%s: connection lost; trying again", "core:4222")
    log.info("an event")
log.warning("%s: connection lost; trying again", "core:4223")
"""


def test_a_warning_that_repeats_is_one_line() -> None:
    """A warning with the same text is logged once a minute; other texts and events are not affected."""
    run = subprocess.run([sys.executable, "-c", REPEATING], capture_output=True, text=True, check=True)
    warnings = [line.partition("WARNING ")[2] for line in run.stderr.splitlines() if "WARNING" in line]
    assert warnings == [f"core:{port}: connection lost; trying again" for port in (4222, 4223)]
    assert run.stderr.count("an event") == 20
