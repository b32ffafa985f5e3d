"""`headcount bench day`: a simulated day in minutes, with an elastic fleet and with a fixed one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from headcount.errors import HeadcountError, LogError
from headcount.lab.load.compose_stack import ComposeStack
from headcount.lab.load.device_connection import ACK_CLASS_S, LoadTarget
from headcount.lab.load.latency_probes import LatencyProbes
from headcount.lab.load.population import bench_site, probe_position
from headcount.lab.load.scaler_environment import arguments, scaler_environment
from headcount.lab.load.sender_process import SenderOrders, SenderReport
from headcount.lab.load.system_monitor import SystemMonitor, SystemSample
from headcount.lab.load.up_system import UpSystem
from headcount.lab.load.verification import FixKey, Verification, read_fix_keys, verify_day
from headcount.messaging.connection import Connection
from headcount.messaging.units import Units
from headcount.runtime.processes import stop_with_parent
from headcount.sites.files import bundled_site

Driver = Literal["process", "docker"]
Fleet = Literal["elastic", "fixed"]

PARTITIONS = 16
#: Maximum number of devices of a sender process.
DEVICES_PER_PROCESS = 4000
#: Time before the day in which the first devices connect, and after it in which the last units are removed.
BEFORE_S, AFTER_S = 6.0, 15.0
#: Time limit for the first brokers.
READY_S = 60.0
#: Maximum length of a line of a sender process in bytes.
MAX_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class DayPlan:
    """The parameters of a day."""

    seed: int
    seconds: float
    devices: int
    every_s: float  # between two fixes of a device at a peak
    units: int  # brokers, and workers, that the peak needs
    driver: Driver = "process"
    keep: Path | None = None  # absolute: the system runs in a folder below it

    @property
    def peak_per_s(self) -> float:
        """Fixes per second at a peak."""
        return self.devices / self.every_s


@dataclass(slots=True)
class DayRun:
    """The results of a day with one fleet."""

    fleet: Fleet
    samples: list[SystemSample]
    delays: list[tuple[float, float]]  # (seconds since the start, publish → count in seconds)
    uncounted: int  # probes
    senders: list[SenderReport]  # the last report of each process
    verification: Verification
    decisions: list[dict[str, Any]]  # of the scaler

    @property
    def ack_percentiles_s(self) -> tuple[float, float]:
        """Publish → PUBACK, p50 and p99, with the precision of `ACK_CLASS_S`."""
        classes = [0] * max((len(report.ack_s) for report in self.senders), default=0)
        for report in self.senders:
            for index, number in enumerate(report.ack_s):
                classes[index] += number
        return _percentile(classes, 0.5), _percentile(classes, 0.99)


def _percentile(classes: list[int], share: float) -> float:
    target, total = share * sum(classes), 0
    for index, number in enumerate(classes):
        total += number
        if total >= target:
            return (index + 1) * ACK_CLASS_S
    return math.nan


#: Shows what happens now, and the share that is done.
Show = Callable[[str, float], None]


async def run_day(plan: DayPlan, fleet: Fleet, show: Show) -> DayRun:
    """Run the day once and verify the results.

    Args:
        plan: the load, and the number of units that a peak needs.
        fleet: `elastic` follows the load; `fixed` is always `plan.units` brokers and workers.
        show: shows the progress.

    Raises:
        HeadcountError: the system does not start, or does not settle at the end.
    """
    geojson = bench_site(json.loads(bundled_site("ul").read_text()))
    async with _folder(plan.keep, fleet) as folder:
        site = folder / "site.geojson"
        site.write_text(json.dumps(geojson))
        show(f"{fleet}: starting", 0.0)
        environment = scaler_environment(
            plan.driver, plan.units, plan.devices, plan.peak_per_s, plan.seconds, fixed=fleet == "fixed"
        )
        system: UpSystem | ComposeStack
        if plan.driver == "docker":
            system = ComposeStack(folder, site, PARTITIONS, environment)
        else:
            system = UpSystem(folder, site, PARTITIONS, arguments(), environment)
        async with system, system.connect() as connection:
            return await _DayBench(plan, fleet, system, connection, geojson, show).run()


@contextlib.asynccontextmanager
async def _folder(keep: Path | None, fleet: Fleet) -> AsyncIterator[Path]:
    if keep is not None:
        folder = keep / fleet
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=False)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="headcount-bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@dataclass(slots=True)
class _DayBench:
    """The stages of a day."""

    plan: DayPlan
    fleet: Fleet
    system: UpSystem | ComposeStack
    connection: Connection
    geojson: dict[str, Any]
    show: Show
    start_s: float = 0.0
    acknowledged_probes: set[FixKey] = field(default_factory=set)
    reports: dict[int, SenderReport] = field(default_factory=dict)

    async def run(self) -> DayRun:
        plan, system = self.plan, self.system
        hold_s = self.geojson["features"][0]["properties"]["hold_s"]["person"]
        site = self.geojson["features"][0]["properties"]["id"]
        probes = LatencyProbes(
            LoadTarget("127.0.0.1", system.mqtt_port),
            site,
            probe_position(self.geojson),
            len(self.geojson["features"]) - 1,
            PARTITIONS,
            hold_s,
            plan.seed,
            lambda message: self.acknowledged_probes.add((message.kind, message.device, message.t_ms)),
        )
        await self._wait_for_brokers()
        await probes.observe(self.connection)
        self.start_s = time.time() + BEFORE_S
        end_s = self.start_s + plan.seconds
        monitor = SystemMonitor(system.roots)
        files = [
            system.folder / f"acknowledged-{part}.txt"
            for part in range(math.ceil(plan.devices / DEVICES_PER_PROCESS))
        ]
        async with asyncio.TaskGroup() as group:
            group.create_task(monitor.run(self.connection, self.start_s, end_s + AFTER_S), name="monitor")
            group.create_task(probes.run(self.start_s, end_s), name="probes")
            group.create_task(self._show_load(monitor), name="show")
            for part, file in enumerate(files):
                group.create_task(self._send(part, file, len(files), monitor), name=f"senders {part}")
        _, scaling = await system.get("/v1/system/scaling")
        acknowledged = read_fix_keys(files) | self.acknowledged_probes
        verification = await verify_day(
            system,
            self.connection,
            probes.observed,
            self.geojson,
            acknowledged,
            lambda text: self.show(f"{self.fleet}: {text}", 1.0),
        )
        delays = [(sent - self.start_s, delay) for sent, delay in probes.delays()]
        decisions = scaling.get("decisions", []) if isinstance(scaling, dict) else []
        senders = [self.reports[part] for part in sorted(self.reports)]
        return DayRun(
            self.fleet, monitor.samples, delays, probes.uncounted(), senders, verification, decisions
        )

    async def _wait_for_brokers(self) -> None:
        """Wait for the first brokers, or for all of a fixed fleet."""
        wanted = self.plan.units if self.fleet == "fixed" else 1
        units = Units(self.connection)
        try:
            async with asyncio.timeout(READY_S):
                while True:
                    with contextlib.suppress(LogError):
                        if len((await units.table()).alive()) >= wanted:
                            return
                    await asyncio.sleep(0.3)
        except TimeoutError:
            raise HeadcountError(f"{wanted} brokers: not running within {READY_S:.0f} s") from None

    async def _show_load(self, monitor: SystemMonitor) -> None:
        while (passed_s := time.time() - self.start_s) < self.plan.seconds:
            if monitor.samples:
                now = monitor.samples[-1]
                text = f"{now.connected} devices, {len(now.brokers)} brokers, {now.workers} workers"
                self.show(f"{self.fleet}: {text}", max(0.0, passed_s / self.plan.seconds))
            await asyncio.sleep(0.5)

    async def _send(self, part: int, file: Path, processes: int, monitor: SystemMonitor) -> None:
        plan = self.plan
        orders = SenderOrders(
            self.geojson,
            "127.0.0.1",
            self.system.mqtt_port,
            plan.devices,
            plan.seed,
            part,
            processes,
            self.start_s,
            plan.seconds,
            plan.every_s,
            str(file),
        )
        errors = file.with_suffix(".log")
        with errors.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "headcount.lab.load.sender_process",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=MAX_LINE,
                preexec_fn=stop_with_parent(),
            )
        if process.stdin is None or process.stdout is None:
            raise HeadcountError("a sender process has no pipes")
        try:
            process.stdin.write(msgspec.json.encode(orders) + b"\n")
            await process.stdin.drain()
            while line := await process.stdout.readline():
                report = msgspec.json.decode(line, type=SenderReport)
                self.reports[part] = report
                monitor.senders[part] = report.wanted, report.connected, report.created
            code = await process.wait()
            monitor.senders[part] = 0, 0, self.reports[part].created if part in self.reports else 0
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                await process.wait()
        if code or part not in self.reports or not self.reports[part].done:
            raise HeadcountError(f"a sender process exited with {code}: {errors.read_text()[-1000:]}")
