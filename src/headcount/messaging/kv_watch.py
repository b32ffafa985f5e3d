"""A KV watch: all newest values of a bucket, then each change in the order of the log, once it is stored.

A subscription to a bucket's subjects also receives writes that the bucket then refuses. Authentication can't
accept those, so this reads the stream itself, by a consumer in the server's memory. When the consumer is lost
(by a restart or a network failure), everything is read again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NoReturn

from headcount.errors import LogError
from headcount.messaging import jetstream
from headcount.messaging.connection import Connection, Inbox
from headcount.messaging.consumers import delivered
from headcount.messaging.jetstream import NS, StoredMessage
from headcount.runtime.retry import repeat

_ANSWER_S = 2.0
#: An idle consumer sends a heartbeat this often; after three missed ones it is lost.
HEARTBEAT_S = 1.0
_LOST_S = 3 * HEARTBEAT_S

#: Key and value; None: the key has been deleted.
OnChange = Callable[[str, bytes | None], None]
OnSnapshot = Callable[[dict[str, bytes]], None]


async def watch(
    connection: Connection, bucket: str, keys: str, *, on_all: OnSnapshot, on_change: OnChange
) -> NoReturn:
    """Report all values of a bucket, and then each change, until cancelled.

    Values that `KvBucket.erase` overwrites are not reported.

    Args:
        connection: to the core, with all rights; it may be lost and restored.
        bucket: its name.
        keys: which of its keys, as a NATS subject (`device.*`).
        on_all: called with all newest values at the start, and whenever everything had to be read again: keys
            that are missing in it are gone.
        on_change: called with each value that has changed.
    """
    await repeat(
        lambda: _watch(connection, bucket, keys, on_all, on_change),
        (LogError,),
        f"watching the bucket {bucket}",
    )


async def _watch(
    connection: Connection, bucket: str, keys: str, on_all: OnSnapshot, on_change: OnChange
) -> None:
    stream, prefix = f"KV_{bucket}", f"$KV.{bucket}."
    async with connection.inbox() as inbox:
        config = jetstream.temporary_consumer(
            30,
            filter_subject=prefix + keys,
            deliver_subject=inbox.subject,
            deliver_policy="last_per_subject",
            max_deliver=1,
            idle_heartbeat=int(HEARTBEAT_S * NS),
        )
        body = {"stream_name": stream, "config": config}
        created = await jetstream.request(connection, f"CONSUMER.CREATE.{stream}", body, timeout_s=_ANSWER_S)
        try:
            expected, found = 1, dict[str, bytes]()
            pending = int(created["num_pending"])
            while pending:
                message = await _next(inbox, expected)
                expected, pending = expected + 1, message.pending
                if message.data:  # otherwise a mark that it is deleted
                    found[message.subject.removeprefix(prefix)] = message.data
            on_all(found)
            while True:
                message = await _next(inbox, expected)
                expected += 1
                on_change(message.subject.removeprefix(prefix), message.data or None)
        finally:
            with contextlib.suppress(LogError):
                await connection.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{created['name']}")


async def _next(inbox: Inbox, expected: int) -> StoredMessage:
    """The consumer's next message, the one with the number `expected`.

    Raises:
        LogError: one is missing, or the server sends neither messages nor heartbeats.
    """
    while True:
        message = await inbox.next(_LOST_S)
        headers = message.headers or {}
        status = headers.get("Status")
        if status == "100":  # a heartbeat
            if int(headers.get("Nats-Last-Consumer", 0)) >= expected:
                raise LogError("a message of a consumer is missing")
            continue
        if status is not None:
            raise LogError(f"a consumer ends: {status} {headers.get('Description', '')}")
        found = delivered(message)
        if found.delivery != expected:
            raise LogError("a message of a consumer is missing")
        return found
