"""What was replaced in a bucket and not overwritten: somebody was killed in between, or wasn't answered.

`Bucket.rewrite` writes the new value, and then overwrites the old one on disk. The second may fail while the
first has taken effect, and then nobody would ever try it again: so somebody looks every minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterable

import msgspec
import nats.errors
from nats.aio.client import Client

from headcount.errors import LogError
from headcount.messaging.secure_delete import erase

_log = logging.getLogger(__name__)

LOOK_S = 60.0
_PAGE = 1000
_ANSWER_S = 10.0


async def keep(client: Client, buckets: Iterable[str], stop: asyncio.Event) -> None:
    """Overwrite what is left over in some buckets, once a minute, until told to stop."""
    names = list(buckets)
    while not stop.is_set():
        for name in names:
            try:
                erased = await overwrite_replaced(client, name)
                if erased:
                    _log.warning("bucket %s: %d replaced values had been left on disk", name, erased)
            except LogError as error:
                _log.info("bucket %s: %s; trying again", name, error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_S)


async def overwrite_replaced(client: Client, bucket: str) -> int:
    """Overwrite on disk whatever isn't the newest value of its key; how many values that were.

    Raises:
        LogError: the log doesn't answer.
    """
    stream = f"KV_{bucket}"
    try:
        answer = await client.request(f"$JS.API.STREAM.INFO.{stream}", timeout=_ANSWER_S)
        state = msgspec.json.decode(answer.data)["state"]
        if state["messages"] == state.get("num_subjects", 0):
            return 0
        replaced = await _replaced(client, stream, f"$KV.{bucket}.>")
    except (nats.errors.Error, OSError, TimeoutError, KeyError) as error:
        raise LogError(f"the bucket {bucket} doesn't answer: {error!r}") from error
    return await erase(client, stream, replaced)


async def _replaced(client: Client, stream: str, subject: str) -> list[int]:
    """The sequences of all messages after which there is one with the same subject."""
    newest: dict[str, int] = {}
    replaced: list[int] = []
    subscription = await client.subscribe(inbox := client.new_inbox())
    try:
        start, left = 1, 1
        while left:
            ask = json.dumps({"next_by_subj": subject, "seq": start, "batch": _PAGE}).encode()
            await client.publish(f"$JS.API.DIRECT.GET.{stream}", ask, reply=inbox)
            while True:
                headers = (await subscription.next_msg(timeout=_ANSWER_S)).headers or {}
                if "Status" in headers:
                    left = int(headers.get("Nats-Num-Pending", 0))
                    break
                start = int(headers["Nats-Sequence"]) + 1
                before = newest.get(headers["Nats-Subject"])
                if before is not None:
                    replaced.append(before)
                newest[headers["Nats-Subject"]] = start - 1
    finally:
        await subscription.unsubscribe()
    return replaced
