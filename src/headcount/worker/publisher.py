"""Telling: counts, events and history rows into the log; retained counts to MQTT subscribers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice

import aiomqtt
import msgspec
import numpy as np

from headcount.counting.disclosure import Disclosure, as_public, on_grid
from headcount.counting.fix_columns import I4
from headcount.counting.site import Site
from headcount.counting.totals import Total, Totals
from headcount.errors import CertificateError
from headcount.messages.counts import (
    Event,
    KindCount,
    PartitionCounts,
    PublicKindCount,
    PublicZoneCount,
    ZoneCount,
)
from headcount.messages.history import HistoryBatch
from headcount.messages.times import iso
from headcount.messages.topics import (
    COUNT_SUBJECT,
    COUNT_TOPIC,
    EPOCH_HEADER,
    EVENT_SUBJECT,
    EXACT_TOPIC,
    HISTORY_SUBJECT,
    SITE_TOPIC,
)
from headcount.messaging.connection import Connection, Message
from headcount.messaging.jetstream import append
from headcount.messaging.mqtt_address import MqttAddress
from headcount.runtime.retry import RETRY_S

_log = logging.getLogger(__name__)

#: Retained counts are sent once in so many seconds, those that changed.
RETAINED_INTERVAL_S = 1.0
#: All of them are sent so often, whatever a worker that lost its rights has sent in between.
RETAINED_REFRESH_S = 30.0
CONCURRENT_EVENTS = 256
ACK_TIMEOUT_S = 5.0


class Publisher:
    """Publishes what partitions put out, and knows when all of it is stored.

    What isn't acknowledged stays remembered, also when storing fails or is cancelled half-way; what
    was stored all the same is recognised when it comes again, by an event's id or a row's sequence.
    """

    def __init__(self, connection: Connection) -> None:
        """Publish over this connection."""
        self._connection = connection
        self._events: deque[tuple[Event, int]] = deque()
        self._batches: dict[int, deque[HistoryBatch]] = {}

    @property
    def waiting(self) -> int:
        """How many events and messages of rows aren't stored yet."""
        return len(self._events) + sum(map(len, self._batches.values()))

    async def counts(self, counts: list[PartitionCounts]) -> None:
        """Tell counts; a newer one will come in any case, so nobody waits for an answer."""
        for count in counts:
            subject = COUNT_SUBJECT.format(partition=count.partition)
            await self._connection.publish(subject, msgspec.msgpack.encode(count))

    def remember(self, events: list[Event], epoch: int) -> None:
        """Keep events of a partition of this epoch until `flush` has stored them."""
        self._events += [(event, epoch) for event in events]

    def record(self, batches: list[HistoryBatch]) -> None:
        """Keep rows for the history until `flush` has stored them."""
        for batch in batches:
            self._batches.setdefault(batch.partition, deque()).append(batch)

    def forget(self) -> None:
        """Drop what isn't stored: whoever has the partitions now will come to the same."""
        self._events.clear()
        self._batches.clear()

    async def flush(self) -> None:
        """Store all remembered events and rows. One call at a time.

        Raises:
            LogError: if the log doesn't take them; what it hasn't taken stays remembered.
        """
        await self._store_events()
        await asyncio.gather(*map(self._store_batches, list(self._batches.values())))

    async def _store_events(self) -> None:
        """Many at once, each acknowledged: a broker that dies in between may have any part of them."""
        while self._events:
            some = list(islice(self._events, CONCURRENT_EVENTS))
            await asyncio.gather(*(self._store_event(event, epoch) for event, epoch in some))
            for one in some:
                if self._events and self._events[0] is one:  # else `forget` was faster
                    self._events.popleft()

    async def _store_event(self, event: Event, epoch: int) -> None:
        subject = EVENT_SUBJECT.format(site=event.site, zone=event.zone)
        headers = {"Nats-Msg-Id": event.id, EPOCH_HEADER: str(epoch)}
        payload = msgspec.json.encode(event)
        await append(self._connection, subject, payload, headers=headers, timeout_s=ACK_TIMEOUT_S)

    async def _store_batches(self, batches: deque[HistoryBatch]) -> None:
        """One partition's rows: in order, since a reader takes older ones after newer for a repetition."""
        while batches:
            batch = batches[0]
            subject = HISTORY_SUBJECT.format(partition=batch.partition)
            payload = msgspec.msgpack.encode(batch)
            await append(self._connection, subject, payload, timeout_s=ACK_TIMEOUT_S)
            if batches and batches[0] is batch:
                batches.popleft()


