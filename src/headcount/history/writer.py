"""The history role: from the HISTORY stream into segments.

    HISTORY ──fetch──▶ Pending (memory) ──every flush_s, or when full──▶ Segments (disk) ──▶ ack ──▶ erase

A batch is acknowledged only when all of it is on disk, and then overwritten in the stream: rows are
stored in one place only. Batches of a site and partition must be processed in the order of the stream, or the
mark that separates new rows from old ones would skip some. The broker preserves that order only while
no message is lost: a message that is not acknowledged is redelivered after `ack_wait`, behind newer
ones. So the consumer is recreated, from the first unacknowledged message, at the start, after each
reconnection (a killed broker may have lost deliveries and acknowledgements), and whenever its
delivery numbers show a gap.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from headcount.errors import HeadcountError, LogError, StreamNotFoundError
from headcount.history.buffer import HistoryBuffer
from headcount.history.retention import drop_expired
from headcount.history.row_erasure import asked, erase_rows
from headcount.history.segments import Segments, opened
from headcount.messages.history import EraseReply, EraseRequest, HistoryBatch
from headcount.messages.topics import HISTORY_ERASE_SUBJECT, HISTORY_STREAM
from headcount.messaging.connection import Connection, Message
from headcount.messaging.consumers import PullConsumer, acknowledge, pull_consumer
from headcount.messaging.jetstream import NS, StoredMessage, consumer_info, request, stream_info
from headcount.messaging.secure_delete import erase_acknowledged
from headcount.runtime.retry import RETRY_S
from headcount.runtime.tasks import wait_any

log = logging.getLogger(__name__)

CONSUMER = "history"
FLUSH_S = 60.0
#: Fixes in memory that start a flush early (about 20 MB); at twice as many the writer stops fetching.
FLUSH_ROWS = 200_000
#: Messages in memory that start a flush early; at twice as many the broker stops delivering.
FLUSH_MESSAGES = 20_000
FETCH_MESSAGES = 64  # each at most the broker's max_payload
FETCH_S = 0.5  # also the longest delay of a stop
RETENTION_INTERVAL_S = 60.0
REQUEST_S = 2.0
#: Maximum time at the end for overwriting written rows in the stream.
STOP_S = 0.3
#: Time limit of an erase request, after which the client repeats it, and the poll interval within it.
ERASE_TIMEOUT_S, ERASE_POLL_INTERVAL_S = 60.0, 0.1
#: Interval at which acknowledged rows are overwritten in the stream, in addition to after each flush.
REMOVE_INTERVAL_S = 10.0

Clock = Callable[[], float]


@dataclass(slots=True)
class HistoryWriterStats:
    """Totals of the writer since its start, for metrics and tests."""

    fixes: int = 0
    repeated: int = 0  # fixes dropped as repeated
    refused: int = 0  # batches that are inconsistent or can't be decoded
    flushes: int = 0
    bytes: int = 0
    reopened: int = 0  # times the consumer was recreated
    hours_dropped: int = 0
    erased: int = 0  # rows removed by erase requests


@dataclass(slots=True)
class _Writer:
    connection: Connection
    segments: Segments
    pending: HistoryBuffer
    data: Path
    clock: Clock
    stats: HistoryWriterStats
    full: asyncio.Event = field(default_factory=asyncio.Event)
    roomy: asyncio.Event = field(default_factory=asyncio.Event)
    written: asyncio.Event = field(default_factory=asyncio.Event)
    disk: asyncio.Lock = field(default_factory=asyncio.Lock)
    erasing: asyncio.Lock = field(default_factory=asyncio.Lock)
    held: list[StoredMessage] = field(default_factory=list)  # to be acknowledged with the next flush
    decoder: msgspec.msgpack.Decoder[HistoryBatch] = field(
        default_factory=lambda: msgspec.msgpack.Decoder(HistoryBatch)
    )

    def take_in(self, message: StoredMessage) -> None:
        self.held.append(message)
        try:
            self.pending.add(self.decoder.decode(message.data), self.clock())
        except (msgspec.DecodeError, LogError) as error:
            # It would be rejected on every delivery, so it is counted and acknowledged with the others.
            self.stats.refused += 1
            log.warning("skipped an unusable batch for the history: %s", error)
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
            try:
                await acknowledge(self.connection, message)
            except LogError as error:  # acknowledged when it is redelivered
                log.debug("not acknowledged: %s", error)
                break
        self.written.set()

    async def erase(self, wanted: EraseRequest) -> int:
        """Erase rows from the stream, from memory and from the segments; return their number.

        Raises:
            LogError, TimeoutError: the broker is unreachable; some rows may remain.
            DataFolderError: the disk is full or a write failed.
        """
        connection = self.connection
        async with self.erasing, asyncio.timeout(ERASE_TIMEOUT_S):
            last = (await stream_info(connection, HISTORY_STREAM)).state.last_seq
            while True:  # until all rows of the stream are in segments and overwritten
                await self.flush()
                await connection.flush()
                await erase_acknowledged(connection, HISTORY_STREAM, CONSUMER)
                state = (await stream_info(connection, HISTORY_STREAM)).state
                if not state.messages or state.first_seq > last:
                    break
                await asyncio.sleep(ERASE_POLL_INTERVAL_S)
            if wanted.site:
                self.pending.drop_waiting(wanted.site)
                await self.flush()
            async with self.disk:
                rows = await asyncio.to_thread(erase_rows, self.segments.root, wanted)
        self.stats.erased += rows
        return rows

    async def answer(self, message: Message) -> None:
        """Answer a request to erase."""
        wanted = asked(message.data)
        if wanted is None:
            answer = EraseReply(error="no valid pseudonyms or site given")
        else:
            try:
                answer = EraseReply(await self.erase(wanted))
            except (HeadcountError, OSError) as error:
                log.warning("can't erase rows from the history now: %s", error or type(error).__name__)
                answer = EraseReply(error=f"not everything is erased yet: {error}")
        await message.respond(msgspec.json.encode(answer))

    async def drop_expired(self) -> None:
        async with self.disk:
            gone = await asyncio.to_thread(drop_expired, self.data, self.clock())
        self.stats.hours_dropped += len(gone)
        for path in gone:
            log.info("dropped %s: older than a day", path)


async def run(
    connection: Connection,
    data: Path,
    *,
    stop: asyncio.Event,
    flush_s: float = FLUSH_S,
    clock: Clock = time.time,
    stats: HistoryWriterStats | None = None,
) -> None:
    """Write the history until `stop` is set; then flush, acknowledge and return.

    Args:
        connection: to the core; it stays open.
        data: the data folder.
        stop: set from outside.
        flush_s: seconds between flushes; other rows wait in memory and in the stream.
        clock: Unix seconds.
        stats: counted up in place.

    Raises:
        DataFolderError: the folder can't be written, or another writer has locked it. Nothing is lost:
            rows that aren't on disk aren't acknowledged.
    """
    with opened(data) as segments:
        writer = _Writer(
            connection, segments, HistoryBuffer(segments.written), data, clock, stats or HistoryWriterStats()
        )
        writer.roomy.set()
        await writer.drop_expired()
        requests = await connection.subscribe(HISTORY_ERASE_SUBJECT, writer.answer)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_read(writer, stop), name="history: read")
                tasks.create_task(_flush(writer, stop, flush_s), name="history: flush")
                tasks.create_task(_retain(writer, stop), name="history: retention")
                tasks.create_task(_remove(writer, stop), name="history: remove")
        except ExceptionGroup as group:
            # One loop failed and ended the others: its error is the role's.
            raise group.exceptions[0] from group
        finally:
            await requests.unsubscribe()
        await writer.flush()
        if connection.is_connected:
            with suppress(LogError, TimeoutError):  # the next start does the rest
                await connection.flush()
                async with asyncio.timeout(STOP_S):
                    await _remove_written(connection)


async def _read(writer: _Writer, stop: asyncio.Event) -> None:
    connection = writer.connection
    while not stop.is_set():
        before = connection.reconnects

        def over(before: int = before) -> bool:
            return stop.is_set() or connection.reconnects != before

        try:
            config = await _consumer_config(writer)
            async with pull_consumer(connection, HISTORY_STREAM, config, timeout_s=REQUEST_S) as consumer:
                await _read_in_order(consumer, writer, stop, over)
        except LogError as error:
            # The broker is unreachable or starting, or the stream doesn't exist yet.
            log.warning("the history waits for the broker: %s", error)
            await wait_any(stop, timeout_s=RETRY_S)


async def _read_in_order(
    consumer: PullConsumer, writer: _Writer, stop: asyncio.Event, over: Callable[[], bool]
) -> None:
    """Take in messages until `over()` is true, or until a gap in the consumer's delivery numbers."""
    delivered = 0
    while not over():
        if not writer.roomy.is_set():
            await wait_any(stop, writer.roomy, timeout_s=FETCH_S)
            continue
        for message in await consumer.fetch(FETCH_MESSAGES, FETCH_S):
            delivered += 1
            if message.delivery != delivered:
                return
            writer.take_in(message)
        await asyncio.sleep(0)


