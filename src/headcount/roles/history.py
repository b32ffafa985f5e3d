"""The role `history`: the writer of the history."""

from __future__ import annotations

import asyncio

from headcount.history import writer
from headcount.history.places import store_at
from headcount.messaging.streams import opened_log
from headcount.roles.endpoints import core_endpoint
from headcount.settings.deployment import Settings
from headcount.settings.environment import process_environment
from headcount.settings.retention_periods import retention_periods


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Write the history until `stop` is set."""
    async with opened_log(core_endpoint(settings), "headcount history", stop) as connection:
        store = store_at(settings.history, settings.data, process_environment())
        await asyncio.to_thread(store.check)
        await writer.run(connection, store, stop=stop, periods=retention_periods(settings.retain))
