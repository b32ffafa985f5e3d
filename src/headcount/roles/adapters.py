"""The role `adapters`: the translator of other formats."""

from __future__ import annotations

import asyncio
import os

from headcount.adapters import translator
from headcount.roles.endpoints import core_endpoint
from headcount.roles.site import site_summary
from headcount.settings.deployment import Settings


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Translate messages of other formats until `stop` is set."""
    core = core_endpoint(settings)
    site_id = site_summary(settings).id
    await translator.run(core, site_id, stop, secret=core.password, worker=str(os.getpid()))
