"""Overwrite replaced values of a bucket that were left on disk, since a process was killed or got no answer.

`KvBucket.rewrite` writes the new value, and then overwrites the old one. The second may fail after the
first has taken effect, and then nothing would try it again: so the buckets are scrubbed every minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from headcount.errors import LogError
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import direct_scan, stream_info
from headcount.messaging.secure_delete import erase

_log = logging.getLogger(__name__)

SCRUB_INTERVAL_S = 60.0
_ANSWER_S = 10.0


async def run(connection: Connection, buckets: Iterable[str], stop: asyncio.Event) -> None:
    """Scrub some buckets once a minute until `stop` is set."""
    names = list(buckets)
    while not stop.is_set():
        for name in names:
            try:
                erased = await overwrite_replaced(connection, name)
                if erased:
                    _log.warning("bucket %s: %d replaced values were left on disk", name, erased)
            except LogError as error:
                _log.info("bucket %s: %s; trying again", name, error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), SCRUB_INTERVAL_S)


async def overwrite_replaced(connection: Connection, bucket: str) -> int:
    """Overwrite on disk all values that aren't the newest of their key, and return their number.

    Raises:
        LogError: the log doesn't answer.
    """
    stream = f"KV_{bucket}"
    state = (await stream_info(connection, stream, timeout_s=_ANSWER_S)).state
    if state.messages == state.num_subjects:
        return 0
    newest: dict[str, int] = {}
    replaced: list[int] = []
    async for message in direct_scan(connection, stream, f"$KV.{bucket}.>", timeout_s=_ANSWER_S):
        if message.subject in newest:
            replaced.append(newest[message.subject])
        newest[message.subject] = message.sequence
    return await erase(connection, stream, replaced)
