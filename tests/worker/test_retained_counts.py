"""The retained counts: the public topics, and those of exact counts."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import numpy as np
import pytest

from headcount.broker.core import Broker
from headcount.counting.disclosure import Disclosure, as_public, disclosure_key
from headcount.counting.fix_columns import I4
from headcount.counting.site import Site
from headcount.counting.site_file import parse_site
from headcount.counting.site_versions import SiteVersion, SiteVersions, only
from headcount.messages.counts import PartitionCounts, encode_counts
from headcount.messages.times import iso
from headcount.messages.topics import INTERNAL
from headcount.messaging.connection import Connection
from headcount.messaging.mqtt_address import MqttAddress
from headcount.runtime.tasks import cancel_all
from headcount.worker.retained_counts import RetainedCounts
from nats_fixture import PASSWORD, internal_client, open_broker
from small_site import small_site
from waiting import until

SITE = small_site()
KEY = disclosure_key(b"of tests")
GRID_S = 1_795_525_200.0
PARTITIONS = 2


def counts_of(people: dict[str, int], site: Site = SITE) -> I4:
    """Exact counts, [Z, 2, 4]."""
    values = np.zeros((len(site.zones), 2, 4), np.int32)
    for i, zone in enumerate(site.zones):
        values[i, 0] = people.get(zone.id, 0)
    return values


class Topics:
    """The last message on each topic of a subscription, and the number of messages."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.last: dict[str, Any] = {}
        self.heard: list[tuple[str, Any]] = []

    async def listen(self, client: aiomqtt.Client) -> None:
        """Take what comes, until cancelled or cut off."""
        async for message in client.messages:
            topic = str(message.topic).partition("/s/")[2]
            if not message.payload:  # no longer retained
                self.last.pop(topic, None)
                continue
            body = msgspec.json.decode(message.payload)
            self.last[topic] = body
            self.heard.append((topic, body))

    def shows(self, topic: str, people: object) -> bool:
        """Whether a topic has `people` as its number of people."""
        return bool(self.last.get(topic, {}).get("person", {}).get("count", "-") == people)

    async def wait(self, topic: str, people: object) -> None:
        """Return when a topic has `people` as its number of people."""
        await until(lambda: self.shows(topic, people), f"{people} on {topic}")


@asynccontextmanager
async def subscribed(broker: Broker, topic: str, **login: Any) -> AsyncIterator[Topics]:
    """A subscriber of a topic."""
    topics = Topics()
    async with aiomqtt.Client("127.0.0.1", broker.config.mqtt_port, timeout=60, **login) as client:
        await client.subscribe(topic)
        task = asyncio.create_task(topics.listen(client))
        try:
            yield topics
        finally:
            await cancel_all({task})
            with suppress(asyncio.CancelledError, aiomqtt.MqttError):
                task.result()


OURS = {"username": INTERNAL, "password": PASSWORD}


@asynccontextmanager
async def publishing(broker: Broker, smallest: int, sites: SiteVersions | None = None) -> AsyncIterator[Any]:
    """`RetainedCounts` at work; gives a function that reports exact counts of an instant."""
    nc = await internal_client(broker, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_quiet)
    disclose = partial(Disclosure, smallest=smallest, key=KEY) if smallest > 1 else None
    address = MqttAddress("127.0.0.1", broker.config.mqtt_port, INTERNAL, PASSWORD)
    retained = RetainedCounts(
        Connection(nc), [address], sites or only(SITE), PARTITIONS, lambda: True, disclose
    )
    task = asyncio.create_task(retained.run())

    async def report(at: float, people: dict[str, int], version: int = 1) -> None:
        known = (sites or only(SITE)).numbered(version)
        assert known is not None
        for partition in range(PARTITIONS):
            values = counts_of(people if partition == 0 else {}, known.site)
            counts = PartitionCounts(
                "s", partition, PARTITIONS, 1, 1, at, version, len(values), values.astype("<i4").tobytes()
            )
            await nc.publish(f"count.{partition}.s", encode_counts([counts]))
        await nc.flush()

    await until(lambda: any(sub.subject == "count.*.s" for sub in nc._subs.values()), "its subscription")
    try:
        yield report
    finally:
        await cancel_all({task})
        await nc.close()


async def _quiet(_: Exception) -> None:
    """A broker is killed on purpose."""


async def test_public_topics_by_the_minute_exact_ones_each_second(tmp_path: Path) -> None:
    """`counts` has public counts at whole minutes; `exact` has exact ones, for authorised clients."""
    async with (
        open_broker(tmp_path) as broker,
        subscribed(broker, "headcount/s/#", **OURS) as ours,
        publishing(broker, 5) as report,
    ):
        people = {"site": 43, "library": 13, "lawn": 4}
        await report(GRID_S, people)
        await ours.wait("counts/lawn", "<5")
        expected = Disclosure(SITE, 5, KEY).publish(GRID_S, counts_of(people)[:, :, 0])
        for zone, number in zip(SITE.zones, expected[:, 0].tolist(), strict=True):
            await ours.wait(f"counts/{zone.id}", as_public(number, 5))
        assert ours.last["counts/lawn"] == {
            "site": "s",
            "zone": "lawn",
            "at": iso(GRID_S),
            "person": {"count": "<5", "low": None, "high": None, "stale": None},
            "vehicle": {"count": "<5", "low": None, "high": None, "stale": None},
        }
        await ours.wait("exact/lawn", 4)
        before = len(ours.heard)
        await report(GRID_S + 0.1, {"site": 99, "library": 50, "lawn": 44})
        await ours.wait("exact/lawn", 44)
        assert {topic.partition("/")[0] for topic, _ in ours.heard[before:]} == {"exact"}
        await report(GRID_S + 60, {"site": 100, "library": 50, "lawn": 3})
        await ours.wait("counts/library", 50)
        assert ours.last["counts/lawn"]["person"]["count"] == "<5"
        async with subscribed(broker, "headcount/s/counts/#") as anybody:
            await anybody.wait("counts/site", 100)
        with suppress(aiomqtt.MqttError):
            async with subscribed(broker, "headcount/s/exact/#") as anybody:
                await asyncio.sleep(0.5)  # time in which nothing may arrive
                assert anybody.heard == []


