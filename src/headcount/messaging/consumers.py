"""Consumers: read the messages of a stream in batches, and acknowledge them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from nats.js import JetStreamContext

from headcount.errors import JetStreamError, LogError, LogUnavailableError
from headcount.messaging.connection import Connection, Message, log_errors
from headcount.messaging.jetstream import ANSWER_S, ConsumerInfo, StoredMessage, request, temporary_consumer

#: The server deletes a temporary consumer that is not read for this long.
IDLE_S = 30


def delivered(message: Message) -> StoredMessage:
    """A message that a consumer has delivered.

    Its reply subject is `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<ns>.<pending>`;
    a domain and an account may stand before the stream, and a random word at the end.
    """
    parts = message.reply.split(".")
    at = 5 if len(parts) == 9 else 7
    sequence, delivery, stored_ns, pending = map(int, parts[at : at + 4])
    return StoredMessage(
        message.subject,
        message.data,
        sequence,
        stored_ns,
        message.headers or {},
        delivery,
        pending,
        message.reply,
    )


async def acknowledge(connection: Connection, message: StoredMessage) -> None:
    """Acknowledge what a consumer has delivered, without waiting for an answer."""
    await connection.publish(message.reply, b"+ACK")


async def extend(connection: Connection, message: StoredMessage) -> None:
    """Restart the time after which the message is delivered again, without waiting for an answer."""
    await connection.publish(message.reply, b"+WPI")


class PullConsumer:
    """A consumer of a stream, read in batches; see `pull_consumer`."""

    def __init__(self, subscription: JetStreamContext.PullSubscription, info: ConsumerInfo) -> None:
        """Read through a subscription; `pending` messages were there when the consumer was created."""
        self.name = info.name
        self.pending = info.num_pending
        self._subscription = subscription

    async def fetch(self, limit: int, within_s: float) -> list[StoredMessage]:
        """Up to `limit` messages as soon as there is one; none where none came in time."""
        try:
            messages = await self._subscription.fetch(limit, timeout=within_s)
        except nats.js.errors.APIError as error:
            raise JetStreamError(f"JetStream refuses a fetch: {error!r}") from error
        except TimeoutError:
            return []
        except (nats.errors.Error, OSError) as error:
            raise LogUnavailableError(f"a consumer doesn't answer: {error!r}") from error
        return [delivered(message) for message in messages]

    async def waiting(self, limit: int, page: int, within_s: float) -> AsyncIterator[StoredMessage]:
        """The messages that were there when the consumer was created, up to `limit`, a page at a time.

        Raises:
            LogUnavailableError: the core stopped sending them.
        """
        left = min(self.pending, limit)
        while left > 0:
            found = await self.fetch(min(left, page), within_s)
            if not found:
                raise LogUnavailableError("the core stopped sending the messages of a stream")
            for message in found:
                yield message
            left = min(left - len(found), found[-1].pending)


@contextlib.asynccontextmanager
async def pull_consumer(
    connection: Connection, stream: str, config: Mapping[str, Any], *, timeout_s: float = ANSWER_S
) -> AsyncIterator[PullConsumer]:
    """A consumer with this configuration, as JetStream's API takes it (times in nanoseconds).

    One without `durable_name` is in the memory of one server, acknowledges nothing, and is deleted at the end.
    """
    durable = config.get("durable_name")
    call = f"CONSUMER.DURABLE.CREATE.{stream}.{durable}" if durable else f"CONSUMER.CREATE.{stream}"
    wanted = config if durable else temporary_consumer(IDLE_S, **config)
    answer = await request(connection, call, {"stream_name": stream, "config": wanted}, timeout_s=timeout_s)
    info = msgspec.convert(answer, ConsumerInfo)
    with log_errors(f"consumer of {stream}"):
        jetstream = connection.client.jetstream(timeout=timeout_s)
        subscription = await jetstream.pull_subscribe_bind(info.name, stream)
    try:
        yield PullConsumer(subscription, info)
    finally:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError, LogError):
            await subscription.unsubscribe()
            if not durable:
                await connection.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{info.name}")


async def read(
    connection: Connection, stream: str, subjects: list[str], *, page: int = 500, timeout_s: float = 10.0
) -> AsyncIterator[StoredMessage]:
    """The messages of a stream whose subjects match, in order; those stored while this reads may be missing."""
    async with pull_consumer(
        connection, stream, {"filter_subjects": subjects}, timeout_s=timeout_s
    ) as consumer:
        async for message in consumer.waiting(consumer.pending, page, timeout_s):
            yield message
