"""Secure delete: remove messages of a stream from the disk, instead of only marking them as deleted.

`erase` overwrites single messages, in about two milliseconds each. `purge` removes all up to one of them by
removing files, which is complete if there is no newer message. Otherwise the newest file stays until a purge
finds nothing newer in it, or until it has 8 MiB and is mostly deleted: then the server rewrites it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from headcount.messaging import jetstream
from headcount.messaging.connection import Connection

#: Requests under way at the same time: the server queues some thousands for all clients together.
CONCURRENT = 200
#: Of acknowledged messages this many are overwritten one by one; those before them are purged.
MAX_SINGLE = 2000
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
