"""Messages of a stream overwritten on disk, not only marked as deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import nats.errors
from nats.aio.client import Client

from headcount.errors import LogError

#: Requests under way at once: the server queues some thousands for everybody together.
AT_ONCE = 200
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
