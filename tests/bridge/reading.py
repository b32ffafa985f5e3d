"""Sources as the bridge reads them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from headcount.bridge.source import Source, SourceMessage, open_source, source_options
from headcount.decoders.formats import SHIPPED
from headcount.settings.bridge import BridgeSettings


def new_source(url: str, **settings: Any) -> Source:
    """The source of a URL, not connected yet."""
    return open_source(source_options(BridgeSettings(from_=url, **settings), "test", SHIPPED))


async def read(source: Source, number: int, *, acknowledge: bool = True) -> list[SourceMessage]:
    """Read until `number` messages have arrived, then stop; acknowledge each batch or none."""
    found: list[SourceMessage] = []
    stop = asyncio.Event()
    async with aclosing(source.batches(stop)) as batches:
        async for batch in batches:
            found += batch
            if acknowledge:
                await source.acknowledge()
            if len(found) >= number:
                stop.set()
                break
    return found
