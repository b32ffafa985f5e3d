"""Waiting for a running system, with a limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from headcount.errors import HeadcountError, LogError
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import consumer_info


async def wait_until(condition: Callable[[], bool], what: str, seconds: float, hint: str = "") -> None:
    """Poll until a condition holds.

    Args:
        condition: becomes true by other tasks.
        what: names it in the error.
        seconds: the limit.
        hint: ends the error's text.

    Raises:
        HeadcountError: it did not hold in time.
    """
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - other tasks don't notify
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise HeadcountError(f"{what}: not within {seconds:.0f} s{hint}") from None


async def wait_consumed(
    connection: Connection, stream: str, consumer: str, seconds: float, *, acknowledged: bool
) -> None:
    """Wait until a consumer has fetched all messages, and acknowledged them; return after `seconds` at the latest."""

    async def remaining() -> int:
        with contextlib.suppress(LogError):  # the consumer is created again after each disconnect
            info = await consumer_info(connection, stream, consumer, timeout_s=2.0)
            return info.num_pending + (info.num_ack_pending if acknowledged else 0)
        return 1

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while await remaining():  # noqa: ASYNC110 - the server doesn't notify
                await asyncio.sleep(0.2)
