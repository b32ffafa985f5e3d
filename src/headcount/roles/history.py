"""The role `history`: the writer of the history."""

from __future__ import annotations

import asyncio

from headcount.history import writer
from headcount.history.hours import folder
from headcount.history.objects import FolderStore
from headcount.messaging.streams import opened_log
from headcount.roles.endpoints import core_endpoint
from headcount.settings.deployment import Settings


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Write the history until `stop` is set."""
    async with opened_log(core_endpoint(settings), "headcount history", stop) as connection:
        await writer.run(connection, FolderStore(folder(settings.data)), stop=stop)
