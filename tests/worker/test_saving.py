"""When a worker saves the state of a partition."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiomqtt
import msgspec
import pytest

import nats_fixture
from headcount.messages.fixes import ForgetMarker, encode_fix
from headcount.messages.topics import FORGET_SUBJECT, INTERNAL
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.mqtt_address import MqttAddress
from headcount.worker import ownership
from headcount.worker.loops import WorkerSettings, run
from headcount.worker.snapshots import Snapshots
from small_site import small_site
from waiting import until


async def test_states_are_saved_after_fixes_and_erasures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ticks alone don't have a state saved; fixes do after a while, and an erased device immediately."""
    async with nats_fixture.open_broker(tmp_path, partitions=1) as broker:
        config, client = broker.config, await nats_fixture.internal_client(broker)
        endpoint = Endpoint((("127.0.0.1", config.nats_port),), INTERNAL, config.password)
        mqtt = [MqttAddress("127.0.0.1", config.mqtt_port, INTERNAL, config.password)]
        stop = asyncio.Event()
        worker = asyncio.create_task(run(WorkerSettings(small_site(), endpoint, mqtt, 1), stop))
        states = Snapshots(Connection(client))

        async def last_seq() -> int:
            return (await client.jetstream().stream_info("FIX_0")).state.last_seq

        async def saved() -> int:
            return await states.saved_seq(0)

        async def has_ticks() -> bool:
            return await last_seq() > first + 5

        async def is_newest() -> bool:
            return await saved() >= wanted

        await until(saved, "the state with the site")
        first = await last_seq()
        before = await saved()
        await until(has_ticks, "ticks")
        assert await saved() == before
        marker = ForgetMarker("person", {str(int(time.time()) // 86_400): "0" * 16})
        answer = await client.jetstream().publish(
            FORGET_SUBJECT.format(partition=0), msgspec.json.encode(marker)
        )
        wanted = answer.seq
        await until(is_newest, "the state after an erasure")
        monkeypatch.setattr(ownership, "SNAPSHOT_INTERVAL_S", 0.5)
        async with aiomqtt.Client("127.0.0.1", config.mqtt_port) as phone:
            fix = encode_fix(time.time(), 50.0025, 0.0025, acc=5.0)
            await phone.publish("headcount/s/person/phone/fix", fix, qos=1)
        wanted = await last_seq()
        await until(is_newest, "the state after a fix")
        stop.set()
        await worker
        await client.close()
