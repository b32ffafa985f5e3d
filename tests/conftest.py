"""What all tests share: how hypothesis looks for counter-examples, and what a skip means."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail, and a failure must be repeatable from what it printed.
settings.register_profile(
    "headcount", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("headcount"), derandomize=False)
settings.register_profile("long", settings.get_profile("headcount"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where every counterpart must be there (HEADCOUNT_NO_SKIPS), a skipped test has failed."""
    report = yield
    if report.skipped and os.environ.get("HEADCOUNT_NO_SKIPS"):
        report.outcome = "failed"
    return report
