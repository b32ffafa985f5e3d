"""The operator's log: warnings that repeat, and keys in URLs."""

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


REQUEST = """
import httpx2
from headcount.runtime.logs import configure_logging
from headcount.runtime.ports import free_ports

configure_logging("test", "DEBUG")
transport = httpx2.MockTransport(lambda request: httpx2.Response(200))
httpx2.Client(transport=transport).get("http://127.0.0.1/feed?api_key=a-key")
try:
    httpx2.get(f"http://127.0.0.1:{free_ports(1)[0]}/feed?api_key=a-key", trust_env=False)
except httpx2.HTTPError:
    print("refused")
"""


def test_no_key_of_a_url_is_logged() -> None:
    """A request over HTTP is not logged with its URL, which can contain a key, at any level."""
    run = subprocess.run([sys.executable, "-c", REQUEST], capture_output=True, text=True, check=True)
    assert run.stdout == "refused\n"
    assert "a-key" not in run.stderr
