"""The role `bridge`: copies messages of another broker or bus."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable

from headcount.bridge import runner
from headcount.bridge.source import open_source, source_options
from headcount.decoders.plugins import formats
from headcount.roles.endpoints import core_endpoint
from headcount.settings.deployment import Settings

_log = logging.getLogger(__name__)


async def run(settings: Settings, stop: asyncio.Event, report: Callable[[str], None]) -> None:
    """Copy until `stop` is set; `report` receives why the bridge is not healthy, or ""."""
    core = core_endpoint(settings)
    # two deployments at one broker must not share a client id or a queue
    unique = hashlib.blake2b(b"bridge", key=core.password.encode()[:64], digest_size=4).hexdigest()
    options = source_options(settings.bridge, unique, formats())
    source = open_source(options)
    _log.info("copying from %s as %s", options.address, options.name)
    await runner.run(
        core, options.name, source, stop, formats=formats(), accounts=not settings.open, report=report
    )
