"""Rows of the history that wait to be stored."""

from __future__ import annotations

import asyncio
import contextlib

from headcount.errors import LogError
from headcount.messages.topics import HISTORY_FLUSH_SUBJECT, HISTORY_STREAM
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import stream_info

_POLL_INTERVAL_S = 0.2


async def wait_stored(connection: Connection, seconds: float) -> bool:
    """Have the rows stored that wait in the stream now; whether they are, after `seconds` at the latest.

    Rows leave their stream when they are stored.
    """
    last: int | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(LogError):
                    state = (await stream_info(connection, HISTORY_STREAM, timeout_s=2.0)).state
                    last = state.last_seq if last is None else last
                    if not state.messages or state.first_seq > last:
                        return True
                    await connection.publish(HISTORY_FLUSH_SUBJECT)
                await asyncio.sleep(_POLL_INTERVAL_S)
    return False
