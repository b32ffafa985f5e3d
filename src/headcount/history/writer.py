"""The history role: from the streams HISTORY and EVENT into segments.

    HISTORY, EVENT ──read──▶ buffers (memory) ──every flush_s, or when full──▶ segments, manifest ──▶ overwrite

Any number of writers can run. The marks in the manifest state how far each partition is stored; a writer
reads from there, and commits segments and new marks in one step. If another writer was faster, its commit
fails, and it reads again from the new marks. So each row is stored once, after any kill, and which writer reads
which partition (`members`) matters for efficiency only. Messages are overwritten in the stream HISTORY after the
commit, so rows are stored in one place; those that a killed writer left are overwritten by the next one.

Batches of a site and partition must be processed in the order of the stream, or the mark that separates new
rows from old ones would skip some. The consumers are temporary and acknowledge nothing. They are created again
after each reconnection, and whenever their delivery numbers show a gap.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from headcount.errors import HeadcountError, LogError, StoreError
from headcount.history.catalog import Catalog
from headcount.history.intake import REQUEST_S, Clock, HistoryWriterStats, Intake, StreamRange
from headcount.history.members import Members
from headcount.history.objects import ObjectStore
from headcount.history.row_erasure import ErasedRows, asked, erase_rows
from headcount.history.upkeep import Upkeep
from headcount.messages.history import EraseReply, EraseRequest
from headcount.messages.reports import HISTORY_REPORT_SUBJECT, HistoryReport
from headcount.messages.topics import (
    EVENT_STREAM,
    HISTORY_ERASE_SUBJECT,
    HISTORY_FLUSH_SUBJECT,
    HISTORY_STREAM,
)
from headcount.messaging.connection import Connection, Message
from headcount.messaging.consumers import pull_consumer
from headcount.messaging.device_messages import partitions_of_log
from headcount.messaging.jetstream import consumer_info, stream_info
from headcount.messaging.units import HEARTBEAT_INTERVAL_S
from headcount.runtime.retry import RETRY_S
from headcount.runtime.tasks import wait_any
from headcount.settings.retention_periods import DEFAULT_PERIODS, RetentionPeriods

log = logging.getLogger(__name__)

ROLE = "history"
FLUSH_S = 60.0
FETCH_MESSAGES = 64  # each at most the broker's max_payload
FETCH_S = 0.5  # also the longest delay of a stop
#: Fetches without a message after which the consumer is checked: its server may have died.
CHECK_FETCHES = 10
UPKEEP_INTERVAL_S = 60.0
REPORT_INTERVAL_S = 1.0
#: Maximum time at the end for overwriting stored rows in the stream.
STOP_S = 0.3
#: Time limit of an erase request, after which the client repeats it, and the poll interval within it.
ERASE_TIMEOUT_S, ERASE_POLL_INTERVAL_S = 60.0, 0.1
#: Interval at which stored rows are overwritten in the stream, in addition to after each flush.
REMOVE_INTERVAL_S = 10.0


class _Eraser:
    """Answers requests to erase rows."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._one = asyncio.Lock()

    async def erase(self, wanted: EraseRequest) -> ErasedRows:
        """Erase rows from the stream, from memory and from the segments.

        Raises:
            LogError, TimeoutError: the broker is unreachable; some rows may remain.
            DataFolderError, StoreError: a write failed.
        """
        intake, connection = self._intake, self._intake.connection
        async with self._one, asyncio.timeout(ERASE_TIMEOUT_S):
            rows = (await stream_info(connection, HISTORY_STREAM)).state.last_seq
            events = (await stream_info(connection, EVENT_STREAM)).state.last_seq
            while True:  # until the rows of the stream are in segments and overwritten, and the events stored
                await connection.publish(HISTORY_FLUSH_SUBJECT)
                await intake.flush()
                await intake.remove()
                state = (await stream_info(connection, HISTORY_STREAM)).state
                manifest = await asyncio.to_thread(intake.catalog.manifest)
                if (not state.messages or state.first_seq > rows) and manifest.events.seq >= events:
                    break
                await asyncio.sleep(ERASE_POLL_INTERVAL_S)
            async with intake.disk:
                found = await asyncio.to_thread(erase_rows, intake.catalog, wanted, intake.clock())
        intake.stats.erased += found.rows
        return found

    async def answer(self, message: Message) -> None:
        """Answer a request to erase."""
        wanted = asked(message.data)
        if wanted is None:
            answer = EraseReply(error="no valid pseudonyms or site given")
        else:
            try:
                erased = await self.erase(wanted)
                answer = EraseReply(erased.rows, held=erased.held)
            except (HeadcountError, OSError) as error:
                log.warning("can't erase rows from the history now: %s", error or type(error).__name__)
                answer = EraseReply(error=f"not everything is erased yet: {error}")
        await message.respond(msgspec.json.encode(answer))


