"""Workers that join, leave and miss heartbeats, against a real NATS server and the oracle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import aiomqtt
import numpy as np
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

import nats_fixture
from headcount.broker.core import Broker
from headcount.counting.site_file import parse_site
from headcount.lab.chaos.oracle import Oracle
from headcount.lab.chaos.scenarios import random_scenario
from headcount.messages.counts import decode_counts
from headcount.messages.topics import INTERNAL
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.log_reader import open_reader
from headcount.messaging.mqtt_address import MqttAddress
from headcount.messaging.site_versions import deployment_sites
from headcount.runtime.tasks import cancel_all
from headcount.worker.leases import LEASE_TTL_S, Leases
from headcount.worker.loops import Worker, WorkerSettings, run
from waiting import BUSY_S, until

PARTITIONS = 4


class _Deployment:
    """A broker, a site, any number of workers, and a subscriber to all counts."""

    def __init__(self, broker: Broker, client: Client, seed: int) -> None:
        self.rng = Random(seed)
        campus = random_scenario(self.rng, 4)
        self.geojson = campus.geojson
        self.degrees = campus.degrees
        self.site = parse_site(campus.geojson, "scene")
        self.client = client
        self.broker = broker
        config = broker.config
        self.endpoint = Endpoint((("127.0.0.1", config.nats_port),), INTERNAL, config.password)
        mqtt = [MqttAddress("127.0.0.1", config.mqtt_port, INTERNAL, config.password)]
        self.settings = WorkerSettings(self.site, self.endpoint, mqtt, config.partitions)
        self.heard: dict[float, dict[int, bytes]] = {}
        self.epochs: dict[int, int] = {}
        self.fixes = 0
        self.workers: list[tuple[asyncio.Task[None], asyncio.Event]] = []

    async def listen(self) -> None:
        async def on_message(message: Msg) -> None:
            for counts in decode_counts(message.data):
                before = self.heard.setdefault(counts.at, {}).setdefault(counts.partition, counts.values)
                assert before == counts.values, "two different counts of one instant"
                self.epochs[counts.partition] = max(counts.epoch, self.epochs.get(counts.partition, 0))

        await self.client.subscribe("count.*.*", cb=on_message)

    def start(self) -> None:
        stop = asyncio.Event()
        self.workers.append((asyncio.create_task(run(self.settings, stop)), stop))

    async def stop(self, index: int) -> None:
        task, stop = self.workers.pop(index)
        stop.set()
        await task

    async def kill(self, index: int) -> None:
        """End a worker as a crash does: nothing is saved, nothing released."""
        task, _ = self.workers.pop(index)
        await cancel_all({task})

    async def owners(self) -> dict[int, str]:
        found = {}
        for number in range(PARTITIONS):
            entry = await self.client.jetstream().get_last_msg("KV_LEASE", f"$KV.LEASE.p.{number}")
            found[number] = json.loads(entry.data or b"{}").get("owner", "")
        return found

    async def complete(self, since: float) -> float:
        """Wait until every partition has published some instant after `since`; how long that took."""
        began = time.monotonic()
        await until(
            lambda: any(len(told) == PARTITIONS for at, told in self.heard.items() if at > since),
            "an instant of all partitions",
        )
        return time.monotonic() - began

    async def shared(self) -> None:
        """Wait until every worker owns a partition."""

        async def each_owns() -> bool:
            return len(set((await self.owners()).values())) == len(self.workers)

        await until(each_owns, "a partition for every worker")

    @contextlib.asynccontextmanager
    async def feeding(self, fixes: int) -> AsyncIterator[None]:
        """People and cars jump about the campus meanwhile, and until that many fixes were sent."""
        wanted = self.fixes + fixes
        end = asyncio.Event()
        task = asyncio.create_task(self._feed(end))
        yield
        await until(lambda: self.fixes >= wanted or task.done(), "fixes")
        end.set()
        await task

    async def _feed(self, end: asyncio.Event) -> None:
        async with aiomqtt.Client("127.0.0.1", self.broker.config.mqtt_port) as client:
            while not end.is_set():
                kind, device = self.rng.choice(["person", "vehicle"]), self.rng.randrange(40)
                lat, lon = self.degrees(self.rng.uniform(-300, 300), self.rng.uniform(-300, 300))
                body = {
                    "tst": round(time.time(), 3),
                    "lat": lat,
                    "lon": lon,
                    "acc": self.rng.choice([0, 5, 30]),
                }
                topic = f"headcount/{self.site.id}/{kind}/d{device}/fix"
                await client.publish(topic, json.dumps(body), qos=self.rng.choice([0, 1]))
                self.fixes += 1
                await asyncio.sleep(0.002)  # the rate of the load

    async def log(self) -> list[tuple[float, str, str, dict[str, Any]]]:
        """Every fix of the log in the order in which it was received."""
        rows = []
        async with open_reader(self.endpoint, Connection(self.client)) as reader:
            for number in range(PARTITIONS):
                info = await self.client.jetstream().stream_info(f"FIX_{number}")
                await reader.follow(number, 0)
                seq = 0
                while seq < info.state.last_seq:
                    for delivery in await reader.read():
                        seq = delivery.seq[-1]
                        for subject, payload, ns in zip(
                            delivery.subjects, delivery.payloads, delivery.received_ns, strict=True
                        ):
                            tokens = subject.decode().split(".")
                            if len(tokens) == 5:
                                received = ns // 10**9 + ns % 10**9 / 1e9
                                rows.append((received, tokens[3], tokens[4], json.loads(payload)))
                await reader.leave(number)
        return sorted(rows, key=lambda row: row[0])

    async def check(self) -> tuple[int, int]:
        """Every complete total equals the oracle over the log; returns fixes and instants compared."""
        rows = await self.log()
        oracle = Oracle(self.geojson)
        wanted = sorted(at for at, told in self.heard.items() if len(told) == PARTITIONS)
        compared = 0
        position = 0
        for at in wanted:
            while position < len(rows) and rows[position][0] <= at:
                received, kind, device, fix = rows[position]
                oracle.fix(received, kind, device, fix["tst"], fix["lat"], fix["lon"], fix["acc"])
                position += 1
            expected = oracle.counts(at)
            total = sum(np.frombuffer(values, "<i4").reshape(-1, 2, 4) for values in self.heard[at].values())
            for zone, numbers in zip(self.site.zones, np.asarray(total).tolist(), strict=True):
                assert [tuple(own) for own in numbers] == [
                    expected[zone.id]["person"],
                    expected[zone.id]["vehicle"],
                ], (at, zone.id)
            compared += 1
        return position, compared


async def _deployment(tmp_path: Path, seed: int, scenario: Callable[[_Deployment], Any]) -> None:
    print("seed", seed)
    async with nats_fixture.open_broker(tmp_path, partitions=PARTITIONS) as broker:
        client = await nats_fixture.internal_client(broker)
        deployment = _Deployment(broker, client, seed)
        await deployment.listen()
        await scenario(deployment)
        fixes, instants = await deployment.check()
        print(f"{fixes} fixes and {instants} instants compared, 0 differences")
        assert fixes > 200
        assert instants > 20
        for index in reversed(range(len(deployment.workers))):
            await deployment.stop(index)
        await client.close()


async def test_sums_are_the_same_with_one_two_and_four_workers(tmp_path: Path) -> None:
    """While workers join one by one and leave again, every published total equals the oracle."""

    async def scenario(d: _Deployment) -> None:
        async with d.feeding(1000):
            d.start()
            await d.complete(0)
            for more in (1, 2):
                before = await d.owners()
                for _ in range(more):
                    d.start()
                await d.shared()
                await d.complete(max(d.heard))
                after = await d.owners()
                moved = [number for number in after if after[number] != before[number]]
                assert len(moved) == 2, "only the newcomers' share moves"
            for _ in range(3):
                await d.stop(0)
                await d.complete(max(d.heard))
        await d.complete(max(d.heard))

    await _deployment(tmp_path, Random().randrange(2**32), scenario)


async def test_a_crashed_worker_is_replaced(tmp_path: Path) -> None:
    """Of a worker that dies without a word the others take over within 5 s, and no count is wrong."""

    async def scenario(d: _Deployment) -> None:
        async with d.feeding(1000):
            d.start()
            d.start()
            await d.complete(0)
            await d.shared()
            await d.complete(max(d.heard))
            epochs = dict(d.epochs)
            await d.kill(0)
            took_s = await d.complete(max(d.heard))
            print(f"taken over after {took_s:.1f} s")
            assert took_s < LEASE_TTL_S + BUSY_S
            assert sum(d.epochs[number] > epochs[number] for number in epochs) == PARTITIONS // 2
        await d.complete(max(d.heard))

    await _deployment(tmp_path, Random().randrange(2**32), scenario)


async def _worker(deployment: _Deployment, connection: Connection) -> Worker:
    """A worker whose loops do not run."""
    settings = deployment.settings
    return Worker(settings, connection, await deployment_sites(connection, settings.site, 1.0))


async def test_a_worker_that_rejoins_has_a_new_name(tmp_path: Path) -> None:
    """Words under a worker's former name that arrive late leave no member that others would wait for."""
    async with nats_fixture.open_broker(tmp_path, partitions=PARTITIONS) as broker:
        client = await nats_fixture.internal_client(broker)
        worker = await _worker(_Deployment(broker, client, 1), Connection(client))
        await worker.ownership.heartbeat()
        former = worker.ownership.name
        await worker.ownership.rejoin()
        leases = Leases(Connection(client))
        await leases.heartbeat(former)
        assert set((await leases.table()).members) == {former}
        await worker.ownership.heartbeat()
        assert set((await leases.table()).members) == {worker.ownership.name} != {former}
        await client.close()


