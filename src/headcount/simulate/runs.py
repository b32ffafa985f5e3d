"""Complete runs: find the running system, connect the fleet, send a crowd or a recording."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from headcount.errors import SettingsError, TraceError
from headcount.messages.topics import Kind
from headcount.simulate import CONNECTIONS
from headcount.simulate.clocks import trace_warnings
from headcount.simulate.crowd import Crowd
from headcount.simulate.fleet import BrokerAddress, SendStats, find_site, open_fleet
from headcount.simulate.pacing import (
    ReportProgress,
    check_speed,
    devices_of,
    schedule,
    send_crowd,
    send_schedule,
)
from headcount.simulate.traces import read_trace

#: The broker that `headcount up` starts on this machine.
LOCAL_BROKER = BrokerAddress()


@dataclass(frozen=True, slots=True)
class CrowdRun:
    """A simulated crowd; the defaults are those of `headcount simulate`."""

    broker: BrokerAddress = LOCAL_BROKER
    site_id: str | None = None  # None = the only one of the broker
    people: int = 1000
    vehicles: int = 300
    seed: int = 1
    start_s: float = 9.5 * 3600  # simulated seconds since midnight
    speed: float | None = None  # None = the system's
    duration_s: float | None = None  # real seconds; None = without end
    connections: int = CONNECTIONS
    qos: int = 0
    truth: Path | None = None


@dataclass(frozen=True, slots=True)
class TraceRun:
    """A recording sent as if live; the defaults are those of `headcount publish`."""

    file: Path
    kind: Kind | None = None  # of rows without a kind
    broker: BrokerAddress = LOCAL_BROKER
    site_id: str | None = None
    speed: float = 1.0
    loop: bool = False
    connections: int = CONNECTIONS
    qos: int = 0


@dataclass(frozen=True, slots=True)
class TraceRunResult:
    """The result of sending a recording."""

    sent: SendStats
    rows: int
    broken: int
    errors: tuple[TraceError, ...]  # of the first broken rows
    warnings: tuple[str, ...]
    system_speed: float  # if it differs from the run's speed, real movement is judged implausible or late


#: Maximum number of broken rows that are reported individually.
MAX_ERRORS = 10


async def run_crowd(run: CrowdRun, stop: asyncio.Event, report: ReportProgress) -> SendStats:
    """Simulate until the duration has passed or `stop` is set.

    Raises:
        BrokerError: there is no running system.
        SettingsError: the speed is not the system's, or the ground truth cannot be written.
    """
    running = await find_site(run.broker, run.site_id)
    speed = check_speed(run.speed, running)
    crowd = Crowd(running.site, run.people, run.vehicles, run.seed, run.start_s)
    fleet_of = open_fleet(
        run.broker, running.site.id, devices_of(crowd), connections=run.connections, qos=run.qos
    )
    with ExitStack() as files:
        truth_file = None
        if run.truth is not None:
            try:
                truth_file = files.enter_context(run.truth.open("w", encoding="utf-8"))
            except OSError as error:
                raise SettingsError("--truth", f"{run.truth}: {error.strerror or error}") from error
        async with fleet_of as fleet:
            await send_crowd(
                crowd,
                fleet,
                speed=speed,
                duration_s=run.duration_s,
                stop=stop,
                report=report,
                truth_file=truth_file,
            )
        return fleet.sent


async def run_trace(run: TraceRun, stop: asyncio.Event, report: ReportProgress) -> TraceRunResult:
    """Send a recording until its end, or until `stop` is set; broken rows are skipped and counted.

    Raises:
        TraceError: the file is not a recording, or all its rows are broken.
        BrokerError: there is no running system.
        SettingsError: the recording is of several devices, but an account is for one.
    """
    trace = read_trace(run.file, run.kind)
    broken = int((trace.problem > 0).sum())
    errors = tuple(error for error, _ in zip(trace.errors(), range(MAX_ERRORS), strict=False))
    plan = schedule(trace)
    if run.broker.user:
        if len(plan.devices) > 1:
            problem = f"the recording has {len(plan.devices)} devices, an account sends the positions of one"
            raise SettingsError("--user", problem)
        plan = replace(plan, devices=[(kind, run.broker.user) for kind, _ in plan.devices])
    running = await find_site(run.broker, run.site_id)
    async with open_fleet(
        run.broker, running.site.id, plan.devices, connections=run.connections, qos=run.qos
    ) as fleet:
        await send_schedule(plan, fleet, speed=run.speed, loop=run.loop, stop=stop, report=report)
    return TraceRunResult(fleet.sent, len(trace), broken, errors, tuple(trace_warnings(trace)), running.speed)
