"""The role `scale` with a real core, simulated workers and brokers, and a driver that records calls."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from headcount.broker.core import Broker
from headcount.errors import ScalingError
from headcount.messages.topics import INTERNAL
from headcount.messages.units import BrokerUnit, KickRequest, ScalingState
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.kv import KvBucket
from headcount.messaging.leader_election import LeaderElection
from headcount.messaging.streams import UNIT_BUCKET
from headcount.messaging.units import UNIT_TIMEOUT_S, Units
from headcount.scaling import scaler
from headcount.scaling.demand import FIXES
from headcount.scaling.drivers import FleetUnit, UnitRole, free_name
from headcount.scaling.forecast import SLOTS, LoadProfile, TimeSlot, add_slot, time_slot
from headcount.scaling.scaler import PROFILE_KEY, Deployment, run_with
from headcount.settings.scaling import ScaleSettings
from nats_fixture import internal_client, open_broker
from waiting import BUSY_S, until

FAST = ScaleSettings(
    interval_s=0.2,
    worker_capacity=1000.0,
    down_window_s=1.0,
    down_period_s=0.5,
    up_period_s=0.5,
    cooldown_s=0.5,
    max_workers=3,
    max_brokers=3,
    rebalance_for_s=0.5,
    latency_s=0.0,
)


@dataclass
class RecordingDriver:
    """Units that are names in a list."""

    kind: str = "recording"
    here: dict[UnitRole, list[str]] = field(default_factory=lambda: {"broker": [], "count": []})
    refuses: bool = False
    added: list[str] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        """Nothing to open."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """Nothing to close."""

    async def units(self, role: UnitRole) -> list[FleetUnit]:
        """The units in the list, unless another system starts and stops them."""
        return [] if self.kind == "none" else [FleetUnit(name, role) for name in self.here[role]]

    async def add(self, role: UnitRole) -> str:
        """One more in the list."""
        if self.refuses:
            raise ScalingError(f"start a {role}", "no room", "Make room")
        name = free_name(role, set(self.here[role]))
        self.here[role].append(name)
        self.added.append(name)
        return name

    async def remove(self, role: UnitRole, name: str) -> None:
        """One fewer."""
        self.here[role].remove(name)


@dataclass
class ScalerStage:
    """A core, and the units that report to the scaler."""

    broker: Broker
    client: Client
    units: Units
    driver: RecordingDriver
    rate: float = 100.0  # fixes per second, of all workers
    connections: dict[str, int] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)  # brokers that do not report
    states: list[ScalingState] = field(default_factory=list)
    _fixes: dict[str, float] = field(default_factory=dict)  # counted so far, by worker

    async def report(self) -> None:
        """Send the reports of workers and brokers five times a second."""
        before_s = time.monotonic()
        while True:
            passed_s, before_s = time.monotonic() - before_s, time.monotonic()
            with contextlib.suppress(Exception):
                workers = list(self.driver.here["count"])
                for name in workers:
                    self._fixes[name] = self._fixes.get(name, 0.0) + self.rate * passed_s / len(workers)
                    found = {"worker": name, "lag": 0, "cpu_s": 0.0}
                    found["verdicts"] = {"person": {"accepted": self._fixes[name]}}
                    await self.client.publish(f"metrics.count.{name}", json.dumps(found).encode())
                for name in [name for name in self.driver.here["broker"] if name not in self.silent]:
                    here = self.connections.get(name, 0)
                    unit = BrokerUnit(name, "1", "2", "h", 1, 2, 3, "up", here, 1.0, 0.0, 1.0)
                    await self.units.heartbeat(unit)
            await asyncio.sleep(0.2)

    async def receive(self, message: Msg) -> None:
        """Record the scaler's published state."""
        self.states.append(msgspec.json.decode(message.data, type=ScalingState))

    def deployment(self, name: str = "s") -> Deployment:
        """The deployment as the scaler gets it."""
        config = self.broker.config
        endpoint = Endpoint((("127.0.0.1", config.nats_port),), INTERNAL, config.password)
        return Deployment(name, endpoint, Path(), {}, 1.0)

    @contextlib.asynccontextmanager
    async def scaler(self, settings: ScaleSettings = FAST, name: str = "s") -> AsyncIterator[None]:
        """Run a scaler meanwhile."""
        stop = asyncio.Event()
        running = asyncio.create_task(run_with(settings, self.deployment(name), self.driver, stop))
        try:
            yield
        finally:
            stop.set()
            await running

    def count(self) -> int:
        """The number of workers."""
        return len(self.driver.here["count"])


