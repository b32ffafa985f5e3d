"""Three nodes that start side by side and create the same streams."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import msgspec
import pytest

from cluster_fixture import PARTITIONS, open_core
from headcount.adapters import translator
from headcount.broker import nats_probe
from headcount.broker.nats_config import SYSTEM, BrokerConfig
from headcount.messages.topics import FOREIGN_STREAM, FOREIGN_SUBJECTS
from headcount.messaging.jetstream import request, stream_names
from headcount.messaging.streams import (
    MQTT_STREAMS,
    StreamSizes,
    ensure_streams,
    stream_configs,
)

pytestmark = pytest.mark.slow

ROUNDS = 20
SIDE_BY_SIDE = 4
CREATED = {
    config["name"] for config in (*stream_configs(PARTITIONS, StreamSizes.within(1 << 30)), *MQTT_STREAMS)
}


async def streams_of(config: BrokerConfig) -> set[str]:
    """The names of all streams, as one node lists them."""
    async with nats_probe.connected(config) as connection:
        return set(await stream_names(connection))


async def test_three_nodes_start_twenty_times(tmp_path: Path) -> None:
    """A new core of three nodes is up with all its streams, each time that it is started."""

    async def start(number: int) -> None:
        async with open_core(tmp_path / str(number), 3) as core:
            assert await streams_of(core.configs[0]) == CREATED

    for first in range(0, ROUNDS, SIDE_BY_SIDE):
        async with asyncio.TaskGroup() as group:
            for number in range(first, first + SIDE_BY_SIDE):
                group.create_task(start(number))


async def test_nodes_create_the_same_streams_at_the_same_time(tmp_path: Path) -> None:
    """Nodes whose disks differ in size all end up with the same streams, whichever of them is faster."""
    rng = random.Random(random.SystemRandom().randrange(2**32))

    async def ensure(config: BrokerConfig, store_bytes: int) -> None:
        async with nats_probe.connected(config) as connection:
            await asyncio.sleep(rng.random() * 0.3)  # a random order
            await ensure_streams(connection, PARTITIONS, store_bytes=store_bytes, replicas=3)

    async with open_core(tmp_path, 3) as core:
        for _ in range(ROUNDS):
            async with nats_probe.connected(core.configs[0]) as connection:
                for name in await stream_names(connection):
                    await request(connection, f"STREAM.DELETE.{name}", timeout_s=60.0)
            async with asyncio.TaskGroup() as group:
                for number, config in enumerate(core.configs, 1):
                    group.create_task(ensure(config, number << 30))
            assert await streams_of(core.configs[0]) == CREATED


async def test_adapters_create_the_same_consumer_at_the_same_time(tmp_path: Path) -> None:
    """Adapters that start side by side on different nodes share one consumer."""

    async def subscribe(config: BrokerConfig) -> None:
        async with (
            nats_probe.connected(config) as connection,
            translator._consumer(connection, translator.DURABLE, FOREIGN_SUBJECTS),
        ):
            pass

    async with open_core(tmp_path, 3) as core, nats_probe.connected(core.configs[0]) as connection:
        for _ in range(ROUNDS):
            async with asyncio.TaskGroup() as group:
                for config in core.configs:
                    group.create_task(subscribe(config))
            await request(connection, f"CONSUMER.DELETE.{FOREIGN_STREAM}.{translator.DURABLE}")


async def test_a_node_receives_no_answer_to_another_nodes_request(tmp_path: Path) -> None:
    """Nodes that request their own state at the same time each receive their own."""
    async with open_core(tmp_path, 3) as core:
        subject = "$SYS.REQ.SERVER.{id}.VARZ"
        for _ in range(ROUNDS):
            answers = await asyncio.gather(
                *(nats_probe.request(config, SYSTEM, subject) for config in core.configs)
            )
            names = [msgspec.json.decode(answer)["server"]["name"] for answer in answers]
            assert names == [config.server_name for config in core.configs]
