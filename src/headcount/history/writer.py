"""The history role: from the HISTORY stream into segments.

    HISTORY ──fetch──▶ Pending (memory) ──every flush_s, or when full──▶ Segments (disk) ──▶ ack ──▶ erase

A batch is acknowledged only when all of it is on disk, and then overwritten in the stream: rows are kept in
one place only. Batches of a partition must be worked off in
the order of the stream, or the mark that tells new rows from old ones would pass over some. The
broker keeps that order only while nothing is lost on the way: what it has sent and we have not
acknowledged comes again after `ack_wait`, behind newer messages. So the consumer is made anew, from
the first message that isn't acknowledged, at the start, after each reconnection (a killed broker may
have forgotten deliveries and acknowledgements), and whenever its delivery numbers show a gap.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy
from nats.js.client import JetStreamContext

from headcount.errors import HeadcountError, LogError
from headcount.history.buffer import Pending
from headcount.history.retention import drop_expired
from headcount.history.row_erasure import Answer, asked, erase_rows
from headcount.history.segments import Segments, opened
from headcount.messages.history import HistoryBatch
from headcount.messages.topics import HISTORY_ERASE_SUBJECT, HISTORY_STREAM
from headcount.messaging.secure_delete import erase_acknowledged

log = logging.getLogger(__name__)

CONSUMER = "history"
FLUSH_S = 60.0
#: Fixes in memory that start a flush early (about 20 MB); at twice as many we stop to fetch.
FLUSH_ROWS = 200_000
#: Messages in memory that start a flush early; at twice as many the broker stops to deliver.
FLUSH_MESSAGES = 20_000
FETCH_MESSAGES = 64  # each at most the broker's max_payload
FETCH_S = 0.5  # also how long a stop may have to wait
RETENTION_S = 60.0
RETRY_S = 0.5
REQUEST_S = 2.0
#: What is written is overwritten in the stream at the end, too, for so long at most.
STOP_S = 0.3
#: So long erasing somebody may take; whoever asks tries again.
ERASE_S, ERASE_LOOK_S = 60.0, 0.1
#: How often what is acknowledged is overwritten, beside after each flush.
REMOVE_S = 10.0

Clock = Callable[[], float]


@dataclass(slots=True)
class Stats:
    """What the writer has done since it started; for metrics and tests."""

    fixes: int = 0
    repeated: int = 0  # fixes that came again and were dropped
    refused: int = 0  # batches that contradict themselves or can't be decoded
    flushes: int = 0
    bytes: int = 0
    reopened: int = 0  # how often the consumer was made anew
    hours_dropped: int = 0
    erased: int = 0  # fixes, because somebody was erased


@dataclass(slots=True)
class _Writer:
    segments: Segments
    pending: Pending
    data: Path
    clock: Clock
    stats: Stats
    full: asyncio.Event = field(default_factory=asyncio.Event)
    roomy: asyncio.Event = field(default_factory=asyncio.Event)
    written: asyncio.Event = field(default_factory=asyncio.Event)
    disk: asyncio.Lock = field(default_factory=asyncio.Lock)
    erasing: asyncio.Lock = field(default_factory=asyncio.Lock)
    held: list[Msg] = field(default_factory=list)  # to be acknowledged with the next flush
    decoder: msgspec.msgpack.Decoder[HistoryBatch] = field(
        default_factory=lambda: msgspec.msgpack.Decoder(HistoryBatch)
    )

    def take_in(self, message: Msg) -> None:
        self.held.append(message)
        try:
            self.pending.add(self.decoder.decode(message.data), self.clock())
        except (msgspec.DecodeError, LogError) as error:
            # It would be refused again for ever: it is counted, and acknowledged with the others.
            self.stats.refused += 1
            log.warning("a batch for the history is unusable and left out: %s", error)
        if self.pending.rows >= FLUSH_ROWS or len(self.held) >= FLUSH_MESSAGES:
            self.full.set()
        if self.pending.rows >= 2 * FLUSH_ROWS:
            self.roomy.clear()

    async def flush(self) -> None:
        async with self.disk:
            self.full.clear()
            held, self.held = self.held, []
            rows, flush = self.pending.rows, self.pending.take(self.clock())
            self.roomy.set()
            if flush is not None:
                self.stats.bytes += await asyncio.to_thread(self.segments.commit, flush)
                self.stats.flushes += 1
            self.stats.fixes += rows
            self.stats.repeated = self.pending.repeated
        for message in held:
            await _ack(message)
        self.written.set()

    async def erase(self, client: Client, names: list[str]) -> int:
        """Have no row of these pseudonyms anywhere: not in the stream, not in memory, not in a segment.

        Raises:
            LogError, TimeoutError, nats.errors.Error: the broker is away; some may be left.
            DataFolderError: the disk refuses.
        """
        async with self.erasing, asyncio.timeout(ERASE_S):
            last = (await client.jetstream().stream_info(HISTORY_STREAM)).state.last_seq
            while True:  # until all that was in the stream has come, is in segments and is overwritten
                await self.flush()
                await client.flush()
                await erase_acknowledged(client, HISTORY_STREAM, CONSUMER)
                state = (await client.jetstream().stream_info(HISTORY_STREAM)).state
                if not state.messages or state.first_seq > last:
                    break
                await asyncio.sleep(ERASE_LOOK_S)
            async with self.disk:
                rows = await asyncio.to_thread(erase_rows, self.segments.root, names)
        self.stats.erased += rows
        return rows

    async def answer(self, client: Client, message: Msg) -> None:
        """Answer a request to erase."""
        names = asked(message.data)
        if names is None:
            answer = Answer(error="that names nobody")
        else:
            try:
                answer = Answer(await self.erase(client, names))
            except (HeadcountError, nats.errors.Error, nats.js.errors.Error, OSError) as error:
                log.warning(
                    "somebody can't be erased from the history now: %s", error or type(error).__name__
                )
                answer = Answer(error=f"not everything is erased yet: {error}")
        await message.respond(msgspec.json.encode(answer))

    async def drop_expired(self) -> None:
        async with self.disk:
            gone = await asyncio.to_thread(drop_expired, self.data, self.clock())
        self.stats.hours_dropped += len(gone)
        for path in gone:
            log.info("dropped %s: older than a day", path)


async def run(
    client: Client,
    data: Path,
    *,
    stop: asyncio.Event,
    flush_s: float = FLUSH_S,
    clock: Clock = time.time,
    stats: Stats | None = None,
) -> None:
    """Write the history until `stop` is set; then flush, acknowledge and return.

    Args:
        client: connected, and told to reconnect for ever (`max_reconnect_attempts=-1`); it stays open.
        data: the data folder.
        stop: set from outside.
        flush_s: seconds between flushes; what is not yet flushed waits in memory and in the stream.
        clock: Unix seconds.
        stats: counted up in place.

    Raises:
        DataFolderError: the folder can't be written, or another writer has it. Nothing is lost: what
            isn't on disk isn't acknowledged.
        nats.errors.ConnectionClosedError: the client was closed.
    """
    with opened(data) as segments:
        writer = _Writer(segments, Pending(segments.written), data, clock, stats or Stats())
        writer.roomy.set()
        await writer.drop_expired()
        requests = await client.subscribe(HISTORY_ERASE_SUBJECT, cb=partial(writer.answer, client))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_read(client, writer, stop), name="history: read")
                tasks.create_task(_flush(writer, stop, flush_s), name="history: flush")
                tasks.create_task(_retain(writer, stop), name="history: retention")
                tasks.create_task(_remove(client, writer, stop), name="history: remove")
        except ExceptionGroup as group:
            # One loop failed and ended the others: its error is the role's.
            raise group.exceptions[0] from group
        finally:
            if client.is_connected:
                await requests.unsubscribe()
        await writer.flush()
        if client.is_connected:
            await client.flush()
            with suppress(TimeoutError):  # the next start does the rest
                async with asyncio.timeout(STOP_S):
                    await _remove_written(client)


async def _read(client: Client, writer: _Writer, stop: asyncio.Event) -> None:
    jetstream = client.jetstream(timeout=REQUEST_S)
    while not stop.is_set():
        connection = client.stats["reconnects"]

        def over(connection: int = connection) -> bool:
            return stop.is_set() or client.stats["reconnects"] != connection

        try:
            subscription = await _new_consumer(jetstream, writer)
            try:
                await _read_in_order(subscription, writer, stop, over)
            finally:
                await subscription.unsubscribe()
        except nats.errors.ConnectionClosedError:
            raise
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            # The broker is away or starting, or the stream isn't there yet.
            log.warning("the history waits for the broker: %s", error or type(error).__name__)
            await _either(stop, RETRY_S)


async def _read_in_order(
    subscription: JetStreamContext.PullSubscription,
    writer: _Writer,
    stop: asyncio.Event,
    over: Callable[[], bool],
) -> None:
    """Take in messages until it is over, or until a gap in the consumer's delivery numbers."""
    delivered = 0
    while not over():
        if not writer.roomy.is_set():
            await _either(stop, FETCH_S, writer.roomy)
            continue
        try:
            messages = await subscription.fetch(FETCH_MESSAGES, timeout=FETCH_S)
        except TimeoutError:
            continue
        for message in messages:
            delivered += 1
            if message.metadata.sequence.consumer != delivered:
                return
            writer.take_in(message)
        await asyncio.sleep(0)