class RetainedCounts:
    """Keeps the retained MQTT messages of a site up to date; one worker at a time does this."""

    def __init__(
        self,
        connection: Connection,
        addresses: Sequence[MqttAddress],
        site: Site,
        partitions: int,
        still: Callable[[], bool],
        disclosure: Disclosure | None = None,
    ) -> None:
        """Sum what arrives on `count.*` and publish it at one of the addresses for as long as `still` says.

        With a `disclosure` the public's topics get what it makes of the counts, once a minute, and
        those of exact counts get the counts; without, the public's get the counts.
        """
        self._connection = connection
        self._addresses = addresses
        self._site = site
        self._still = still
        self._totals = Totals(partitions, len(site.zones))
        self._disclosure = disclosure
        self._newest: Total | None = None
        self._public: Total | None = None

    async def run(self) -> None:
        """Publish; a lost connection is made again."""
        subscription = await self._connection.subscribe("count.*", self._add)
        try:
            for address in cycle(self._addresses):
                if not self._still():
                    return
                try:
                    async with address.client("headcount-counts") as client:
                        await self._keep_published(client)
                except (aiomqtt.MqttError, CertificateError) as error:
                    _log.warning("retained counts: %s: connection lost (%s), trying again", address, error)
                    await asyncio.sleep(RETRY_S)
        finally:
            await subscription.unsubscribe()

    async def _add(self, message: Message) -> None:
        counts = msgspec.msgpack.decode(message.data, type=PartitionCounts)
        if counts.site != self._site.id or counts.zones != len(self._site.zones):
            return
        values = np.frombuffer(counts.values, dtype="<i4").reshape(-1, 2, 4)
        for total in self._totals.add(counts.partition, counts.epoch, counts.at, values):
            self._newest = total
            if self._disclosure is not None and on_grid(total.at):
                public = self._disclosure.publish(total.at, total.values[:, :, 0])
                self._public = dataclasses.replace(total, values=public[:, :, np.newaxis])

    async def _keep_published(self, client: aiomqtt.Client) -> None:
        """Publish over one connection; raises MqttError as soon as it is lost, though there be no news."""
        gone = asyncio.create_task(_until_gone(client), name="retained: connection")
        try:
            topic = SITE_TOPIC.format(site=self._site.id)
            await client.publish(topic, json.dumps(self._site.geojson), qos=1, retain=True)
            sent: dict[str, I4 | None] = {}
            all_s = time.monotonic()
            while self._still() and not gone.done():
                if time.monotonic() - all_s > RETAINED_REFRESH_S:
                    sent, all_s = {}, time.monotonic()
                await self._publish(client, sent)
                await asyncio.wait([gone], timeout=RETAINED_INTERVAL_S)
            if gone.done():
                gone.result()
        finally:
            gone.cancel()
            await asyncio.wait([gone])
            if not gone.cancelled():
                gone.exception()  # it is the one that was raised, or another one's consequence

    async def _publish(self, client: aiomqtt.Client, sent: dict[str, I4 | None]) -> None:
        """Publish what differs from what was sent."""
        for topic, total, message in self._told():
            if total is None:
                continue
            for index in _different(sent.get(topic), total.values):
                zone = self._site.zones[index].id
                payload = msgspec.json.encode(message(self._site, index, total))
                await client.publish(topic.format(site=self._site.id, zone=zone), payload, retain=True)
            sent[topic] = total.values

    def _told(self) -> list[tuple[str, Total | None, Callable[[Site, int, Total], msgspec.Struct]]]:
        """Which topics tell what."""
        if self._disclosure is None:
            return [(COUNT_TOPIC, self._newest, zone_count)]
        public = partial(public_zone_count, smallest=self._disclosure.smallest)
        return [(COUNT_TOPIC, self._public, public), (EXACT_TOPIC, self._newest, zone_count)]


async def _until_gone(client: aiomqtt.Client) -> None:
    """Nothing is subscribed, so nothing comes but the end."""
    async for _ in client.messages:
        pass


def zone_count(site: Site, index: int, total: Total) -> ZoneCount:
    """The message about one zone."""
    person, vehicle = (KindCount(*numbers) for numbers in total.values[index].tolist())
    return ZoneCount(site.id, site.zones[index].id, iso(total.at), person, vehicle)


def public_zone_count(site: Site, index: int, total: Total, *, smallest: int) -> PublicZoneCount:
    """What the public is told of one zone; the total's values are those of `Disclosure.publish`, [Z, 2, 1]."""
    person, vehicle = (
        PublicKindCount(as_public(number, smallest)) for number in total.values[index, :, 0].tolist()
    )
    return PublicZoneCount(site.id, site.zones[index].id, iso(total.at), person, vehicle)


def _different(old: I4 | None, new: I4) -> list[int]:
    if old is None:
        return list(range(len(new)))
    found: list[int] = np.flatnonzero((old != new).any(axis=(1, 2))).tolist()
    return found