async def _consumer_config(writer: _Writer) -> dict[str, object]:
    """Configure a durable consumer from the first unacknowledged message, and delete the old consumer.

    Batches still in memory are redelivered, recognised, and acknowledged by their new delivery.
    """
    connection = writer.connection
    writer.held.clear()
    start: dict[str, object] = {"deliver_policy": "all"}
    with suppress(StreamNotFoundError):
        old = await consumer_info(connection, HISTORY_STREAM, CONSUMER, timeout_s=REQUEST_S)
        start = {"deliver_policy": "by_start_sequence", "opt_start_seq": old.acknowledged + 1}
        await request(connection, f"CONSUMER.DELETE.{HISTORY_STREAM}.{CONSUMER}", timeout_s=REQUEST_S)
        writer.stats.reopened += 1
    return start | {
        "durable_name": CONSUMER,
        "ack_policy": "explicit",
        "ack_wait": 300 * NS,
        "max_ack_pending": 2 * FLUSH_MESSAGES,
    }


async def _flush(writer: _Writer, stop: asyncio.Event, flush_s: float) -> None:
    while not stop.is_set():
        await wait_any(stop, writer.full, timeout_s=flush_s)
        if not stop.is_set():
            await writer.flush()


async def _retain(writer: _Writer, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await wait_any(stop, timeout_s=RETENTION_INTERVAL_S)
        await writer.drop_expired()


async def _remove(writer: _Writer, stop: asyncio.Event) -> None:
    """Overwrite rows in the stream that are in segments, including those of an earlier writer."""
    while not stop.is_set():
        await wait_any(stop, writer.written, timeout_s=REMOVE_INTERVAL_S)
        writer.written.clear()
        await _remove_written(writer.connection)


async def _remove_written(connection: Connection) -> None:
    try:
        await erase_acknowledged(connection, HISTORY_STREAM, CONSUMER)
    except LogError as error:
        log.debug("written rows stay in the stream for now: %s", error)
