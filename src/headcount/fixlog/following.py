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
from nats.aio.subscription import Subscription

from headcount.errors import LogError
from headcount.fixlog.connection import RETRY_S

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
    client: Client, bucket: str, keys: str, *, on_all: OnAll, on_change: OnChange, until: asyncio.Event
) -> None:
    """Tell what a bucket holds, and then each change, until `until` is set.

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
    stopping = asyncio.create_task(until.wait(), name=f"stop following {bucket}")
    try:
        while not until.is_set():
            work = asyncio.create_task(_follow(client, bucket, keys, on_all, on_change))
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await _ended(work)
                return
            problem = work.exception()
            if not isinstance(problem, LogError | nats.errors.Error | OSError | TimeoutError):
                await work
            _log.debug("the bucket %s can't be followed now: %r", bucket, problem)
            await asyncio.wait({stopping}, timeout=RETRY_S)
    finally:
        await _ended(stopping)


async def _ended(task: asyncio.Task[Any]) -> None:
    """Cancel until it has ended: nats-py swallows a cancellation that comes while it writes."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)


async def _follow(client: Client, bucket: str, keys: str, on_all: OnAll, on_change: OnChange) -> None:
    stream, prefix = f"KV_{bucket}", f"$KV.{bucket}."
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, pending_msgs_limit=-1, pending_bytes_limit=-1)
    consumer = ""
    try:
        made = await _ask(client, f"CONSUMER.CREATE.{stream}", _consumer(stream, prefix + keys, inbox))
        consumer = made["name"]
        found: dict[str, bytes] = {}
        left, expected = int(made["num_pending"]), 1
        while left:
            message, number, left = await _next(subscription, expected)
            expected = number + 1
            value = _value(message)
            if value is not None:
                found[message.subject.removeprefix(prefix)] = value
        on_all(found)
        while True:
            message, number, _ = await _next(subscription, expected)
            expected = number + 1
            on_change(message.subject.removeprefix(prefix), _value(message))
    finally:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError, LogError):
            await subscription.unsubscribe()
            if consumer:
                await client.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{consumer}", b"", reply=inbox)


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


async def _next(subscription: Subscription, expected: int) -> tuple[Msg, int, int]:
    """The next message, its number in this delivery, and how many are still to come.

    Raises:
        LogError: one is missing, or the server says nothing any more.
    """
    while True:
        try:
            message = await subscription.next_msg(timeout=_LOST_S)
        except TimeoutError as error:
            raise LogError("a consumer says nothing any more") from error
        headers = message.headers or {}
        status = headers.get("Status")
        if status == "100":  # a heartbeat
            if int(headers.get("Nats-Last-Consumer", expected - 1)) >= expected:
                raise LogError("a message of a consumer is missing")
            continue
        if status is not None:
            raise LogError(f"a consumer ends: {status} {headers.get('Description', '')}")
        # $JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<number>.<time>.<pending>, or with a domain
        # and an account before the stream, and a random word at the end
        parts = message.reply.split(".")
        at = 6 if len(parts) == 9 else 8
        number, pending = int(parts[at]), int(parts[at + 2])
        if number != expected:
            raise LogError("a message of a consumer is missing")
        return message, number, pending


def _value(message: Msg) -> bytes | None:
    """What is stored; None: a mark that it is deleted."""
    return message.data or None


async def _ask(client: Client, question: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.request(f"$JS.API.{question}", msgspec.json.encode(body), timeout=_ANSWER_S)
    decoded: dict[str, Any] = msgspec.json.decode(answer.data)
    if problem := decoded.get("error"):
        raise LogError(f"JetStream refuses {question}: {problem.get('description', problem)}")
    return decoded
