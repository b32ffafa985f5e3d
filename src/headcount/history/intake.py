"""Rows and events in the memory of a history writer: read from their streams, stored by a flush."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from headcount.errors import LogError, ObjectNotFoundError, OvertakenError, StoreError
from headcount.history.buffer import HistoryBuffer
from headcount.history.catalog import Catalog
from headcount.history.event_buffer import EventBuffer
from headcount.history.manifest import PartitionMark
from headcount.history.members import EVENTS
from headcount.history.storing import events_started, started, store
from headcount.history.upkeep import UpkeepStats
from headcount.messages.counts import Event
from headcount.messages.history import HistoryBatch
from headcount.messages.topics import EVENT_STREAM, EVENT_SUBJECT, HISTORY_STREAM, HISTORY_SUBJECT
from headcount.messaging.connection import Connection, Message
from headcount.messaging.jetstream import StoredMessage, get_message, stream_info
from headcount.messaging.secure_delete import erase

log = logging.getLogger(__name__)

#: Fixes in memory that start a flush early (about 20 MB); at twice as many the writer stops reading.
FLUSH_ROWS = 200_000
#: Messages and events in memory that start a flush early, and stop it at twice as many.
FLUSH_MESSAGES = 20_000
REQUEST_S = 2.0

Clock = Callable[[], float]


@dataclass(slots=True)
class HistoryWriterStats:
    """The writer's share, and totals since its start, for metrics and tests."""

    share: int = 0  # partitions on which it works now; the events are one of them
    fixes: int = 0
    events: int = 0
    repeated: int = 0  # fixes dropped as repeated
    refused: int = 0  # messages that are inconsistent or can't be decoded
    flushes: int = 0
    segments: int = 0
    bytes: int = 0
    counts: int = 0
    overtaken: int = 0  # flushes that another writer had stored
    reopened: int = 0  # times a consumer was created again
    erased: int = 0  # rows removed by erase requests
    upkeep: UpkeepStats = field(default_factory=UpkeepStats)


@dataclass(frozen=True, slots=True)
class StreamRange:
    """Messages to read: those of a stream on some subjects, from a sequence on."""

    stream: str
    subjects: list[str]
    first: int
    add: Callable[[StoredMessage], None]


