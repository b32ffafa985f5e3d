"""The retained MQTT messages with a site's counts."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import cycle

import aiomqtt
import msgspec
import numpy as np

from headcount.counting.disclosure import Disclosure, as_public, grid_before, on_grid
from headcount.counting.fix_columns import I4
from headcount.counting.site import Site
from headcount.counting.site_versions import SiteVersion, SiteVersions
from headcount.counting.totals import Total, Totals
from headcount.errors import CertificateError, LogError
from headcount.messages.counts import (
    KindCount,
    PartitionCounts,
    PublicKindCount,
    PublicZoneCount,
    ZoneCount,
    decode_counts,
)
from headcount.messages.times import iso
from headcount.messages.topics import COUNT_SUBJECT, COUNT_TOPIC, DELIVERY, EXACT_TOPIC, SITE_TOPIC
from headcount.messaging.connection import Connection, Message
from headcount.messaging.mqtt_address import MqttAddress
from headcount.messaging.retained_topics import remove_topics
from headcount.runtime.retry import RETRY_S

_log = logging.getLogger(__name__)

#: Counts that have changed are published this often.
RETAINED_INTERVAL_S = 1.0
#: All of them are published this often, whatever a worker that lost partition 0 has published in between.
RETAINED_REFRESH_S = 30.0


class RetainedCounts:
    """Publishes the retained counts of a site; one worker at a time does this."""

    def __init__(
        self,
        connection: Connection,
        addresses: Sequence[MqttAddress],
        sites: SiteVersions,
        partitions: int,
        is_active: Callable[[], bool],
        disclose: Callable[[Site], Disclosure] | None = None,
    ) -> None:
        """Sum the counts of the site and publish the totals at one of the addresses while `is_active`.

        With `disclose`, COUNT_TOPIC gets its counts once a minute, and EXACT_TOPIC the exact ones;
        without, COUNT_TOPIC gets the exact ones.
        """
        self._connection = connection
        self._addresses = addresses
        self._sites = sites
        self._is_active = is_active
        self._totals = Totals(partitions)
        self._disclose = disclose
        self._is_first = True
        self._use(sites.at(time.time()))

    def _use(self, version: SiteVersion) -> None:
        """Publish the zones of another version of the site, each again."""
        self._version, self._site = version, version.site
        self._disclosure = self._disclose(version.site) if self._disclose else None
        self._newest: Total | None = None
        self._public: Total | None = None

    async def run(self) -> None:
        """Publish; a lost connection is re-established."""
        subscription = await self._connection.subscribe(
            COUNT_SUBJECT.format(partition="*", site=self._site.id), self._add
        )
        try:
            await self._remove_other_zones()
            for address in cycle(self._addresses):
                if not self._publishes:
                    return
                try:
                    async with address.client(f"headcount-counts-{self._site.id}") as client:
                        await self._publish_changes(client)
                except (aiomqtt.MqttError, CertificateError) as error:
                    _log.warning("retained counts: %s: connection lost (%s), trying again", address, error)
                    await asyncio.sleep(RETRY_S)
        finally:
            await subscription.unsubscribe()

    @property
    def _publishes(self) -> bool:
        return self._is_active() and not self._sites.is_removed(time.time())

    async def _remove_other_zones(self) -> None:
        """Remove what was retained for zones of an earlier version."""
        for topic in (COUNT_TOPIC, EXACT_TOPIC):
            own = {topic.format(site=self._site.id, zone=zone.id) for zone in self._site.zones}
            pattern = topic.format(site=self._site.id, zone="+")
            try:
                await remove_topics(self._connection, pattern, lambda name, own=own: name not in own)  # type: ignore[misc]
            except LogError as error:
                _log.warning("retained counts of other zones are not removed: %s", error)

    async def _add(self, message: Message) -> None:
        for counts in decode_counts(message.data):
            if counts.site == self._site.id:
                self._add_partition(counts)

    def _add_partition(self, counts: PartitionCounts) -> None:
        values = np.frombuffer(counts.values, dtype="<i4").reshape(-1, 2, 4)
        for total in self._totals.add(counts.partition, counts.epoch, counts.at, values, counts.site_version):
            version = self._sites.numbered(total.site_version)
            if version is None or len(version.site.zones) != len(total.values):
                continue
            if version is not self._version:
                self._use(version)
            # the site was empty when a partition's first owner began
            starts = self._is_first and counts.epoch == 1 and not total.values.any()
            self._newest, self._is_first = total, False
            if self._disclosure is not None and (starts or on_grid(total.at)):
                at_s = grid_before(total.at) if starts else total.at
                public = self._disclosure.publish(at_s, total.values[:, :, 0])
                self._public = dataclasses.replace(total, at=at_s, values=public[:, :, np.newaxis])

    async def _publish_changes(self, client: aiomqtt.Client) -> None:
        """Publish over one connection; raises MqttError as soon as it is lost, also while no count changes."""
        lost = asyncio.create_task(_until_lost(client), name="retained: connection")
        try:
            version: SiteVersion | None = None
            sent: dict[str, I4 | None] = {}
            all_s = time.monotonic()
            while self._publishes and not lost.done():
                if version is not self._version:
                    if version is not None:
                        await self._remove_other_zones()
                    version, sent = self._version, {}
                    topic = SITE_TOPIC.format(site=self._site.id)
                    await client.publish(topic, json.dumps(self._site.geojson), *DELIVERY[SITE_TOPIC])
                if time.monotonic() - all_s > RETAINED_REFRESH_S:
                    sent, all_s = {}, time.monotonic()
                await self._publish(client, sent)
                await asyncio.wait([lost], timeout=RETAINED_INTERVAL_S)
            if lost.done():
                lost.result()
            elif self._is_active():  # the site is removed
                topic = SITE_TOPIC.format(site=self._site.id)
                await client.publish(topic, b"", *DELIVERY[SITE_TOPIC])
        finally:
            lost.cancel()
            await asyncio.wait([lost])
            if not lost.cancelled():
                lost.exception()  # the one that was raised, or its consequence

    async def _publish(self, client: aiomqtt.Client, sent: dict[str, I4 | None]) -> None:
        """Publish the counts that differ from those that were sent."""
        site = self._site  # that of these totals: another version may come while they are published
        for topic, total, message in self._topics():
            if total is None:
                continue
            for index in _different(sent.get(topic), total.values):
                zone = site.zones[index].id
                payload = msgspec.json.encode(message(site, index, total))
                await client.publish(topic.format(site=site.id, zone=zone), payload, *DELIVERY[topic])
            sent[topic] = total.values

    def _topics(self) -> list[tuple[str, Total | None, Callable[[Site, int, Total], msgspec.Struct]]]:
        """The topics, with the newest total and the message of each."""
        if self._disclosure is None:
            return [(COUNT_TOPIC, self._newest, zone_count)]
        public = partial(public_zone_count, smallest=self._disclosure.smallest)
        return [(COUNT_TOPIC, self._public, public), (EXACT_TOPIC, self._newest, zone_count)]


async def remove_other_sites(connection: Connection, sites: Collection[str]) -> None:
    """Remove what was retained for sites that aren't among those with these ids.

    Raises:
        LogError: the core does not answer.
    """
    for topic in (SITE_TOPIC, COUNT_TOPIC, EXACT_TOPIC):
        pattern = topic.format(site="+", zone="+")
        await remove_topics(connection, pattern, lambda name: name.split("/")[1] not in sites)


async def _until_lost(client: aiomqtt.Client) -> None:
    """Without a subscription, only the end of the connection can be received."""
    async for _ in client.messages:
        pass


def zone_count(site: Site, index: int, total: Total) -> ZoneCount:
    """The message of one zone."""
    person, vehicle = (KindCount(*numbers) for numbers in total.values[index].tolist())
    return ZoneCount(site.id, site.zones[index].id, iso(total.at), person, vehicle)


def public_zone_count(site: Site, index: int, total: Total, *, smallest: int) -> PublicZoneCount:
    """The public message of one zone; the total's values are those of `Disclosure.publish`, [Z, 2, 1]."""
    person, vehicle = (
        PublicKindCount(as_public(number, smallest)) for number in total.values[index, :, 0].tolist()
    )
    return PublicZoneCount(site.id, site.zones[index].id, iso(total.at), person, vehicle)


def _different(old: I4 | None, new: I4) -> list[int]:
    if old is None:
        return list(range(len(new)))
    found: list[int] = np.flatnonzero((old != new).any(axis=(1, 2))).tolist()
    return found
