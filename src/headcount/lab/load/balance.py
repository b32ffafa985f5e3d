"""`headcount bench balance`: how evenly HAProxy's algorithms distribute long-lived connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, get_args

from headcount.errors import HeadcountError, LogError
from headcount.lab.chaos.chaos_system import RestartedRole
from headcount.lab.load.device_connection import ConnectionCounters, DeviceConnection, LoadTarget
from headcount.lab.load.population import FixMessage
from headcount.lab.load.system_monitor import spread
from headcount.messages.topics import INTERNAL
from headcount.messaging.connection import Connection, Endpoint, connected
from headcount.messaging.units import Units
from headcount.proxy.balancer import Balancer as Proxy
from headcount.proxy.balancer import BalancerOptions, opened
from headcount.proxy.proxy_config import ProxyConfig
from headcount.roles.secret import secret_of
from headcount.runtime.ports import free_ports
from headcount.runtime.tasks import cancel_all
from headcount.scaling.drivers.none import NoDriver
from headcount.scaling.drivers.process import ProcessDriver
from headcount.scaling.scaler import Deployment, run_with
from headcount.settings.deployment import Settings
from headcount.settings.proxy import BalanceAlgorithm
from headcount.settings.scaling import ScaleSettings
from headcount.sites.files import bundled_site

ALGORITHMS: tuple[BalanceAlgorithm, ...] = get_args(BalanceAlgorithm)
DRAIN_S = 5
#: Time limit for a change, time for the balancer to notice it, and time limit for the rebalancer.
SETTLE_S, EVEN_S, REBALANCE_S = 60.0, 2.0, 120.0
#: The rebalancer begins at this ratio of the maximum to the mean, and has finished if the ratio is smaller and no
#: connection has moved for a time.
REBALANCE_START, QUIET_S = 1.15, 6.0
STEP_S = 0.25
#: Connections opened per second.
OPEN_PER_S = 400


class ConnectionSpread(NamedTuple):
    """The distribution of connections at one step."""

    algorithm: BalanceAlgorithm
    step: str
    connections: tuple[int, ...]  # per broker, ascending
    moved: int  # connections reopened since the previous step

    @property
    def ratio(self) -> float:
        """The maximum relative to the mean."""
        return spread(self.connections)[0]

    @property
    def variation(self) -> float:
        """The coefficient of variation."""
        return spread(self.connections)[1]


Show = Callable[[str], None]


async def measure(
    connections: int, seed: int, show: Show, algorithms: Sequence[BalanceAlgorithm] = ALGORITHMS
) -> list[ConnectionSpread]:
    """Measure algorithms: with two brokers, after a third one is added, and after one is killed.

    Args:
        connections: number of devices, each with its own address in 127.0.0.0/8.
        seed: of the devices' retry times and addresses.
        show: shows the progress.
        algorithms: of HAProxy.

    Raises:
        HeadcountError: a process does not start.
    """
    found: list[ConnectionSpread] = []
    for algorithm in algorithms:
        with tempfile.TemporaryDirectory(prefix="headcount-balance-", ignore_cleanup_errors=True) as name:
            async with _started(Path(name), algorithm) as setup:
                found += await _BalanceBench(setup, algorithm, connections, seed, show).run()
    return found


@dataclass(slots=True)
class _BalanceSetup:
    """A core, its brokers, and the balancer."""

    settings: Settings
    endpoint: Endpoint
    connection: Connection
    units: Units
    brokers: ProcessDriver
    port: int

    async def loads(self) -> dict[str, int]:
        """Number of connections of each running broker."""
        table = (await self.units.table()).alive()
        return {name: unit.connections for name, unit in table.items()}


@contextlib.asynccontextmanager
async def _started(folder: Path, algorithm: BalanceAlgorithm) -> AsyncIterator[_BalanceSetup]:
    settings = _settings(folder)
    endpoint = Endpoint(settings.core_addresses, INTERNAL, secret_of(settings))
    (public,) = free_ports(1)
    core = RestartedRole("core", "core", folder, settings.environment())
    await core.start()
    try:
        async with (
            _connection(endpoint) as connection,
            ProcessDriver(folder / "units", settings.environment(), DRAIN_S) as brokers,
        ):
            units = Units(connection)
            config = ProxyConfig(mqtt_port=public, ws_port=None, http_port=None, balance=algorithm)
            async with opened(BalancerOptions(config, folder / "proxy", units.table)) as proxy:
                stepping = asyncio.create_task(_step(proxy), name="proxy")
                try:
                    yield _BalanceSetup(settings, endpoint, connection, units, brokers, public)
                finally:
                    await cancel_all([stepping])
    finally:
        await core.stop()


def _settings(folder: Path) -> Settings:
    mqtt, ws, http, nats, leaf, cluster = free_ports(6)
    return Settings(
        site=bundled_site("ul"),
        data=folder / "data",
        mqtt_port=mqtt,
        ws_port=ws,
        http_port=http,
        nats_port=nats,
        leaf_port=leaf,
        cluster_port=cluster,
        partitions=4,
        core=f"127.0.0.1:{nats}",
        devices=False,
        open=True,
        drain_s=DRAIN_S,
    )


@contextlib.asynccontextmanager
async def _connection(endpoint: Endpoint) -> AsyncIterator[Connection]:
    """A connection to a core that may still be starting."""
    until_s = time.monotonic() + SETTLE_S
    async with contextlib.AsyncExitStack() as opened_:
        while True:
            try:
                connection = await opened_.enter_async_context(connected(endpoint, "headcount bench"))
                await Units(connection).table()
            except LogError:
                await opened_.aclose()
                if time.monotonic() > until_s:
                    raise
                await asyncio.sleep(0.2)
            else:
                break
        yield connection


async def _step(proxy: Proxy) -> None:
    while True:
        await proxy.step()
        await asyncio.sleep(STEP_S)


@dataclass(slots=True)
class _BalanceBench:
    """Runs the steps and measures the distribution after each."""

    setup: _BalanceSetup
    algorithm: BalanceAlgorithm
    connections: int
    seed: int
    show: Show
    counters: ConnectionCounters = field(default_factory=ConnectionCounters)
    devices: list[DeviceConnection] = field(default_factory=list)
    found: list[ConnectionSpread] = field(default_factory=list)
    opened: int = 0

    async def run(self) -> list[ConnectionSpread]:
        """Run all steps."""
        setup = self.setup
        first = [await setup.brokers.add("broker") for _ in range(2)]
        await self._wait_for_brokers(2)
        checking = asyncio.create_task(self._check(), name="check")
        try:
            await self._connect()
            await self._measure("2 brokers")
            await setup.brokers.add("broker")
            await self._wait_for_brokers(3)
            await self._measure("3rd broker added")
            await self._rebalance()
            await self._measure("3rd broker added, rebalanced")
            self._kill(first[0])
            await self._measure("one killed and restarted")
            await self._rebalance()
            await self._measure("one killed and restarted, rebalanced")
        finally:
            await cancel_all([checking])
            for device in self.devices:
                device.close()
        return self.found

    async def _wait_for_brokers(self, number: int) -> None:
        await self._until(lambda loads: len(loads) == number, f"{number} brokers")
        await asyncio.sleep(EVEN_S)  # the balancer has checked them twice

    async def _connect(self) -> None:
        """Open the connections one by one, each from its own address."""
        rng = random.Random(f"balance {self.seed}")
        broker = LoadTarget("127.0.0.1", self.setup.port)
        for number in range(self.connections):
            address = f"127.{rng.randrange(1, 255)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
            device = DeviceConnection(
                broker, f"balance-{number}", self.counters, _ignore, rng, address=address
            )
            self.devices.append(device)
            device.open()
            await asyncio.sleep(1 / OPEN_PER_S)
        await self._wait_for_connections()

    async def _wait_for_connections(self) -> None:
        await self._until(lambda loads: sum(loads.values()) == self.connections, "all connections")

    async def _rebalance(self) -> None:
        """Run the scaler's rebalancer until no connection moves."""
        setup = self.setup
        settings = ScaleSettings(
            driver="none",
            interval_s=1.0,
            rebalance_start=REBALANCE_START,
            rebalance_for_s=2.0,
            rebalance_per_s=0.1,
        )
        deployment = Deployment(
            "balance", setup.endpoint, setup.settings.data, setup.settings.environment(), DRAIN_S
        )
        stop = asyncio.Event()
        scaling = asyncio.create_task(run_with(settings, deployment, NoDriver(), stop), name="scale")
        until_s = time.monotonic() + REBALANCE_S
        quiet_s, opened_ = time.monotonic(), self.counters.opened
        while time.monotonic() < until_s and time.monotonic() - quiet_s < QUIET_S:
            await asyncio.sleep(0.5)
            uneven = spread((await setup.loads()).values())[0] >= REBALANCE_START
            if uneven or self.counters.opened != opened_:
                quiet_s, opened_ = time.monotonic(), self.counters.opened
        stop.set()
        await scaling

    def _kill(self, name: str) -> None:
        os.kill(self.setup.brokers.pids()[name], signal.SIGKILL)

    async def _measure(self, step: str) -> None:
        self.show(f"{self.algorithm}: {step}")
        await asyncio.sleep(EVEN_S)
        brokers = 2 if not self.found else 3
        await self._until(
            lambda loads: len(loads) == brokers and sum(loads.values()) == self.connections, step
        )
        loads = await self.setup.loads()
        moved, self.opened = self.counters.opened - self.opened, self.counters.opened
        self.found.append(
            ConnectionSpread(
                self.algorithm, step, tuple(sorted(loads.values())), moved if len(self.found) else 0
            )
        )

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(1)
            for device in self.devices:
                device.check(time.monotonic())

    async def _until(self, condition: Callable[[dict[str, int]], bool], what: str) -> None:
        loads: dict[str, int] = {}
        try:
            async with asyncio.timeout(SETTLE_S):
                while not condition(loads := await self.setup.loads()):  # noqa: ASYNC110
                    await asyncio.sleep(0.3)
        except TimeoutError:
            raise HeadcountError(
                f"{self.algorithm}, {what}: not within {SETTLE_S:.0f} s; connections: {loads}"
            ) from None


def _ignore(_: FixMessage) -> None:
    """These devices send nothing."""


def table(found: list[ConnectionSpread]) -> str:
    """The distributions as text."""
    lines = [f"{'algorithm':<12}{'step':<40}{'max/mean':>9}{'variation':>11}{'moved':>7}  connections"]
    lines += [
        f"{one.algorithm:<12}{one.step:<40}{one.ratio:>9.2f}{one.variation:>11.2f}{one.moved:>7}  "
        f"{' '.join(map(str, one.connections))}"
        for one in found
    ]
    return "\n".join(lines)
