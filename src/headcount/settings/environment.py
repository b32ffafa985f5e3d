"""The environment of this process; every other module receives what it needs from it as an argument."""

from __future__ import annotations

import os

PREFIX = "HEADCOUNT_"
#: Variables that are read outside of `headcount` itself: by the health check of a container.
HEARTBEAT_FILE = "HEADCOUNT_HEARTBEAT_FILE"
#: The credentials file of `headcount device run`, or their JSON.
DEVICE_CREDENTIALS = "HEADCOUNT_DEVICE_CREDENTIALS"


def process_environment() -> dict[str, str]:
    """All variables of this process."""
    return dict(os.environ)


def variable(name: str) -> str:
    """The value of one variable, "" if it is not set."""
    return os.environ.get(name, "")


def foreign_environment() -> dict[str, str]:
    """All variables but headcount's own: for a child process whose settings are passed explicitly."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
