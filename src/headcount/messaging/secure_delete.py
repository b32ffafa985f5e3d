"""Messages of a stream gone from the disk, not only marked as deleted.

`erase` overwrites single messages: about two milliseconds each. `purge` drops all up to one of them, at
once, by removing files: completely where nothing newer has come. Otherwise the newest file stays as it is until
a purge finds nothing newer in it, or it has its 8 MiB and is mostly dead: then the server rewrites it.
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
    """Overwrite messages of a stream with random bytes and remove them; those that are gone count for nothing.

    Where the server keeps the name of a subject beside the messages, it is gone with the last one of
    it at the next sync. A consumer that waits for the message to be acknowledged waits no more.

    Returns:
        How many were there.

    Raises:
        LogError: the server doesn't answer or refuses; some may be erased then. Repeating is harmless.
    """
    delete = partial(jetstream.delete_message, connection, stream, timeout_s=_ANSWER_S)
    erased = 0
    for start in range(0, len(sequences), CONCURRENT):
        erased += sum(await asyncio.gather(*map(delete, sequences[start : start + CONCURRENT])))
    return erased


async def purge(connection: Connection, stream: str, last: int) -> int:
    """Remove the messages up to sequence `last`, that one included; how many there were.

    Raises:
        LogError: the server doesn't answer or refuses. Repeating is harmless.
    """
    answer = await jetstream.request(
        connection, f"STREAM.PURGE.{stream}", {"seq": last + 1}, timeout_s=_ANSWER_S
    )
    return int(answer["purged"])


async def erase_acknowledged(connection: Connection, stream: str, consumer: str) -> int:
    """Overwrite what a consumer has acknowledged without a gap; how many messages that were.

    Raises:
        LogError: the server doesn't answer or refuses; some may be erased then. Repeating is harmless.
    """
    state = (await jetstream.stream_info(connection, stream, timeout_s=_ANSWER_S)).state
    info = await jetstream.consumer_info(connection, stream, consumer, timeout_s=_ANSWER_S)
    last = min(info.acknowledged, state.last_seq)
    if last - state.first_seq >= MAX_SINGLE:  # this many fill their files fast, and those are removed
        await purge(connection, stream, last - MAX_SINGLE)
    return await erase(connection, stream, range(max(state.first_seq, last - MAX_SINGLE + 1), last + 1))