@dataclass(slots=True)
class Intake:
    """Rows and events in memory, of this writer's share."""

    connection: Connection
    catalog: Catalog
    clock: Clock
    stats: HistoryWriterStats
    rows: HistoryBuffer = field(default_factory=HistoryBuffer)
    events: EventBuffer = field(default_factory=EventBuffer)
    share: set[int] = field(default_factory=set)  # of `members`
    stream: str = ""  # when the stream HISTORY was created
    full: asyncio.Event = field(default_factory=asyncio.Event)
    roomy: asyncio.Event = field(default_factory=asyncio.Event)
    stored: asyncio.Event = field(default_factory=asyncio.Event)
    disk: asyncio.Lock = field(default_factory=asyncio.Lock)
    unread: int = 0  # messages of HISTORY, as of the last one
    segments: int = 0  # in the manifest
    #: Messages of HISTORY by partition that wait with their rows, and those whose rows are stored.
    waiting: dict[int, list[int]] = field(default_factory=dict)
    removable: list[int] = field(default_factory=list)
    #: Partitions of which messages may be left that an earlier writer has stored.
    unchecked: set[int] = field(default_factory=set)
    decode_batch: Callable[[bytes], HistoryBatch] = msgspec.msgpack.Decoder(HistoryBatch).decode
    decode_event: Callable[[bytes], Event] = msgspec.json.Decoder(Event).decode

    # --- from the streams into memory -----------------------------------------------------------------
    async def begin_rows(self) -> StreamRange | None:
        """Accept the rows of this writer's share, from the marks in the manifest on; None if it has none.

        Raises:
            LogError: the broker is unreachable, or the stream doesn't exist.
            DataFolderError, StoreError: the manifest cannot be read or written.
        """
        wanted = self.share - {EVENTS}
        if self.rows.partitions - wanted:
            await self.flush()  # so that the next writer finds as little as possible
        async with self.disk:
            info = await stream_info(self.connection, HISTORY_STREAM, timeout_s=REQUEST_S)
            marks = await asyncio.to_thread(started, self.catalog, info)
            if self.stream != info.created:
                self.drop(self.rows.partitions)
                self.removable.clear()
                self.stream = info.created
            self.drop(self.rows.partitions - wanted)
            for partition in wanted - self.rows.partitions:
                self.rows.start(partition, marks.get(partition, PartitionMark()))
                self.unchecked.add(partition)
        if not wanted:
            return None
        subjects = [HISTORY_SUBJECT.format(partition=each) for each in sorted(wanted)]
        first = 1 if self.unchecked else min(map(self.rows.added_seq, wanted)) + 1
        return StreamRange(HISTORY_STREAM, subjects, first, self.add_rows)

    async def begin_events(self) -> StreamRange | None:
        """Accept the events if they are in this writer's share, as `begin_rows`."""
        if EVENTS not in self.share:
            await self.flush()
            self.events.stop()
            return None
        async with self.disk:
            info = await stream_info(self.connection, EVENT_STREAM, timeout_s=REQUEST_S)
            mark = await asyncio.to_thread(events_started, self.catalog, info)
            if self.events.stored is None or self.events.stored.stream != mark.stream:
                self.events.start(mark)
        subjects = [EVENT_SUBJECT.format(site="*", zone="*")]
        return StreamRange(EVENT_STREAM, subjects, self.events.seq + 1, self.add_event)

    def drop(self, partitions: Collection[int]) -> None:
        """Drop the waiting rows of partitions, and accept no more."""
        for partition in partitions:
            self.rows.stop(partition)
            self.waiting.pop(partition, None)
            self.unchecked.discard(partition)

    def has_rows(self) -> bool:
        """Whether exactly the rows of this writer's share are accepted."""
        return self.rows.partitions == self.share - {EVENTS}

    def has_events(self) -> bool:
        """Whether events are accepted if they are in this writer's share, and only then."""
        return (self.events.stored is not None) == (EVENTS in self.share)

    def add_rows(self, message: StoredMessage) -> None:
        """Take in a message of the stream HISTORY."""
        partition, seq = int(message.subject.rpartition(".")[2]), message.sequence
        if seq <= self.rows.stored_seq(partition):
            self.removable.append(seq)
        elif seq > self.rows.added_seq(partition):
            self.waiting.setdefault(partition, []).append(seq)
            try:
                self.rows.add(partition, seq, self.decode_batch(message.data))
            except (msgspec.DecodeError, LogError) as error:
                # It would be rejected on every delivery, so it is overwritten with the others.
                self.rows.add(partition, seq, None)
                self.stats.refused += 1
                log.warning("skipped an unusable batch for the history: %s", error)
        if not message.pending:
            self.unchecked.clear()
        self.unread = message.pending
        self.stats.repeated = self.rows.repeated
        self.check_room()

    def add_event(self, message: StoredMessage) -> None:
        """Take in a message of the stream EVENT."""
        event = None
        try:
            event = self.decode_event(message.data)
        except msgspec.DecodeError as error:
            self.stats.refused += 1
            log.warning("skipped an unusable event for the history: %s", error)
        self.events.add(message.sequence, event)
        self.check_room()

    def check_room(self) -> None:
        """Start a flush early when much is in memory, and stop reading when it is twice as much."""
        messages = self.rows.messages + len(self.events)
        if self.rows.rows >= FLUSH_ROWS or messages >= FLUSH_MESSAGES:
            self.full.set()
        if self.rows.rows >= 2 * FLUSH_ROWS or messages >= 2 * FLUSH_MESSAGES:
            self.roomy.clear()

    @property
    def lag(self) -> int:
        """The number of messages that are not stored yet."""
        return self.unread + self.rows.messages + len(self.events)

    # --- from memory into the store -------------------------------------------------------------------
    async def flush(self) -> None:
        """Store all rows and events in memory."""
        async with self.disk:
            self.full.clear()
            with suppress(LogError):
                await self._skip_removed_events()
            rows, events = self.rows.take(self.clock()), self.events.take()
            waiting, self.waiting = self.waiting, {}
            self.roomy.set()
            if rows is None and events is None:
                return
            try:
                segments, manifest = await asyncio.to_thread(store, self.catalog, self.stream, rows, events)
            except StoreError as error:
                self.drop(rows.before if rows is not None else ())
                if events is not None:
                    self.events.stop()
                if not isinstance(error, OvertakenError | ObjectNotFoundError):
                    raise
                self.stats.overtaken += 1
                return
            self.segments = len(manifest.segments)
            self.stats.flushes += 1
            self.stats.segments += len(segments)
            self.stats.bytes += sum(segment.bytes for segment in segments)
            if rows is not None:
                self.rows.confirm(rows)
            if events is not None:
                self.events.confirm(events)
            for segment in segments:
                total = getattr(self.stats, segment.dataset) + segment.rows
                setattr(self.stats, segment.dataset, total)
            self.removable += [seq for sequences in waiting.values() for seq in sequences]
        self.stored.set()

    async def _skip_removed_events(self) -> None:
        """Move the mark of the events past messages at the end of the stream that were removed unread."""
        if self.events.stored is None:
            return
        last = (await stream_info(self.connection, EVENT_STREAM, timeout_s=REQUEST_S)).state.last_seq
        if last > self.events.seq:
            query = {"seq": self.events.seq + 1, "next_by_subj": EVENT_SUBJECT.format(site="*", zone="*")}
            if await get_message(self.connection, EVENT_STREAM, query, timeout_s=REQUEST_S) is None:
                self.events.skip(last)

    async def flush_soon(self, _: Message) -> None:
        """Start a flush early."""
        self.full.set()

    async def remove(self) -> None:
        """Overwrite messages in the stream whose rows are stored.

        Raises:
            LogError: the broker is unreachable; the rest is overwritten later.
        """
        sequences, self.removable = self.removable, []
        try:
            await erase(self.connection, HISTORY_STREAM, sequences)
        except LogError:
            self.removable += sequences
            raise