async def run(
    connection: Connection,
    objects: ObjectStore,
    *,
    stop: asyncio.Event,
    flush_s: float = FLUSH_S,
    periods: RetentionPeriods = DEFAULT_PERIODS,
    clock: Clock = time.time,
    stats: HistoryWriterStats | None = None,
) -> None:
    """Write the history until `stop` is set; then store what is in memory and return.

    Args:
        connection: to the core; it stays open.
        objects: where the history is stored.
        stop: set from outside.
        flush_s: seconds between flushes; other rows wait in memory and in the stream.
        periods: how long rows are kept.
        clock: Unix seconds.
        stats: counted up in place.

    Raises:
        DataFolderError, StoreError: the store can't be written. Nothing is lost: rows that aren't stored stay
            in the stream.
    """
    members = Members(connection, await partitions_of_log(connection))
    intake = Intake(connection, Catalog(objects), clock, stats or HistoryWriterStats())
    intake.roomy.set()
    upkeep = Upkeep(intake.catalog, periods, stop.is_set)
    intake.stats.upkeep = upkeep.stats
    requests = [
        await connection.subscribe(HISTORY_ERASE_SUBJECT, _Eraser(intake).answer, queue=ROLE),
        await connection.subscribe(HISTORY_FLUSH_SUBJECT, intake.flush_soon),
    ]
    loops = {
        "members": _join(intake, members, stop),
        "rows": _read(intake, intake.begin_rows, intake.has_rows, stop),
        "events": _read(intake, intake.begin_events, intake.has_events, stop),
        "flush": _flush(intake, stop, flush_s),
        "upkeep": _maintain(intake, upkeep, members, stop),
        "remove": _remove(intake, stop),
        "report": _report(intake, members.name, stop),
    }
    try:
        async with asyncio.TaskGroup() as tasks:
            for name, loop in loops.items():
                tasks.create_task(loop, name=f"history: {name}")
    except ExceptionGroup as group:
        # One loop failed and ended the others: its error is the role's.
        raise group.exceptions[0] from group
    finally:
        for subscription in requests:
            await subscription.unsubscribe()
    await intake.flush()
    if connection.is_connected:
        with suppress(LogError, TimeoutError):  # the next start does the rest
            await members.leave()
            async with asyncio.timeout(STOP_S):
                await intake.remove()


async def _join(intake: Intake, members: Members, stop: asyncio.Event) -> None:
    """Send heartbeats, and keep the writer's share current."""
    while not stop.is_set():
        try:
            intake.share = await members.share()
            intake.stats.share = len(intake.share)
        except LogError as error:  # it keeps its share
            log.debug("no heartbeat of the history writer: %s", error)
        await wait_any(stop, timeout_s=HEARTBEAT_INTERVAL_S)


async def _read(
    intake: Intake,
    begin: Callable[[], Awaitable[StreamRange | None]],
    is_current: Callable[[], bool],
    stop: asyncio.Event,
) -> None:
    connection = intake.connection
    while not stop.is_set():
        before = connection.reconnects

        def over(before: int = before) -> bool:
            return stop.is_set() or connection.reconnects != before or not is_current()

        try:
            source = await begin()
            if source is None:
                await wait_any(stop, timeout_s=FETCH_S)
                continue
            await _follow(intake, source, over)
            intake.stats.reopened += 1
        except (LogError, StoreError) as error:
            # The broker or the store is unreachable or starting, or the stream doesn't exist yet.
            log.warning("the history waits: %s", error)
            await wait_any(stop, timeout_s=RETRY_S)


async def _follow(intake: Intake, source: StreamRange, over: Callable[[], bool]) -> None:
    """Read until `over()` is true or a delivery is missing.

    Raises:
        LogError: the broker is unreachable, or the consumer is gone.
    """
    connection, stream = intake.connection, source.stream
    config = {
        "filter_subjects": source.subjects,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": source.first,
    }
    async with pull_consumer(connection, stream, config, timeout_s=REQUEST_S) as consumer:
        delivered = fruitless = 0
        while not over():
            if not intake.roomy.is_set():
                await wait_any(intake.roomy, timeout_s=FETCH_S)
                continue
            messages = await consumer.fetch(FETCH_MESSAGES, FETCH_S)
            fruitless = 0 if messages else fruitless + 1
            if fruitless == CHECK_FETCHES:
                await consumer_info(connection, stream, consumer.name, timeout_s=REQUEST_S)
                fruitless = 0
            for message in messages:
                delivered += 1
                if message.delivery != delivered or over():
                    return
                source.add(message)
            await asyncio.sleep(0)


async def _flush(intake: Intake, stop: asyncio.Event, flush_s: float) -> None:
    while not stop.is_set():
        await wait_any(stop, intake.full, timeout_s=flush_s)
        if stop.is_set():
            return
        try:
            await intake.flush()
        except StoreError as error:  # the rows are read from the stream again
            log.warning("the history cannot be stored now: %s", error)
            await wait_any(stop, timeout_s=RETRY_S)


async def _maintain(intake: Intake, upkeep: Upkeep, members: Members, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await asyncio.to_thread(upkeep.run, intake.clock(), members.place)
        except StoreError as error:
            log.warning("the history cannot be maintained now: %s", error)
        await wait_any(stop, timeout_s=UPKEEP_INTERVAL_S)


async def _report(intake: Intake, name: str, stop: asyncio.Event) -> None:
    connection, stats = intake.connection, intake.stats
    while not stop.is_set():
        report = HistoryReport(
            name,
            {"fixes": stats.fixes, "counts": stats.counts, "events": stats.events},
            {"stored": stats.flushes, "overtaken": stats.overtaken},
            stats.refused,
            intake.lag,
            intake.segments,
        )
        with suppress(LogError):
            if connection.is_connected:
                subject = HISTORY_REPORT_SUBJECT.format(writer=name)
                await connection.publish(subject, msgspec.json.encode(report))
        await wait_any(stop, timeout_s=REPORT_INTERVAL_S)


async def _remove(intake: Intake, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await wait_any(stop, intake.stored, timeout_s=REMOVE_INTERVAL_S)
        intake.stored.clear()
        try:
            await intake.remove()
        except LogError as error:
            log.debug("stored rows stay in the stream for now: %s", error)
