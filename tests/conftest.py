"""What all tests share: how hypothesis looks for counter-examples."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail, and a failure must be repeatable from what it printed.
settings.register_profile(
    "headcount", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("headcount"), derandomize=False)
settings.register_profile("long", settings.get_profile("headcount"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
