"""Entries of a real Redis, as the bridge reads them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from bridge.reading import new_source, read
from bridge_fixture import StallingProxy
from headcount.bridge import redis as redis_source
from headcount.bridge.source import SourceMessage
from headcount.errors import SettingsError
from redis_fixture import PASSWORD, USER, RedisServer, running_redis
from waiting import until


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running server."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


async def test_topics_and_payloads(redis: RedisServer) -> None:
    """An entry has a topic and a payload, or the fields of a fix."""
    client = redis.client()
    client.xadd("car-iotp", {"topic": "owntracks/anna/phone", "payload": "{}"})
    client.xadd("car-iotp", {"id": "car-7", "t": "1795900000", "lat": "52.5", "lon": "-8.25", "_type": "x"})
    entries = await read(new_source(redis.url, topics="car-iotp"), 2)
    assert entries[0] == SourceMessage("owntracks/anna/phone", b"{}")
    assert entries[1].topic == "car-iotp"
    assert json.loads(entries[1].payload) == {
        "id": "car-7",
        "t": 1795900000,
        "lat": 52.5,
        "lon": -8.25,
        "_type": "x",
    }


async def test_topic_of_a_pattern(redis: RedisServer) -> None:
    """A pattern in the URL makes topics of the field `device`."""
    redis.client().xadd("fixes", {"device": "p1", "t": "1795900000", "lat": "52.5", "lon": "-8.25"})
    source = new_source(f"{redis.url}?topic=headcount/ul/person/{{key}}/fix", topics="fixes")
    (entry,) = await read(source, 1)
    assert entry.topic == "headcount/ul/person/p1/fix"
    assert json.loads(entry.payload) == {"t": 1795900000, "lat": 52.5, "lon": -8.25}


async def test_entries_come_again_until_they_are_acknowledged(redis: RedisServer) -> None:
    """A bridge that ends between storing and acknowledging leaves its entries to the next one, in order."""
    client = redis.client()
    with client.pipeline() as pipeline:
        for number in range(1200):
            pipeline.xadd("again", {"topic": "car-iotp", "payload": str(number)})
        pipeline.execute()
    first = await read(new_source(redis.url, topics="again"), 1200, acknowledge=False)
    client.xadd("again", {"topic": "car-iotp", "payload": "new"})
    assert await read(new_source(redis.url, topics="again"), 1201) == [
        *first,
        SourceMessage("car-iotp", b"new"),
    ]
    pending = client.xpending("again", "headcount-test")
    assert pending is not None
    assert pending["pending"] == 0


async def test_lost_data(redis: RedisServer) -> None:
    """When the server has lost its data, and with it the group, the bridge reads what is stored afterwards."""
    source = new_source(redis.url, topics="lost")
    reading = asyncio.create_task(read(source, 1))
    await until(lambda: not source.problem, "the bridge is connected")
    redis.client().flushall()
    redis.client().xadd("lost", {"topic": "car-iotp", "payload": "1"})
    assert await reading == [SourceMessage("car-iotp", b"1")]


async def test_cut_network(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries of ten minutes during which the network of the bridge was cut all arrive afterwards."""
    monkeypatch.setattr(redis_source, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(redis_source, "CLAIM_INTERVAL_S", 0.5)

    def add(first: int, last: int) -> None:
        with redis.client().pipeline() as pipeline:
            for number in range(first, last):
                pipeline.xadd("cut", {"topic": "car-iotp", "payload": str(number)})
            pipeline.execute()

    found: set[int] = set()
    async with StallingProxy(int(redis.url.rpartition(":")[2])) as network:
        source = new_source(f"redis://127.0.0.1:{network.port}", topics="cut")
        stop = asyncio.Event()

        async def read_all() -> None:
            async for batch in source.batches(stop):
                found.update(int(message.payload) for message in batch)
                await source.acknowledge()

        reading = asyncio.create_task(read_all())
        add(0, 20)
        await until(lambda: len(found) == 20, "the first entries")
        network.cut()
        add(20, 6020)
        await until(lambda: source.problem, "the bridge notices it")
        network.join()
        await until(lambda: found == set(range(6020)), "all entries")
        stop.set()
        await reading


async def test_password_and_encryption(redis: RedisServer) -> None:
    """A user signs in over TLS."""
    redis.client().xadd("secret", {"topic": "car-iotp", "payload": "1"})
    url = redis.tls_url.replace("://", f"://{USER}:{PASSWORD}@")
    source = new_source(url, topics="secret", ca=redis.certificate)
    assert await read(source, 1) == [SourceMessage("car-iotp", b"1")]


def test_streams_are_needed() -> None:
    """Without a stream's name there is nothing to read."""
    with pytest.raises(SettingsError, match=r"bridge\.topics.*names of the Redis streams"):
        new_source("redis://127.0.0.1:1")
