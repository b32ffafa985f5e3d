"""The history's writer as a process of its own, for tests that kill it.

Its arguments: URL, user, password, the place of the history, flush_s, and the time that its clock shows.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import nats

from headcount.history.places import store_at
from headcount.history.writer import run
from headcount.messaging.connection import Connection


async def main(url: str, user: str, password: str, place: str, flush_s: str, now_s: str) -> None:
    """Write until SIGTERM; prints `ready` once it is connected."""
    client = await nats.connect(url, user=user, password=password, max_reconnect_attempts=-1)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("ready", flush=True)
    objects = store_at(place, Path(), os.environ)
    await run(Connection(client), objects, stop=stop, flush_s=float(flush_s), clock=lambda: float(now_s))
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
