"""Telling: counts, events and history rows into the log; retained counts to MQTT subscribers."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import aiomqtt
import msgspec
import nats.errors
import numpy as np
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from headcount.counting.fixes import I4
from headcount.counting.site import Site
from headcount.counting.totals import Total, Totals
from headcount.errors import LogError
from headcount.wire import (
    COUNT_SUBJECT,
    COUNT_TOPIC,
    EPOCH_HEADER,
    EVENT_SUBJECT,
    HISTORY_SUBJECT,
    SITE_TOPIC,
    Event,
    HistoryBatch,
    Numbers,
    PartitionCounts,
    ZoneCount,
    iso,
)

_log = logging.getLogger(__name__)

#: Retained counts are sent once in so many seconds, those that changed.
RETAINED_EVERY_S = 1.0
ACK_TIMEOUT_S = 5.0
RECONNECT_S = 1.0


class Publisher:
    """Publishes what partitions put out, and knows when all of it is stored."""

    def __init__(self, nc: Client, js: JetStreamContext) -> None:
        """Publish over this connection."""
        self._nc = nc
        self._js = js
        self._events: list[tuple[Event, int]] = []
        self._batches: list[HistoryBatch] = []

    async def counts(self, counts: list[PartitionCounts]) -> None:
        """Tell counts; a newer one will come in any case, so nobody waits for an answer."""
        for count in counts:
            subject = COUNT_SUBJECT.format(partition=count.partition)
            await self._nc.publish(subject, msgspec.msgpack.encode(count))

    def remember(self, events: list[Event], epoch: int, history: HistoryBatch | None) -> None:
        """Keep these until `flush` has stored them; `epoch` is that of the events' partition."""
        self._events += [(event, epoch) for event in events]
        if history is not None:
            self._batches.append(history)

    def forget(self) -> None:
        """Drop what isn't stored: whoever has the partitions now will come to the same."""
        self._events, self._batches = [], []

    async def flush(self) -> None:
        """Store all remembered events and rows; they are kept for the next call if this one fails.

        Raises:
            LogError: if the log doesn't take them.
        """
        events, self._events = self._events, []
        batches, self._batches = self._batches, []
        try:
            await self._store_events(events)
            by_partition: dict[int, list[HistoryBatch]] = {}
            for batch in batches:
                by_partition.setdefault(batch.partition, []).append(batch)
            await asyncio.gather(*map(self._store_batches, by_partition.values()))
        except (nats.errors.Error, OSError, TimeoutError) as error:
            # what was stored already is recognised when it comes again
            self._events = events + self._events
            self._batches = batches + self._batches
            raise LogError(f"the log takes nothing: {error!r}") from error

    async def _store_events(self, events: list[tuple[Event, int]]) -> None:
        """The server stores them in order, so when the last is acknowledged, all are stored."""
        for number, (event, epoch) in enumerate(events, 1):
            subject = EVENT_SUBJECT.format(site=event.site, zone=event.zone)
            headers = {"Nats-Msg-Id": event.id, EPOCH_HEADER: str(epoch)}
            if number < len(events):
                await self._nc.publish(subject, msgspec.json.encode(event), headers=headers)
            else:
                await self._js.publish(subject, msgspec.json.encode(event), ACK_TIMEOUT_S, headers=headers)

    async def _store_batches(self, batches: list[HistoryBatch]) -> None:
        """One partition's rows: in order, since a reader takes older ones after newer for a repetition."""
        for batch in batches:
            subject = HISTORY_SUBJECT.format(partition=batch.partition)
            await self._js.publish(subject, msgspec.msgpack.encode(batch), ACK_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class MqttAddress:
    """Where the MQTT broker is, and who we are there."""

    host: str
    port: int
    user: str
    password: str

    def __repr__(self) -> str:
        """Without the password: representations end up in logs."""
        return f"MqttAddress({self.user}@{self.host}:{self.port})"


class RetainedCounts:
    """Keeps the retained MQTT messages of a site up to date; one worker at a time does this."""

    def __init__(
        self, nc: Client, address: MqttAddress, site: Site, partitions: int, still: Callable[[], bool]
    ) -> None:
        """Sum what arrives on `count.*` and publish it at `address` for as long as `still` says."""
        self._nc = nc
        self._address = address
        self._site = site
        self._still = still
        self._totals = Totals(partitions, len(site.zones))
        self._newest: Total | None = None

    async def run(self) -> None:
        """Publish; a lost connection is made again."""
        subscription = await self._nc.subscribe("count.*", cb=self._add)
        try:
            while self._still():
                try:
                    async with aiomqtt.Client(
                        self._address.host,
                        self._address.port,
                        username=self._address.user,
                        password=self._address.password,
                        identifier=f"headcount-counts-{secrets.token_hex(4)}",
                    ) as client:
                        await self._publish(client)
                except aiomqtt.MqttError as error:
                    _log.warning("retained counts: connection lost (%s), trying again", error)
                    await asyncio.sleep(RECONNECT_S)
        finally:
            if self._nc.is_connected:
                await subscription.unsubscribe()

    async def _add(self, message: Msg) -> None:
        counts = msgspec.msgpack.decode(message.data, type=PartitionCounts)
        if counts.site != self._site.id or counts.zones != len(self._site.zones):
            return
        values = np.frombuffer(counts.values, dtype="<i4").reshape(-1, 2, 4)
        for total in self._totals.add(counts.partition, counts.epoch, counts.at, values):
            self._newest = total

    async def _publish(self, client: aiomqtt.Client) -> None:
        topic = SITE_TOPIC.format(site=self._site.id)
        await client.publish(topic, json.dumps(self._site.geojson), qos=1, retain=True)
        sent: I4 | None = None
        while self._still():
            total = self._newest
            if total is not None:
                for index in _different(sent, total.values):
                    count = zone_count(self._site, index, total)
                    topic = COUNT_TOPIC.format(site=self._site.id, zone=count.zone)
                    await client.publish(topic, msgspec.json.encode(count), retain=True)
                sent = total.values
            await asyncio.sleep(RETAINED_EVERY_S)


def zone_count(site: Site, index: int, total: Total) -> ZoneCount:
    """The message about one zone."""
    person, vehicle = (Numbers(*numbers) for numbers in total.values[index].tolist())
    return ZoneCount(site.id, site.zones[index].id, iso(total.at), person, vehicle)


def _different(old: I4 | None, new: I4) -> list[int]:
    if old is None:
        return list(range(len(new)))
    found: list[int] = np.flatnonzero((old != new).any(axis=(1, 2))).tolist()
    return found
