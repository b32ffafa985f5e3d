"""A broker unit against a real core: its reports, the disconnection of devices, and draining."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from nats.aio.client import Client

from cluster_fixture import Core, Device, Unit, open_core, open_unit
from headcount import __version__
from headcount.broker import connections, nats_probe
from headcount.broker.nats_config import SYSTEM
from headcount.errors import PortTakenError
from headcount.messages.topics import KICK_SUBJECT
from headcount.messages.units import BrokerUnit, KickReply, KickRequest
from headcount.messaging.connection import Connection
from headcount.messaging.units import Units
from waiting import until


async def last_report(client: Client, name: str = "b1") -> BrokerUnit | None:
    """The last report of a unit."""
    found = (await Units(Connection(client)).table()).units.get(name)
    return found and found[0]


async def crowd(unit: Unit, number: int) -> list[Device]:
    """Connect `number` devices, and return when the unit counts them."""
    found = [await unit.device(f"d{i}") for i in range(number)]
    await unit.until_connections(number)
    return found


async def ask_to_kick(client: Client, connections: int, within_s: float) -> int:
    """The number of connections that the unit agrees to close."""
    ask = msgspec.json.encode(KickRequest(connections, within_s))
    answer = await client.request(KICK_SUBJECT.format(name="b1"), ask, timeout=60)
    return msgspec.json.decode(answer.data, type=KickReply).kicked


async def gone(found: list[Device], number: int) -> set[str]:
    """The names of the devices whose connections were closed, once there are `number` of them."""
    tasks = {asyncio.create_task(device.closed(), name=device.name) for device in found}
    await until(lambda: sum(task.done() for task in tasks) >= number, f"{number} closed connections")
    await asyncio.sleep(0.3)  # more would follow
    names = {task.get_name() for task in tasks if task.done()}
    for task in tasks:
        task.cancel()
    return names


async def test_a_unit_reports_its_load(tmp_path: Path) -> None:
    """In the bucket and over HTTP stand its addresses, versions, devices and messages, and no probe of its own."""
    async with open_core(tmp_path) as core, open_unit(tmp_path, core, "b1") as unit:
        client = await core.client()
        await unit.until_status(200)
        found = await crowd(unit, 3)
        for _ in range(5):
            await found[0].publish(qos=1)
            await found[1].publish(qos=0)

        async def are_counted() -> bool:
            return await unit.metric("headcount_unit_messages_total") >= 10

        await until(are_counted, "10 messages")
        await asyncio.sleep(5)  # its own questions would add at least 5; a late answer of the server adds one
        assert 10 <= await unit.metric("headcount_unit_messages_total") <= 12
        await unit.until_connections(3)
        assert await unit.metric("headcount_unit_devices") in {2, 3, 4}
        assert await unit.metric("headcount_unit_cpu_seconds_total") > 0

        async def report_of_three() -> BrokerUnit | None:
            found = await last_report(client)
            return found if found is not None and found.connections == 3 else None

        said: BrokerUnit = await until(report_of_three, "a report of 3 connections")
        assert (said.name, said.state) == ("b1", "up")
        assert (said.version, said.host) == (__version__, "127.0.0.1")
        assert said.server.startswith("2.")
        assert (said.mqtt_port, said.health_port) == (unit.port, unit.settings.health_port)
        await unit.until_connections(3)
        status, health = await unit.health()
        assert (status, health | {"connections": 3}) == (
            200,
            {"status": "up", "reason": None, "connections": 3},
        )
        await client.close()


async def test_devices_are_sent_away_slowly(tmp_path: Path) -> None:
    """A request closes as many connections as it names, spread over its time, of devices only."""
    async with open_core(tmp_path) as core, open_unit(tmp_path, core, "b1") as unit:
        client = await core.client()
        await unit.until_status(200)
        found = await crowd(unit, 6)
        async with nats_probe.connected(unit.settings.config, SYSTEM) as ours:
            began_s = asyncio.get_running_loop().time()
            assert await ask_to_kick(client, 4, 0.8) == 4
            assert len(await gone(found, 4)) == 4
            assert asyncio.get_running_loop().time() - began_s >= 0.6  # the last of four after 3/4 of it
            assert ours.is_connected
        await unit.until_connections(2)
        assert await ask_to_kick(client, 100, 0.0) == 2
        assert await ask_to_kick(client, -1, 0.0) == 0
        await client.publish(KICK_SUBJECT.format(name="b1"), b"no request")
        await gone(found, 6)
        assert await unit.metric("headcount_unit_kicked_total") == 6
        await client.close()


async def test_who_sends_devices_away_is_no_device(tmp_path: Path) -> None:
    """While devices are being sent away, over a connection of the unit's own, only devices are counted."""
    async with open_core(tmp_path) as core, open_unit(tmp_path, core, "b1") as unit:
        client = await core.client()
        await unit.until_status(200)
        await crowd(unit, 4)
        await unit.until_connections(4)
        assert await ask_to_kick(client, 2, 8.0) == 2  # the second one goes after four seconds
        seen: Counter[int] = Counter()
        while (left := (await unit.health())[1]["connections"]) != 2:
            seen[left] += 1
            await asyncio.sleep(0.2)
        # for a moment, while a connection of ours comes or goes, it may be one off
        assert seen.most_common(1)[0][0] == 3, seen
        await client.close()


