"""Devices on leaves of a core of one or three nodes: all that holds on one machine holds there too."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import msgspec
import numpy as np
import pytest

from cluster_fixture import Core, Counting, Device, Unit, counting, log_of, open_core, open_unit
from headcount.adapters import translator
from headcount.messages.history import HistoryBatch
from headcount.messages.topics import HISTORY_STREAM
from nats_fixture import PASSWORD
from waiting import until

SENDERS = 6


async def test_devices_on_leaves_are_counted(tmp_path: Path) -> None:
    """Fixes of QoS 0 and 1 through any leaf are logged once and counted; its clients receive counts and site."""
    async with (
        open_core(tmp_path) as core,
        open_unit(tmp_path, core, "b1") as b1,
        open_unit(tmp_path, core, "b2") as b2,
        counting(core) as counted,
    ):
        await asyncio.gather(b1.until_status(200), b2.until_status(200))
        for unit in (b1, b2):
            for qos in (0, 1):
                await (await unit.device(f"{unit.settings.name}q{qos}")).publish(qos)
        await until(lambda: counted.newest.get("b1") == 4)
        heard: dict[str, str] = {}
        async with aiomqtt.Client("127.0.0.1", b2.port) as client:
            await client.subscribe("headcount/s/counts/b1")
            await client.subscribe("headcount/s/site")
            async for message in client.messages:
                heard[str(message.topic)] = bytes(message.payload).decode()
                said = json.loads(heard.get("headcount/s/counts/b1", '{"person":{"count":0}}'))
                if said["person"]["count"] == 4 and "headcount/s/site" in heard:
                    break
        assert await log_of(core) == {f"b{unit}q{qos}": [1] for unit in (1, 2) for qos in (0, 1)}


async def test_a_last_will_on_a_leaf(tmp_path: Path) -> None:
    """When a device's connection to a leaf breaks, its last will is in the log as its status."""
    async with open_core(tmp_path) as core, open_unit(tmp_path, core, "b1") as unit:
        await unit.until_status(200)
        client = await core.client()
        heard = await client.subscribe("fix.*.s.person.phone.status")
        await client.flush()
        will = aiomqtt.Will("headcount/s/person/phone/status", b"offline", qos=1)
        with contextlib.suppress(aiomqtt.MqttError):
            async with aiomqtt.Client("127.0.0.1", unit.port, identifier="phone", will=will):
                await unit.until_connections(1)
                ask = b'{"connections":1,"within_s":0}'
                await client.request("unit.broker.b1.kick", ask, timeout=60)
                await unit.until_connections(0)
        assert (await heard.next_msg(timeout=60)).data == b"offline"
        await client.close()


async def test_owntracks_through_a_leaf(tmp_path: Path) -> None:
    """A phone with OwnTracks on a leaf is counted."""
    async with (
        open_core(tmp_path) as core,
        open_unit(tmp_path, core, "b1") as unit,
        counting(core) as counted,
    ):
        await unit.until_status(200)
        stop = asyncio.Event()
        adapters = asyncio.create_task(
            translator.run(core.endpoint, "s", stop, secret=PASSWORD, worker="test")
        )
        location = {"_type": "location", "tst": int(time.time()), "lat": 50.0025, "lon": 0.0025, "acc": 5}
        async with aiomqtt.Client("127.0.0.1", unit.port) as phone:
            await phone.publish("owntracks/ada/phone", json.dumps(location), qos=1)
        await until(lambda: counted.newest.get("b1") == 1)
        stop.set()
        await adapters


async def senders(units: list[Unit], stop: asyncio.Event, group: asyncio.TaskGroup) -> list[Device]:
    """Devices that send with QoS 1 as fast as they are answered, each on a unit of its own first."""
    ports = [unit.port for unit in units]
    devices = [Device(f"d{number}") for number in range(SENDERS)]
    for number, device in enumerate(devices):
        turned = ports[number % len(ports) :] + ports[: number % len(ports)]
        group.create_task(device.keep_sending(turned, stop))
    return devices


