"""RabbitMQ as a source: a durable queue, whose messages are acknowledged when the log has them.

RabbitMQ's MQTT plug-in publishes the messages of its clients to the exchange `amq.topic`, with `.` for each `/`
of the topic. The queue is declared with a single active consumer, so that RabbitMQ delivers to one bridge at a
time even where another one has not noticed yet that its connection is lost. A queue that exists is used as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from urllib.parse import unquote

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity

from headcount.bridge.source import BATCH_SIZE, Reconnecting, SourceMessage, SourceOptions
from headcount.errors import CertificateError
from headcount.runtime.tasks import wait_any

_log = logging.getLogger(__name__)

EXCHANGE = "amq.topic"
#: Unacknowledged messages that RabbitMQ may send.
PREFETCH = 2 * BATCH_SIZE
#: A connection without an answer to this for twice the time is lost.
HEARTBEAT_S = 10
TIMEOUT_S = 10.0


def source(options: SourceOptions) -> AmqpSource:
    """The queue of a URL: `amqp://HOST:PORT/VHOST`."""
    return AmqpSource(options)


class AmqpSource:
    """One queue, of the bridge's name."""

    exclusive = True

    def __init__(self, options: SourceOptions) -> None:
        """Connect to the broker of these options when `batches` is called."""
        self._options = options
        self._last: AbstractIncomingMessage | None = None
        self.problem = "not connected yet"

    async def batches(self, stop: asyncio.Event) -> AsyncGenerator[list[SourceMessage], None]:
        """Yield messages until `stop` is set; see `Source`."""
        pauses = Reconnecting()
        while not stop.is_set():
            pauses.begin()
            try:
                async with await self._connect() as connection, connection.channel() as channel:
                    async for batch in self._consume(connection, channel, stop):
                        yield batch
                if not stop.is_set():
                    self._note("the connection was lost")
            except (AMQPError, CertificateError, OSError, ValueError) as error:
                self._note(str(error) or repr(error))
            finally:
                self._last = None
            await pauses.pause(stop)

    async def _consume(
        self, connection: AbstractConnection, channel: AbstractChannel, stop: asyncio.Event
    ) -> AsyncGenerator[list[SourceMessage], None]:
        """Yield messages until the connection is lost, the queue is deleted or `stop` is set."""
        waiting: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        arrived, closed = asyncio.Event(), asyncio.Event()

        async def take(message: AbstractIncomingMessage) -> None:
            waiting.put_nowait(message)
            arrived.set()

        async def end(*_: object) -> None:
            closed.set()

        channel.close_callbacks.add(end, weak=False)
        (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(end)
        await channel.set_qos(prefetch_count=PREFETCH)
        await (await self._queue(connection, channel)).consume(take)
        self.problem = ""
        _log.info("connected to %s", self._options.address)
        while True:
            await wait_any(arrived, closed, stop)
            if closed.is_set() or stop.is_set():
                return
            yield self._batch(waiting)
            if waiting.empty():
                arrived.clear()

    async def acknowledge(self) -> None:
        """Acknowledge the last batch; see `Source`."""
        if self._last is not None:
            try:
                await self._last.ack(multiple=True)
            except (AMQPError, OSError) as error:
                _log.debug("cannot acknowledge a batch, it will be delivered again: %s", error)
            self._last = None

    def _note(self, problem: str) -> None:
        self.problem = f"{self._options.address}: {problem}"
        _log.warning("%s; connecting again", self.problem)

    async def _connect(self) -> AbstractConnection:
        options = self._options
        return await aio_pika.connect(
            host=options.url.hostname or "localhost",
            port=options.url.port or (5671 if options.tls else 5672),
            login=options.user or "guest",
            password=options.password or "guest",
            virtualhost=unquote(options.url.path.removeprefix("/")) or "/",
            ssl=options.tls is not None,
            ssl_context=options.tls() if options.tls else None,
            timeout=TIMEOUT_S,
            client_properties={"connection_name": options.name},
            heartbeat=HEARTBEAT_S,
        )

    async def _queue(self, connection: AbstractConnection, channel: AbstractChannel) -> AbstractQueue:
        name = self._options.name
        try:
            # on a channel of its own: a refusal closes it
            async with connection.channel() as probe:
                await probe.declare_queue(name, passive=True)
            queue = await channel.get_queue(name, ensure=False)
        except ChannelNotFoundEntity:
            queue = await channel.declare_queue(
                name, durable=True, arguments={"x-single-active-consumer": True}
            )
        for topic in self._options.topics or self._options.default_topics:
            await queue.bind(EXCHANGE, topic.replace("/", ".").replace("+", "*"))
        return queue

    def _batch(self, waiting: asyncio.Queue[AbstractIncomingMessage]) -> list[SourceMessage]:
        messages: list[SourceMessage] = []
        while len(messages) < BATCH_SIZE and not waiting.empty():
            self._last = waiting.get_nowait()
            topic = (self._last.routing_key or "").replace(".", "/")
            messages.append(SourceMessage(topic, self._last.body))
        return messages
