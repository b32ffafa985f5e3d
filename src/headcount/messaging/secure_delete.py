"""Secure delete: remove messages of a stream from the disk, instead of only marking them as deleted.

`erase` overwrites single messages, in about two milliseconds each. `purge` removes all up to one of them by
removing files, which is complete if there is no newer message. Otherwise the newest file stays until a purge
finds nothing newer in it, or until it has 8 MiB and is mostly deleted: then the server rewrites it.

`KvBucket.rewrite` writes a new value, and then overwrites the old one on disk. The second step is missing when
a process is killed or gets no answer in between: `scrub` makes up for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from functools import partial

from headcount.errors import LogError
from headcount.messaging import jetstream
from headcount.messaging.connection import Connection
from headcount.runtime.tasks import wait_any

_log = logging.getLogger(__name__)

#: Requests under way at the same time: the server queues some thousands for all clients together.
CONCURRENT = 200
#: Of acknowledged messages this many are overwritten one by one; those before them are purged.
MAX_SINGLE = 2000
SCRUB_INTERVAL_S = 60.0
_ANSWER_S = 10.0


async def erase(connection: Connection, stream: str, sequences: Sequence[int]) -> int:
    """Overwrite messages of a stream with random bytes and remove them; missing ones are skipped.

    The name of a subject, which the server stores beside the messages, goes with the last message on it at the
    next sync. A consumer no longer waits for the acknowledgement of a removed message.

    Returns:
        The number of messages that were removed.

    Raises:
        LogError: the server doesn't answer or refuses; some may be erased then. Repeating is harmless.
    """
    delete = partial(jetstream.delete_message, connection, stream, timeout_s=_ANSWER_S)
    erased = 0
    for start in range(0, len(sequences), CONCURRENT):
        erased += sum(await asyncio.gather(*map(delete, sequences[start : start + CONCURRENT])))
    return erased


async def purge(connection: Connection, stream: str, last: int) -> int:
    """Remove the messages up to and including sequence `last`, and return their number.

    Raises:
        LogError: the server doesn't answer or refuses. Repeating is harmless.
    """
    answer = await jetstream.request(
        connection, f"STREAM.PURGE.{stream}", {"seq": last + 1}, timeout_s=_ANSWER_S
    )
    return int(answer["purged"])


async def erase_acknowledged(connection: Connection, stream: str, consumer: str) -> int:
    """Overwrite the messages that a consumer has acknowledged without a gap, and return their number.

    Raises:
        LogError: the server doesn't answer or refuses; some may be erased then. Repeating is harmless.
    """
    state = (await jetstream.stream_info(connection, stream, timeout_s=_ANSWER_S)).state
    info = await jetstream.consumer_info(connection, stream, consumer, timeout_s=_ANSWER_S)
    last = min(info.acknowledged, state.last_seq)
    if last - state.first_seq >= MAX_SINGLE:  # this many fill their files fast, and those are removed
        await purge(connection, stream, last - MAX_SINGLE)
    return await erase(connection, stream, range(max(state.first_seq, last - MAX_SINGLE + 1), last + 1))


async def scrub(connection: Connection, buckets: Iterable[str], stop: asyncio.Event) -> None:
    """Overwrite replaced values of some buckets once a minute until `stop` is set."""
    names = list(buckets)
    while not stop.is_set():
        for name in names:
            try:
                if erased := await overwrite_replaced(connection, name):
                    _log.warning("bucket %s: %d replaced values were left on disk", name, erased)
            except LogError as error:
                _log.info("bucket %s: %s; trying again", name, error)
        await wait_any(stop, timeout_s=SCRUB_INTERVAL_S)


async def overwrite_replaced(connection: Connection, bucket: str) -> int:
    """Overwrite on disk all values that aren't the newest of their key, and return their number.

    Raises:
        LogError: the log doesn't answer.
    """
    stream = f"KV_{bucket}"
    state = (await jetstream.stream_info(connection, stream, timeout_s=_ANSWER_S)).state
    if state.messages == state.num_subjects:
        return 0
    newest: dict[str, int] = {}
    replaced: list[int] = []
    async for message in jetstream.direct_scan(connection, stream, f"$KV.{bucket}.>", timeout_s=_ANSWER_S):
        if message.subject in newest:
            replaced.append(newest[message.subject])
        newest[message.subject] = message.sequence
    return await erase(connection, stream, replaced)