async def test_a_partition_lost_before_its_turn_is_not_saved(tmp_path: Path) -> None:
    """A worker that rejoins while it saves its partitions saves none whose events were discarded."""
    async with nats_fixture.open_broker(tmp_path, partitions=PARTITIONS) as broker:
        client = await nats_fixture.internal_client(broker)
        worker = await _worker(_Deployment(broker, client, 1), Connection(client))
        await worker.ownership.heartbeat()
        await worker.ownership._apply_assignment()
        mine = list(worker.ownership.owned.values())
        assert len(mine) == PARTITIONS
        before = [await worker._snapshots.load(number) for number in range(PARTITIONS)]
        mine[1].partition.seq = 7
        await worker.ownership.rejoin()  # while mine[0] was being saved
        await worker._save(mine[1])
        assert [await worker._snapshots.load(number) for number in range(PARTITIONS)] == before
        await client.close()


@pytest.mark.slow
async def test_broker_dies_and_workers_go_on(tmp_path: Path) -> None:
    """When the NATS server is killed, workers wait for it and go on; every published total is right."""

    async def scenario(d: _Deployment) -> None:
        d.start()
        d.start()
        await d.complete(0)
        async with d.feeding(500):
            await d.shared()
        assert d.broker.pid is not None
        os.kill(d.broker.pid, signal.SIGKILL)
        await until(lambda: d.broker.restarts and d.broker.ready, "the server is back")
        async with d.feeding(500):
            pass
        await d.complete(max(d.heard))

    await _deployment(tmp_path, Random().randrange(2**32), scenario)
