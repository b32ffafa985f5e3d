"""Following a bucket: all of its newest values, then each change, in the order of the log, once it is stored.

Whoever subscribes to a bucket's subjects also hears writes that the bucket then refuses. Who decides who is
let in can't take those for true, so this reads the stream itself, by a consumer that lives in the
server's memory. When that is lost (a restart, a network that was away) everything is read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from headcount.errors import LogError
from headcount.messaging.connection import RETRY_S
from headcount.runtime.tasks import cancel_all

_log = logging.getLogger(__name__)

_ANSWER_S = 2.0
#: A stream that has nothing to tell says so this often; after three of these without a word it is lost.
BEAT_S = 1.0
_LOST_S = 3 * BEAT_S
_NS = 10**9

#: Key and value; None: the key has been deleted.
OnChange = Callable[[str, bytes | None], None]
OnAll = Callable[[dict[str, bytes]], None]


async def follow(
    client: Client,
    bucket: str,
    keys: str,
    *,
    on_all: OnAll,
    on_change: OnChange,
    until: asyncio.Event | None = None,
) -> None:
    """Tell what a bucket holds, and then each change, until cancelled or `until` is set.

    `on_all` is called whenever everything had to be read (again): what isn't in it is gone. What
    `Bucket.erase` overwrites is told to nobody.

    Args:
        client: connected to the core, with all rights; its connection may be lost and found again.
        bucket: its name.
        keys: which of its keys, as a NATS subject (`device.*`).
        on_all: gets all newest values.
        on_change: gets one that has changed.
        until: ends it.
    """
    work = asyncio.create_task(
        _follow_again(client, bucket, keys, on_all, on_change), name=f"follow {bucket}"
    )
    over = asyncio.create_task(_set(until or asyncio.Event()), name=f"follow {bucket} until")
    try:
        await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work  # what ended it is an error of ours
    finally:
        await cancel_all({work, over})


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _follow_again(client: Client, bucket: str, keys: str, on_all: OnAll, on_change: OnChange) -> None:
    while True:
        try:
            await _follow(client, bucket, keys, on_all, on_change)
        except (LogError, nats.errors.Error, OSError, TimeoutError) as error:
            _log.debug("the bucket %s can't be followed now: %r", bucket, error)
        await asyncio.sleep(RETRY_S)


async def _follow(client: Client, bucket: str, keys: str, on_all: OnAll, on_change: OnChange) -> None:
    stream, prefix = f"KV_{bucket}", f"$KV.{bucket}."
    inbox = client.new_inbox()
    heard = _Heard()
    # unlimited here: what doesn't fit is missed, and everything is read again for nothing
    subscription = await client.subscribe(inbox, cb=heard.take, pending_msgs_limit=-1, pending_bytes_limit=-1)
    consumer = ""
    try:
        made = await _ask(client, f"CONSUMER.CREATE.{stream}", _consumer(stream, prefix + keys, inbox))
        consumer = made["name"]
        found: dict[str, bytes] = {}
        left = int(made["num_pending"])
        while left:
            message, left = await heard.next()
            value = _value(message)
            if value is not None:
                found[message.subject.removeprefix(prefix)] = value
        on_all(found)
        while True:
            message, _ = await heard.next()
            on_change(message.subject.removeprefix(prefix), _value(message))
    finally:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await subscription.unsubscribe()
            if consumer:
                await client.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{consumer}", b"", reply=inbox)


class _Heard:
    """What a consumer has delivered, without a gap."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Msg] = asyncio.Queue()
        self._expected = 1

    async def take(self, message: Msg) -> None:
        self._queue.put_nowait(message)

    async def next(self) -> tuple[Msg, int]:
        """The next message, and how many are still to come.

        Raises:
            LogError: one is missing, or the server says nothing any more.
        """
        while True:
            try:
                async with asyncio.timeout(_LOST_S):
                    message = await self._queue.get()
            except TimeoutError as error:
                raise LogError("a consumer says nothing any more") from error
            headers = message.headers or {}
            status = headers.get("Status")
            if status == "100":  # a heartbeat
                if int(headers.get("Nats-Last-Consumer", 0)) >= self._expected:
                    raise LogError("a message of a consumer is missing")
                continue
            if status is not None:
                raise LogError(f"a consumer ends: {status} {headers.get('Description', '')}")
            # $JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<number>.<time>.<pending>, or with a domain
            # and an account before the stream, and a random word at the end
            parts = message.reply.split(".")
            at = 6 if len(parts) == 9 else 8
            if int(parts[at]) != self._expected:
                raise LogError("a message of a consumer is missing")
            self._expected += 1
            return message, int(parts[at + 2])


def _consumer(stream: str, subject: str, inbox: str) -> dict[str, Any]:
    return {
        "stream_name": stream,
        "config": {
            "filter_subject": subject,
            "deliver_subject": inbox,
            "deliver_policy": "last_per_subject",
            "ack_policy": "none",
            "replay_policy": "instant",
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
            "idle_heartbeat": int(BEAT_S * _NS),
            "inactive_threshold": 30 * _NS,
        },
    }


def _value(message: Msg) -> bytes | None:
    """What is stored; None: a mark that it is deleted."""
    return message.data or None


async def _ask(client: Client, question: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.request(f"$JS.API.{question}", msgspec.json.encode(body), timeout=_ANSWER_S)
    decoded: dict[str, Any] = msgspec.json.decode(answer.data)
    if problem := decoded.get("error"):
        raise LogError(f"JetStream refuses {question}: {problem.get('description', problem)}")
    return decoded
