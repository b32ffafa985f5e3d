"""The role `history`: the writer of the history."""

from __future__ import annotations

import asyncio

from headcount.history import writer
from headcount.messaging.connection import connected
from headcount.roles.endpoints import core_endpoint
from headcount.settings.deployment import Settings


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Write the history until `stop` is set."""
    async with connected(core_endpoint(settings), "headcount history", stop) as connection:
        await writer.run(connection, settings.data, stop=stop)