async def acknowledged_again(devices: list[Device]) -> None:
    """Wait until each device has been answered several times from now on."""
    marks = [len(device.acknowledged) + 5 for device in devices]

    def missing() -> list[str]:
        return [d.name for d, mark in zip(devices, marks, strict=True) if len(d.acknowledged) < mark]

    await until(lambda: not missing(), "each device is answered several times")


async def history_rows(core: Core) -> int:
    """How many different fixes were handed to the history."""
    client = await core.client()
    rows: set[tuple[int, int]] = set()
    state = (await client.jetstream().stream_info(HISTORY_STREAM)).state
    for seq in range(state.first_seq, state.last_seq + 1):
        message = await client.jetstream().get_msg(HISTORY_STREAM, seq)
        batch = msgspec.msgpack.decode(message.data or b"", type=HistoryBatch)
        if batch.fixes is not None:
            rows |= {(batch.partition, fix) for fix in np.frombuffer(batch.fixes.seq, "<i8").tolist()}
    await client.close()
    return len(rows)


async def all_is_there(core: Core, devices: list[Device], counted: Counting) -> None:
    """Each acknowledged fix is in the log once, and in the history; counting goes on."""
    log = await log_of(core)
    for device in devices:
        assert device.acknowledged
        assert set(device.acknowledged) <= set(log[device.name])
        assert len(log[device.name]) == len(set(log[device.name]))
    fixes = sum(map(len, log.values()))

    async def are_stored() -> bool:
        return await history_rows(core) >= fixes

    await until(are_stored, "all rows of the history", every_s=0.5)
    assert await history_rows(core) == fixes
    since_s = time.time()
    await until(lambda: counted.at_s > since_s and counted.newest.get("b1") == SENDERS, "all are counted")


@dataclass(frozen=True)
class Load:
    """A core and two units, with devices that send."""

    core: Core
    b1: Unit
    devices: list[Device]
    counted: Counting


@contextlib.asynccontextmanager
async def under_load(folder: Path, nodes: int = 1) -> AsyncIterator[Load]:
    """Run a core and two units while devices send to both; at the end all that was acknowledged is there."""
    async with (
        open_core(folder, nodes) as core,
        open_unit(folder, core, "b1") as b1,
        open_unit(folder, core, "b2") as b2,
        counting(core) as counted,
    ):
        await asyncio.gather(b1.until_status(200), b2.until_status(200))
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            devices = await senders([b1, b2], stop, group)
            await acknowledged_again(devices)
            yield Load(core, b1, devices, counted)
            stop.set()
        await all_is_there(core, devices, counted)


@pytest.mark.slow
async def test_a_kill_of_the_core_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """A core of one node dies and comes back while devices on leaves send: what was acknowledged is counted."""
    async with under_load(tmp_path) as load:
        for _ in range(2):
            await load.core.kill(0)
            await asyncio.sleep(1)  # an outage
            await load.core.restart(0)
            await acknowledged_again(load.devices)


@pytest.mark.slow
async def test_three_nodes_go_on_without_one(tmp_path: Path) -> None:
    """Any node of three is killed: the others take what devices send, count on, and lose nothing acknowledged."""
    async with under_load(tmp_path, 3) as load:
        client = await load.core.client()
        for stream in ("FIX_0", "COUNT", "KV_LEASE", "$MQTT_msgs", "$MQTT_sess"):
            info = await client.jetstream().stream_info(stream)
            assert info.config.num_replicas == 3, stream
        await client.close()
        for node in (0, 1):
            killed_s = time.time()
            await load.core.kill(node)
            await acknowledged_again(load.devices)
            await until(lambda since_s=killed_s + 1: load.counted.at_s > since_s, "counting goes on")  # type: ignore[misc]
            print(f"node {node}: all counted again after {time.time() - killed_s:.1f} s")
            await load.core.restart(node)  # from then on any other may fail
            await acknowledged_again(load.devices)


@pytest.mark.slow
async def test_a_unit_that_drains_loses_nothing(tmp_path: Path) -> None:
    """While one of two units drains under load, devices go on at the other, and all acknowledged is counted."""
    async with under_load(tmp_path) as load:
        load.b1.stop.set()
        await load.b1.task
        await acknowledged_again(load.devices)