async def test_zones_of_an_earlier_site_are_removed(tmp_path: Path) -> None:
    """The publisher removes what is retained for zones that the site does not have, and nothing else."""
    async with open_broker(tmp_path) as broker:
        async with aiomqtt.Client(
            "127.0.0.1", broker.config.mqtt_port, username=INTERNAL, password=PASSWORD
        ) as client:
            for topic in ("counts/gone", "exact/gone", "counts/library", "events/gone"):
                body = b'{"person":{"count":1}}'
                await client.publish(f"headcount/s/{topic}", body, qos=1, retain=True)
        async with publishing(broker, 5) as report:
            await report(GRID_S, {"site": 43, "library": 15})
            async with subscribed(broker, "headcount/s/#", **OURS) as ours:
                await ours.wait("counts/library", 15)
                await ours.wait("events/gone", 1)
                assert {"counts/gone", "exact/gone"}.isdisjoint(ours.last)


async def test_a_new_version_of_the_site_replaces_zones(tmp_path: Path) -> None:
    """With the first total of a new version, its zones and its file are retained, and those of removed zones are not."""
    features = [f for f in SITE.geojson["features"] if f["properties"].get("id") != "library"]
    new = parse_site({**SITE.geojson, "features": features}, "test")
    sites = SiteVersions([SiteVersion(1, 0, SITE), SiteVersion(2, 1, new)])
    async with open_broker(tmp_path) as broker, publishing(broker, 1, sites) as report:
        await report(GRID_S, {"site": 4, "library": 3})
        async with subscribed(broker, "headcount/s/#", **OURS) as ours:
            await ours.wait("counts/library", 3)
            await report(GRID_S + 1, {"site": 4}, version=2)
            await until(lambda: len(ours.last["site"]["features"]) == len(features), "the new site")
            await report(GRID_S + 2, {"site": 5}, version=2)
            await ours.wait("counts/site", 5)
        async with subscribed(broker, "headcount/s/#", **OURS) as later:
            await later.wait("counts/site", 5)
            assert "counts/library" not in later.last


async def test_an_empty_site_is_public_at_the_first_start(tmp_path: Path) -> None:
    """The first total of a deployment is public as that of the last whole minute where the site is empty; no later one is."""
    async with (
        open_broker(tmp_path) as broker,
        subscribed(broker, "headcount/s/#", **OURS) as ours,
        publishing(broker, 5) as report,
    ):
        await report(GRID_S + 7, {})
        await ours.wait("counts/site", "<5")
        assert ours.last["counts/site"]["at"] == iso(GRID_S)
        await report(GRID_S + 8, {"site": 43})
        await ours.wait("exact/site", 43)
        assert ours.last["counts/site"]["at"] == iso(GRID_S)


@pytest.mark.slow
async def test_all_counts_are_published_again_after_a_restart(tmp_path: Path) -> None:
    """A server that has lost its retained messages gets all of them immediately, not with the next minute."""
    async with open_broker(tmp_path) as broker, publishing(broker, 5) as report:
        await report(GRID_S, {"site": 43, "library": 15, "lawn": 4})
        async with subscribed(broker, "headcount/s/#", **OURS) as ours:
            await ours.wait("counts/library", 15)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        restarts = broker.restarts
        await until(lambda: broker.restarts > restarts, "a restart")

        async def published() -> bool:
            # the server may be gone again before all is there
            with suppress(aiomqtt.MqttError, AssertionError):
                async with subscribed(broker, "headcount/s/#", **OURS) as ours:
                    await until(
                        lambda: ours.shows("counts/library", 15) and ours.shows("exact/lawn", 4), timeout_s=15
                    )
                    return True
            return False

        await until(published, "all counts are published again", every_s=0.1)


async def test_one_topic_where_nothing_is_hidden(tmp_path: Path) -> None:
    """With k = 1 `counts` has the counts themselves, each second, and there is no other topic."""
    async with (
        open_broker(tmp_path) as broker,
        subscribed(broker, "headcount/s/#", **OURS) as ours,
        publishing(broker, 1) as report,
    ):
        await report(GRID_S + 0.1, {"lawn": 2})
        await ours.wait("counts/lawn", 2)
        assert ours.last["counts/lawn"]["person"] == {"count": 2, "low": 2, "high": 2, "stale": 2}
        assert not any(topic.startswith("exact") for topic in ours.last)