async def _new_consumer(jetstream: JetStreamContext, writer: _Writer) -> JetStreamContext.PullSubscription:
    """The durable consumer, made anew from the first message that isn't acknowledged.

    What is still in memory comes again, is recognised, and is acknowledged by its new delivery.
    """
    writer.held.clear()
    info = await jetstream.stream_info(HISTORY_STREAM)
    first: int | None = None
    try:
        old = await jetstream.consumer_info(HISTORY_STREAM, CONSUMER)
        first = (old.ack_floor.stream_seq if old.ack_floor else 0) + 1
        await jetstream.delete_consumer(HISTORY_STREAM, CONSUMER)
        writer.stats.reopened += 1
    except nats.js.errors.NotFoundError:
        pass
    # A work queue holds nothing that is acknowledged, and takes no other start than its first.
    from_first = first is None or info.config.retention == RetentionPolicy.WORK_QUEUE
    config = ConsumerConfig(
        durable_name=CONSUMER,
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL if from_first else DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=None if from_first else first,
        ack_wait=300.0,
        max_ack_pending=2 * FLUSH_MESSAGES,
    )
    await jetstream.add_consumer(HISTORY_STREAM, config)
    return await jetstream.pull_subscribe_bind(CONSUMER, HISTORY_STREAM)


async def _flush(writer: _Writer, stop: asyncio.Event, flush_s: float) -> None:
    while not stop.is_set():
        await _either(stop, flush_s, writer.full)
        if not stop.is_set():
            await writer.flush()


async def _retain(writer: _Writer, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await _either(stop, RETENTION_S)
        await writer.drop_expired()


async def _remove(client: Client, writer: _Writer, stop: asyncio.Event) -> None:
    """Overwrite in the stream what is in segments; what an earlier writer left behind, too."""
    while not stop.is_set():
        await _either(stop, REMOVE_S, writer.written)
        writer.written.clear()
        await _remove_written(client)


async def _remove_written(client: Client) -> None:
    try:
        await erase_acknowledged(client, HISTORY_STREAM, CONSUMER)
    except LogError as error:
        log.debug("rows that are written stay in the stream for now: %s", error)


async def _ack(message: Msg) -> None:
    try:
        await message.ack()
    except nats.errors.ConnectionClosedError:
        raise
    except nats.errors.Error as error:
        # It comes again, is recognised and acknowledged then.
        log.debug("not acknowledged: %s", error)


async def _either(stop: asyncio.Event, wait_s: float, other: asyncio.Event | None = None) -> None:
    """Wait for the stop, for the other event or for the time, whichever is first."""
    waits = [asyncio.ensure_future(event.wait()) for event in (stop, other) if event is not None]
    try:
        await asyncio.wait(waits, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
