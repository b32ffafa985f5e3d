"""Samples the system each second: load, results and resources."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from headcount.errors import LogError
from headcount.lab.load.process_usage import RoleUsage, UsageMeter
from headcount.messaging.connection import Connection, Message
from headcount.messaging.units import Units

POLL_INTERVAL_S = 1.0
#: A worker without statistics for this long counts as ended.
WORKER_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class SystemSample:
    """The state of the system in one second."""

    at_s: float  # since the start of the day
    wanted: int  # devices that should be connected
    connected: int
    offered: int  # fixes created by the senders
    counted: int  # fixes with a verdict
    lag: int  # messages that wait in the log
    workers: int
    brokers: dict[str, int]  # name → connections
    draining: frozenset[str]
    wanted_workers: int | None  # target of the scaler
    wanted_brokers: int | None
    usage: dict[str, RoleUsage]


def spread(connections: Iterable[int]) -> tuple[float, float]:
    """The maximum relative to the mean, and the coefficient of variation; (1, 0) if all are 0."""
    values = list(connections)
    mean = statistics.fmean(values) if values else 0.0
    if not mean:
        return 1.0, 0.0
    return max(values) / mean, statistics.pstdev(values) / mean


@dataclass(slots=True)
class _WorkerReport:
    received_s: float
    fixes: int
    lag: int


@dataclass(slots=True)
class SystemMonitor:
    """Takes the samples. `senders` is set by the caller; the statistics of workers are received over NATS."""

    roots: Callable[[], list[int]]  # returns the processes of the system, without descendants
    samples: list[SystemSample] = field(default_factory=list)
    senders: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # wanted, connected, created
    _workers: dict[str, _WorkerReport] = field(default_factory=dict)
    _meter: UsageMeter = field(default_factory=UsageMeter)

    async def run(self, connection: Connection, start_s: float, until_s: float) -> None:
        """Take a sample each second until `until_s` (Unix seconds)."""
        await connection.subscribe("metrics.count.*", self._receive)
        units = Units(connection)
        next_s = start_s
        while time.time() < until_s:
            await asyncio.sleep(max(0.0, next_s - time.time()))
            next_s = max(next_s + POLL_INTERVAL_S, time.time())
            self.samples.append(await self._sample(units, time.time() - start_s))

    async def _receive(self, message: Message) -> None:
        report = json.loads(message.data)
        fixes = sum(sum(verdicts.values()) for verdicts in report["verdicts"].values())
        self._workers[str(report["worker"])] = _WorkerReport(time.monotonic(), fixes, int(report["lag"]))

    async def _sample(self, units: Units, at_s: float) -> SystemSample:
        now_s = time.monotonic()
        alive = [worker for worker in self._workers.values() if now_s - worker.received_s <= WORKER_TIMEOUT_S]
        brokers: dict[str, int] = {}
        draining: set[str] = set()
        targets: dict[str, int] = {}
        with contextlib.suppress(LogError):
            table = (await units.table()).alive()
            brokers = {name: unit.connections for name, unit in table.items()}
            draining = {name for name, unit in table.items() if unit.state == "draining"}
            scaling = await units.scaling()
            targets = {target.role: target.wanted for target in scaling[0].targets} if scaling else {}
        usage = await asyncio.to_thread(self._meter.read, self.roots())
        wanted, connected, created = (
            (sum(column) for column in zip(*self.senders.values(), strict=True))
            if self.senders
            else (0, 0, 0)
        )
        return SystemSample(
            at_s,
            wanted,
            connected,
            created,
            sum(worker.fixes for worker in self._workers.values()),
            sum(worker.lag for worker in alive),
            len(alive),
            brokers,
            frozenset(draining),
            targets.get("count"),
            targets.get("broker"),
            usage,
        )
