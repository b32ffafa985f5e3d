"""The table of units for those who must go on while the core is away, from their start on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from headcount.errors import LogError
from headcount.messaging.connection import Endpoint, connected
from headcount.messaging.units import Units, UnitTable
from headcount.runtime.tasks import cancel_all


@contextlib.asynccontextmanager
async def watching(core: Endpoint, name: str) -> AsyncIterator[Callable[[], Awaitable[UnitTable]]]:
    """A function that asks for the table now; it raises LogError while the core is away."""
    found: list[Units] = []

    async def ask() -> UnitTable:
        if not found:
            raise LogError(f"{core}: not connected yet")
        return await found[0].table()

    async def connect() -> None:
        async with connected(core, name) as client:
            found.append(Units(client, client.jetstream(timeout=2)))
            await asyncio.Event().wait()

    task = asyncio.create_task(connect(), name="units")
    try:
        yield ask
    finally:
        await cancel_all({task})