@contextlib.asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[ScalerStage]:
    """A real core, with workers and brokers that report while the driver has them."""
    async with open_broker(folder) as broker:
        client = await internal_client(broker, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
        one = ScalerStage(broker, client, Units(Connection(client)), RecordingDriver())
        await client.subscribe("metrics.scale.*", cb=one.receive)
        reporting = asyncio.create_task(one.report())
        try:
            yield one
        finally:
            reporting.cancel()
            await client.close()


async def test_the_fleet_follows_the_load(tmp_path: Path) -> None:
    """A rate for two and a half workers starts three, a low one removes two, and the state has the reasons."""
    async with stage(tmp_path) as s, s.scaler():
        await until(lambda: s.count() == 1 and len(s.driver.here["broker"]) == 1)
        s.rate = 2500.0
        await until(lambda: s.count() == 3)
        s.rate = 100.0
        await until(lambda: s.count() == 1)
        found = await s.units.scaling()
        assert found is not None
        reasons = [d.reason for d in found[0].decisions if d.role == "count"]
        assert any("of 1000 each" in reason for reason in reasons)
        assert [d.after > d.before for d in found[0].decisions if d.role == "count"].count(False) >= 1
        assert found[0].signals["fixes_per_s"] is not None
        await until(lambda: {t.role: t.actual for t in s.states[-1].targets} == {"broker": 1, "count": 1})


async def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    """A dry run publishes the wanted number and starts nothing."""
    async with stage(tmp_path) as s:
        s.driver.here["count"] = ["count-1"]
        s.rate = 2500.0
        async with s.scaler(dataclasses.replace(FAST, dry_run=True)):
            await until(lambda: bool(s.states) and s.states[-1].targets[1].wanted == 3)
        assert s.driver.here == {"broker": [], "count": ["count-1"]}
        assert all(decision.dry for decision in s.states[-1].decisions)


async def test_one_of_two_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two scalers one leads; when it stops, the other leads immediately."""
    # On a busy machine a lease of 6 s can expire.
    monkeypatch.setattr(
        scaler, "LeaderElection", lambda bucket, name, _: LeaderElection(bucket, name, BUSY_S)
    )
    async with stage(tmp_path) as s, contextlib.AsyncExitStack() as both:
        first = await both.enter_async_context(contextlib.AsyncExitStack())
        await first.enter_async_context(s.scaler(name="first"))
        await until(lambda: bool(s.states))
        await both.enter_async_context(s.scaler(name="second"))
        published = len(s.states)
        await until(lambda: len(s.states) >= published + 5, "more states")
        assert {state.name.partition("-")[0] for state in s.states} == {"first"}
        await first.aclose()
        await until(lambda: s.states[-1].name.startswith("second"))


async def test_nothing_changes_while_the_core_is_away(tmp_path: Path) -> None:
    """A killed core changes no fleet; once it is back the scaler continues with its wanted numbers."""
    async with stage(tmp_path) as s, s.scaler():
        s.rate = 1500.0
        await until(lambda: s.count() == 2)
        before = {role: list(names) for role, names in s.driver.here.items()}
        published = len(s.states)
        assert s.broker.pid is not None
        os.kill(s.broker.pid, signal.SIGKILL)
        await until(lambda: len(s.states) > published + 3)
        assert s.driver.here == before


async def test_a_refusing_platform_is_tried_again(tmp_path: Path) -> None:
    """While units cannot be started the scaler publishes the wanted number, and starts them as soon as it can."""
    async with stage(tmp_path) as s:
        s.driver.refuses = True
        async with s.scaler():
            await until(lambda: len(s.states) > 2)
            assert s.states[-1].targets[1].wanted == 1
            assert s.states[-1].targets[1].actual == 0
            s.driver.refuses = False
            await until(lambda: s.count() == 1)


async def test_the_emptiest_broker_goes_and_full_ones_are_relieved(tmp_path: Path) -> None:
    """A full broker beside an empty one is asked to disconnect devices; the one with the fewest is removed first."""
    async with stage(tmp_path) as s:
        kicks: list[int] = []

        async def kick(message: Msg) -> None:
            devices = msgspec.json.decode(message.data, type=KickRequest).connections
            kicks.append(devices)
            s.connections["broker-1"] -= devices
            s.connections["broker-2"] += devices
            await message.respond(b'{"kicked":1}')

        await s.client.subscribe("unit.broker.broker-1.kick", cb=kick)
        s.driver.here["broker"] = ["broker-1", "broker-2"]
        s.connections = {"broker-1": 9900, "broker-2": 100}
        async with s.scaler():
            await until(lambda: len(kicks) >= 3)
            assert max(kicks) <= 9900 * FAST.rebalance_per_s * FAST.interval_s + 1
            s.connections = {"broker-1": 30, "broker-2": 200}
            await until(lambda: s.driver.here["broker"] == ["broker-2"])


async def test_the_forecast_comes_from_the_bucket(tmp_path: Path) -> None:
    """The stored profile of earlier days raises the floor."""
    async with stage(tmp_path) as s:
        now = time_slot(time.time())
        profile = LoadProfile()
        for slot in range(SLOTS):
            profile = add_slot(profile, TimeSlot("2020-01-01", now.working, slot), {FIXES: 2500.0})
        bucket = KvBucket(Connection(s.client), UNIT_BUCKET)
        await bucket.put(PROFILE_KEY, msgspec.json.encode(profile))
        async with s.scaler():
            await until(lambda: s.count() == 3)
        found = await s.units.scaling()
        assert found is not None
        assert any("forecast" in decision.reason for decision in found[0].decisions)


async def test_an_unresponsive_broker_is_replaced(tmp_path: Path) -> None:
    """A broker that runs but does not report is replaced by one that reports."""
    async with stage(tmp_path) as s:
        s.driver.here["broker"] = ["broker-7"]
        s.silent = {"broker-7"}
        async with s.scaler(dataclasses.replace(FAST, heartbeat_timeout_s=1.0)):
            await until(lambda: s.driver.here["broker"] == ["broker-1"])


async def test_an_outage_of_the_core_replaces_no_broker(tmp_path: Path) -> None:
    """An outage of the core is not held against brokers: the first steps after it replace none."""
    async with stage(tmp_path) as s, s.scaler(dataclasses.replace(FAST, heartbeat_timeout_s=8.0)):
        await until(lambda: bool(s.states) and len(s.driver.here["broker"]) == 1)
        began = list(s.driver.here["broker"])
        s.driver.added.clear()
        pid = s.broker.pid
        assert pid is not None
        s.silent = set(began)
        await asyncio.sleep(0.5)  # a report on its way
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(UNIT_TIMEOUT_S + 4.0)  # an outage longer than the timeouts
        published = len(s.states)
        os.kill(pid, signal.SIGCONT)
        await until(lambda: len(s.states) > published + 2)  # steps that found an old report of it
        s.silent = set()
        assert not s.driver.added
        assert s.driver.here["broker"] == began


async def test_without_a_driver_it_only_publishes(tmp_path: Path) -> None:
    """Without a driver the wanted number follows the load, and the actual number is the units that report."""
    async with stage(tmp_path) as s:
        s.driver.kind = "none"
        s.driver.here = {"broker": ["pod-x"], "count": ["pod-a", "pod-b"]}
        s.rate = 2500.0
        async with s.scaler():
            await until(lambda: bool(s.states) and s.states[-1].targets[1].wanted == 3)
            assert s.states[-1].targets[1].actual == 2
            s.driver.here["count"].append("pod-c")
            s.rate = 100.0
            await until(lambda: s.states[-1].targets[1].wanted == 1)
        assert s.driver.here["count"] == ["pod-a", "pod-b", "pod-c"]


async def test_fewer_units_than_wanted_scale_down_too(tmp_path: Path) -> None:
    """When another system starts fewer units than wanted, the wanted number still follows the load down."""
    async with stage(tmp_path) as s:
        s.driver.kind = "none"
        s.driver.here = {"broker": ["pod-x"], "count": ["pod-a", "pod-b"]}
        s.rate = 2500.0
        async with s.scaler():
            await until(lambda: bool(s.states) and s.states[-1].targets[1].wanted == 3)
            s.rate = 100.0
            await until(lambda: s.states[-1].targets[1].wanted == 1)
