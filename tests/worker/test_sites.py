"""Workers on several sites: one is added and removed while they count."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import numpy as np
from nats.aio.client import Client
from nats.aio.msg import Msg

import nats_fixture
from headcount.counting.site import Site
from headcount.counting.site_file import parse_site
from headcount.messages.counts import decode_counts
from headcount.messages.fixes import encode_fix
from headcount.messages.topics import INTERNAL
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.mqtt_address import MqttAddress
from headcount.messaging.site_store import SiteStore, StoredSite
from headcount.runtime.tasks import background
from headcount.worker.loops import WorkerSettings, run
from small_site import small_site
from waiting import until

PARTITIONS = 4
DEVICES = 6


def _named(site: Site, name: str) -> Site:
    geojson = msgspec.json.decode(msgspec.json.encode(site.geojson))
    geojson["features"][0]["properties"]["id"] = name
    return parse_site(geojson, name)


class _Subscriber:
    """The newest counts of each site and partition, all events, and the newest message of each retained topic."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[int, tuple[float, int]]] = {}
        self.events: list[dict[str, Any]] = []
        self.retained: dict[str, bytes] = {}

    async def subscribe(self, client: Client) -> None:
        await client.subscribe("count.*.*", cb=self._counts)
        await client.subscribe("event.>", cb=self._event)

    async def _counts(self, message: Msg) -> None:
        for counts in decode_counts(message.data):
            people = int(np.frombuffer(counts.values, "<i4").reshape(-1, 2, 4)[0, 0, 0])
            self.counts.setdefault(counts.site, {})[counts.partition] = counts.at, people

    async def _event(self, message: Msg) -> None:
        self.events.append(json.loads(message.data))

    def people(self, site: str) -> int:
        """On the site."""
        return sum(number for _, number in self.counts.get(site, {}).values())

    def devices(self, site: str, reason: str) -> set[str]:
        """Of the events of a site and reason."""
        return {e["device"] for e in self.events if (e["site"], e["reason"]) == (site, reason)}

    async def receive_retained(self, port: int) -> None:
        async with aiomqtt.Client("127.0.0.1", port) as client:
            await client.subscribe("headcount/+/site")
            await client.subscribe("headcount/+/counts/b1")
            async for message in client.messages:
                self.retained[str(message.topic)] = bytes(message.payload)


async def _send(port: int) -> None:
    """Devices of the same names stand in a building of each site."""
    async with aiomqtt.Client("127.0.0.1", port) as client:
        while True:
            for number in range(DEVICES):
                fix = encode_fix(time.time(), 50.0025, 0.0025, acc=5.0)
                for site in ("s", "other"):
                    await client.publish(f"headcount/{site}/person/d{number}/fix", fix)
            await asyncio.sleep(0.3)


async def test_a_site_is_added_and_removed_while_workers_count(tmp_path: Path) -> None:
    """Its devices are counted from a few seconds after it was added until it is removed; so are those of the first."""
    async with nats_fixture.open_broker(tmp_path, partitions=PARTITIONS) as broker:
        config, client, found = broker.config, await nats_fixture.internal_client(broker), _Subscriber()
        await found.subscribe(client)
        endpoint = Endpoint((("127.0.0.1", config.nats_port),), INTERNAL, config.password)
        mqtt = [MqttAddress("127.0.0.1", config.mqtt_port, INTERNAL, config.password)]
        settings, stop = WorkerSettings(small_site(), endpoint, mqtt, PARTITIONS), asyncio.Event()
        workers = [asyncio.create_task(run(settings, stop)) for _ in range(2)]
        store, other = SiteStore(Connection(client)), _named(small_site(), "other")
        async with (
            background(_send(config.mqtt_port), "devices"),
            background(found.receive_retained(config.mqtt_port), "subscriber"),
        ):
            await until(lambda: found.people("s") == DEVICES, "the first site")
            assert "other" not in found.counts
            assert await store.add(
                StoredSite("test", other.digest().hex(), other.geojson, 1, site="other", number=1)
            )
            await until(lambda: found.people("other") == DEVICES, "the second site")
            await until(lambda: "headcount/other/counts/b1" in found.retained, "its retained counts")
            assert found.people("s") == DEVICES
            workers.append(asyncio.create_task(run(settings, stop)))  # partitions change hands
            assert await store.add(StoredSite("test", "", None, 1, site="other", number=2))
            await until(lambda: found.people("other") == 0, "it is removed")
            await until(lambda: len(found.devices("other", "site")) == DEVICES, "all devices leave")
            await until(lambda: found.retained["headcount/other/site"] == b"", "subscribers learn of it")
            await until(
                lambda: len({at for at, _ in found.counts["other"].values()}) == 1, "its last instant"
            )
            ended = dict(found.counts["other"])

            async def is_cleared() -> bool:
                subjects = "$MQTT.rmsgs.headcount.other.>"
                info = await client.jetstream().stream_info("$MQTT_rmsgs", subjects_filter=subjects)
                return not info.state.subjects

            await until(is_cleared, "nothing of it is retained")
            assert found.counts["other"] == ended
            assert found.people("s") == DEVICES
            assert not found.devices("s", "site")
        stop.set()
        await asyncio.gather(*workers)
        await client.close()
