"""The role `core`: a node of the core, a NATS server with the streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headcount.broker.core import Broker
from headcount.roles.server_config import core_config
from headcount.runtime.tasks import until_stopped
from headcount.settings.deployment import Settings

_STARTING = "the NATS server is not ready"
_REPORT_INTERVAL_S = 1.0


async def run(settings: Settings, stop: asyncio.Event, report: Callable[[str], None]) -> None:
    """Run a node of the core until `stop` is set; `report` receives why it is not healthy, or ""."""

    async def serve() -> None:
        report(reported := _STARTING)
        async with Broker(core_config(settings), stop_s=settings.stop_s) as broker:
            while True:
                problem = _STARTING if not broker.ready else broker.problem or ""
                if problem != reported:
                    report(reported := problem)
                await asyncio.sleep(_REPORT_INTERVAL_S)

    await until_stopped(serve(), stop)  # a node that waits for the others stops as well
