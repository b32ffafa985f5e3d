"""Process roles: what each one opens, runs and closes.

Each role has a module of its name here, with `run(settings, stop)`; it imports only what the role runs.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable

from headcount.settings.deployment import Settings

Run = Callable[[Settings, asyncio.Event], Awaitable[None]]
RunReporting = Callable[[Settings, asyncio.Event, Callable[[str], None]], Awaitable[None]]

#: The roles, each with whether it needs a site file.
ROLES = {
    "core": False,
    "broker": False,
    "count": True,
    "history": False,
    "adapters": True,
    "bridge": False,
    "devices": False,
    "api": True,
    "proxy": False,
    "scale": False,
}
#: Those that report why they are not healthy although they run.
REPORTING = {"core", "bridge"}


def load(role: str) -> Run:
    """The function that runs a role; imports its module."""
    run: Run = importlib.import_module(f"headcount.roles.{role}").run
    return run


def load_reporting(role: str) -> RunReporting:
    """The function that runs a role of `REPORTING`."""
    run: RunReporting = importlib.import_module(f"headcount.roles.{role}").run
    return run
