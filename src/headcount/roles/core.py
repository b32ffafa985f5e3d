"""The role `core`: a node of the core, a NATS server with the streams."""

from __future__ import annotations

import asyncio

from headcount.broker.core import Broker
from headcount.roles.server_config import core_config
from headcount.runtime.tasks import until_stopped
from headcount.settings.deployment import Settings


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run a node of the core until `stop` is set."""

    async def serve() -> None:
        async with Broker(core_config(settings), stop_s=settings.stop_s):
            await asyncio.Event().wait()

    await until_stopped(serve(), stop)  # a node that waits for the others stops as well
