"""The connection to NATS: what it adds to nats-py."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from headcount.errors import LogTimeoutError
from headcount.messaging.connection import log_errors


async def test_a_cancellation_that_the_client_catches_is_raised() -> None:
    """Code that nats-py goes on in after a cancellation ends as cancelled; a timeout stays a timeout."""

    async def flush() -> None:
        with log_errors("a flush"), contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)

    task = asyncio.create_task(flush())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(LogTimeoutError), log_errors("a flush"):
        async with asyncio.timeout(0):
            await flush()