async def test_more_connections_than_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit reads all pages of the server's list of connections."""
    monkeypatch.setattr(connections, "PAGE", 2)
    async with open_core(tmp_path) as core, open_unit(tmp_path, core, "b1") as unit:
        await unit.until_status(200)
        found = await crowd(unit, 7)
        assert await connections.kick(unit.settings.config, None, 0.0) == 7
        assert len(await gone(found, 7)) == 7


async def test_the_order_of_a_drain(tmp_path: Path) -> None:
    """A unit that stops reports that it drains, then disconnects its devices, then removes its entry."""
    async with open_core(tmp_path) as core, open_unit(tmp_path, core, "b1") as unit:
        client = await core.client()
        await unit.until_status(200)
        found = await crowd(unit, 5)
        unit.stop.set()
        await unit.until_status(503)
        status, said = await unit.health()
        assert (status, said["status"]) == (503, "draining")
        last = await last_report(client)
        assert last is not None
        assert last.state == "draining"
        assert abs(last.connections - 5) <= 1  # its own probe may just come or go
        await found[0].publish()  # who is connected is served
        await unit.device("late")  # and who comes, until the balancer knows
        await asyncio.gather(*(device.closed() for device in found))
        await unit.task
        assert await last_report(client) is None
        assert not (unit.settings.config.data / "broker.pid").exists()
        with socket.socket() as nobody:
            assert nobody.connect_ex(("127.0.0.1", unit.port)) != 0
        await client.close()


async def test_a_dead_server_is_started_again(tmp_path: Path) -> None:
    """A unit whose NATS server dies reports that it isn't healthy, and serves again by itself."""
    async with open_core(tmp_path) as core, open_unit(tmp_path, core, "b1") as unit:
        await unit.until_status(200)
        os.kill(unit.pid, signal.SIGKILL)
        await unit.until_status(503)
        await unit.until_status(200)
        assert await unit.metric("headcount_unit_restarts_total") == 1
        await (await unit.device("d")).publish()


async def test_a_unit_waits_for_the_core(tmp_path: Path) -> None:
    """A unit without its core isn't healthy and refuses all devices; it stops promptly."""
    async with open_core(tmp_path) as core:
        await core.kill(0)
        async with open_unit(tmp_path, core, "early") as early, open_unit(tmp_path, core, "b1") as unit:
            await unit.until_status(503)
            assert (await unit.health())[1]["reason"] == "it waits for the core"
            with pytest.raises(OSError, match="Connect call failed"):
                await unit.device("d")
            early.stop.set()
            await early.task
            await core.restart(0)
            await unit.until_status(200)


async def test_without_the_core_a_unit_is_not_healthy(tmp_path: Path) -> None:
    """`/healthz` reports a unit as unhealthy while the core is away, and as healthy afterwards."""
    async with open_core(tmp_path) as core, open_unit(tmp_path, core, "b1") as unit:
        await unit.until_status(200)
        await core.kill(0)
        await unit.until_status(503)
        assert (await unit.health())[1]["reason"] == "there is no link to the core"
        await core.restart(0)
        await unit.until_status(200)


async def test_a_slow_core_does_not_remove_units(tmp_path: Path) -> None:
    """While the core does not answer but its links are up, units stay healthy and devices stay connected."""
    async with (
        open_core(tmp_path) as core,
        open_unit(tmp_path, core, "b1") as unit,
        open_unit(tmp_path, core, "b2") as other,
    ):
        await unit.until_status(200)
        await other.until_status(200)
        device = await unit.device("d")
        await device.publish()
        os.kill(core.broker.pid or 0, signal.SIGSTOP)
        try:
            until_s = asyncio.get_running_loop().time() + 10  # two probes fail within 6 s
            while asyncio.get_running_loop().time() < until_s:
                assert [(await each.health())[0] for each in (unit, other)] == [200, 200]
                await asyncio.sleep(0.5)
        finally:
            os.kill(core.broker.pid or 0, signal.SIGCONT)
        await device.publish()
        assert await unit.metric("headcount_unit_restarts_total") == 0


async def test_a_stopped_server_is_not_healthy(tmp_path: Path) -> None:
    """A unit whose own NATS server does not answer is not healthy."""
    async with open_core(tmp_path) as core, open_unit(tmp_path, core, "b1") as unit:
        await unit.until_status(200)
        os.kill(unit.pid, signal.SIGSTOP)
        try:
            await unit.until_status(503)
        finally:
            os.kill(unit.pid, signal.SIGCONT)
        await unit.until_status(200)


async def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    """A unit whose health port is taken doesn't start; the error names the option that changes the port."""
    async with open_core(tmp_path) as core, open_unit(tmp_path, core, "b1") as unit:
        await unit.until_status(200)
        with pytest.raises(PortTakenError, match="--health-port"):
            await same_port(tmp_path, core, unit)


async def same_port(folder: Path, core: Core, unit: Unit) -> None:
    """Run a second unit with the health port of the first."""
    async with open_unit(folder, core, "b2", health_port=unit.settings.health_port) as second:
        await until(second.task.done)
        await second.task
