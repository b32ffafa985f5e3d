"""Publish counts, and store events and history rows in the log."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import groupby, islice
from operator import attrgetter

import msgspec

from headcount.messages.counts import Event, PartitionCounts, encode_counts
from headcount.messages.history import HistoryBatch
from headcount.messages.topics import COUNT_SUBJECT, EPOCH_HEADER, EVENT_SUBJECT, HISTORY_SUBJECT
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import append

CONCURRENT_EVENTS = 256
ACK_TIMEOUT_S = 5.0


class Publisher:
    """Publishes the output of partitions, and knows when all of it is stored.

    Output without an acknowledgement is kept, also when storing fails or is cancelled half-way. If it was stored
    nevertheless, readers recognise the repetition by an event's id or a row's sequence.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._events: deque[tuple[Event, int]] = deque()
        self._batches: dict[int, deque[HistoryBatch]] = {}

    @property
    def unstored(self) -> int:
        """The number of events and messages of rows that aren't stored yet."""
        return len(self._events) + sum(map(len, self._batches.values()))

    async def publish_counts(self, counts: list[PartitionCounts]) -> None:
        """Publish counts without waiting for an answer: newer ones follow in any case."""
        for _, together in groupby(counts, attrgetter("site", "at", "site_version")):
            of_instant = list(together)
            first = min(each.partition for each in of_instant)
            subject = COUNT_SUBJECT.format(partition=first, site=of_instant[0].site)
            await self._connection.publish(subject, encode_counts(of_instant))

    def add_events(self, events: list[Event], epochs: list[int]) -> None:
        """Keep events, and the epoch of each one's partition, until `store` has stored them."""
        self._events += zip(events, epochs, strict=True)

    def add_rows(self, batches: list[HistoryBatch]) -> None:
        """Keep rows for the history until `store` has stored them."""
        for batch in batches:
            self._batches.setdefault(batch.partition, deque()).append(batch)

    def discard(self) -> None:
        """Drop what isn't stored: the next owners of the partitions come to the same."""
        self._events.clear()
        self._batches.clear()

    async def store(self) -> None:
        """Store all events and rows. One call at a time.

        Raises:
            LogError: if the log doesn't accept them; what it hasn't accepted is kept.
        """
        await self._store_events()
        await asyncio.gather(*map(self._store_batches, list(self._batches.values())))

    async def _store_events(self) -> None:
        """Many concurrently, each acknowledged: a broker that dies in between may have stored any of them."""
        while self._events:
            some = list(islice(self._events, CONCURRENT_EVENTS))
            await asyncio.gather(*(self._store_event(event, epoch) for event, epoch in some))
            for one in some:
                if self._events and self._events[0] is one:  # otherwise `discard` was faster
                    self._events.popleft()

    async def _store_event(self, event: Event, epoch: int) -> None:
        subject = EVENT_SUBJECT.format(site=event.site, zone=event.zone)
        headers = {"Nats-Msg-Id": event.id, EPOCH_HEADER: str(epoch)}
        payload = msgspec.json.encode(event)
        await append(self._connection, subject, payload, headers=headers, timeout_s=ACK_TIMEOUT_S)

    async def _store_batches(self, batches: deque[HistoryBatch]) -> None:
        """One partition's rows, in order: a reader takes older ones after newer for a repetition."""
        while batches:
            batch = batches[0]
            subject = HISTORY_SUBJECT.format(partition=batch.partition)
            payload = msgspec.msgpack.encode(batch)
            await append(self._connection, subject, payload, timeout_s=ACK_TIMEOUT_S)
            if batches and batches[0] is batch:
                batches.popleft()
