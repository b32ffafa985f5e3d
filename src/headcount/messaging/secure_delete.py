"""Messages of a stream gone from the disk, not only marked as deleted.

`erase` overwrites single messages: about two milliseconds each. `purge` drops all up to one of them, at
once, by removing files: completely where nothing newer has come. Otherwise the newest file stays as it is until
a purge finds nothing newer in it, or it has its 8 MiB and is mostly dead: then the server rewrites it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from headcount.errors import LogError

#: Requests under way at once: the server queues some thousands for everybody together.
AT_ONCE = 200
#: Of acknowledged messages so many are overwritten one by one, before that they are purged.
MOST_SINGLE = 2000
_READ_AT_ONCE = 500
_ANSWER_S = 10.0
_GONE = (10037, 10043, 10057)  # no message found; none of that sequence; deleted by somebody else


async def erase(client: Client, stream: str, sequences: Sequence[int]) -> int:
    """Overwrite messages of a stream with random bytes and remove them; those that are gone count for nothing.

    Where the server keeps the name of a subject beside the messages, it is gone with the last one of
    it at the next sync. A consumer that waits for the message to be acknowledged waits no more.

    Returns:
        How many were there.

    Raises:
        LogError: the server doesn't answer or refuses; some may be erased then. Asking again is harmless.
    """
    subject = f"$JS.API.STREAM.MSG.DELETE.{stream}"

    async def one(sequence: int) -> int:
        question = b'{"seq":%d,"no_erase":false}' % sequence
        answer = await client.request(subject, question, timeout=_ANSWER_S)
        problem = msgspec.json.decode(answer.data).get("error", {})
        if problem and problem.get("err_code") not in _GONE:
            raise LogError(f"{stream} refuses to erase a message: {problem.get('description')}")
        return not problem

    erased = 0
    for start in range(0, len(sequences), AT_ONCE):
        try:
            erased += sum(await asyncio.gather(*map(one, sequences[start : start + AT_ONCE])))
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LogError(f"{stream}: messages can't be erased now: {error!r}") from error
    return erased


async def purge(client: Client, stream: str, last: int) -> int:
    """Remove the messages up to sequence `last`, that one included; how many there were.

    Raises:
        LogError: the server doesn't answer or refuses. Asking again is harmless.
    """
    question = msgspec.json.encode({"seq": last + 1})
    try:
        answer = await client.request(f"$JS.API.STREAM.PURGE.{stream}", question, timeout=_ANSWER_S)
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise LogError(f"{stream} can't be purged now: {error!r}") from error
    body = msgspec.json.decode(answer.data)
    if problem := body.get("error"):
        raise LogError(f"{stream} refuses to be purged: {problem.get('description')}")
    return int(body["purged"])


async def erase_acknowledged(client: Client, stream: str, consumer: str) -> int:
    """Overwrite what a consumer has acknowledged without a gap; how many messages that were.

    Raises:
        LogError: the server doesn't answer or refuses; some may be erased then. Asking again is harmless.
    """
    jetstream = client.jetstream(timeout=_ANSWER_S)
    try:
        state = (await jetstream.stream_info(stream)).state
        floor = (await jetstream.consumer_info(stream, consumer)).ack_floor
    except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
        raise LogError(f"{stream}: messages can't be erased now: {error!r}") from error
    last = min(floor.stream_seq if floor else 0, state.last_seq)
    if last - state.first_seq >= MOST_SINGLE:  # so much fills its files fast, and those are removed
        await purge(client, stream, last - MOST_SINGLE)
    return await erase(client, stream, range(max(state.first_seq, last - MOST_SINGLE + 1), last + 1))


async def sequences(client: Client, stream: str, subject: str) -> AsyncIterator[tuple[int, bytes]]:
    """Sequence and payload of each message of a stream whose subject is, or matches, `subject`, in order.

    What comes while this reads may be left out.

    Raises:
        LogError: the server doesn't answer or refuses.
    """
    jetstream = client.jetstream(timeout=_ANSWER_S)
    config = ConsumerConfig(
        filter_subject=subject,
        ack_policy=AckPolicy.NONE,
        mem_storage=True,
        num_replicas=1,
        inactive_threshold=_ANSWER_S * 3,
    )
    try:
        info = await jetstream.add_consumer(stream, config)
        left = info.num_pending or 0
        pull = await jetstream.pull_subscribe_bind(info.name, stream)
        try:
            while left > 0:
                for message in await pull.fetch(min(left, _READ_AT_ONCE), timeout=_ANSWER_S):
                    left = message.metadata.num_pending
                    yield message.metadata.sequence.stream, message.data
        finally:
            await pull.unsubscribe()
            await jetstream.delete_consumer(stream, info.name)
    except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
        raise LogError(f"{stream} can't be read now: {error!r}") from error
