"""Sending a crowd or a recording at the pace of the clock.

Time-lapse: at speed N, one second of movement takes 1/N real seconds. Fixes have real times, so the running
system must scale its limits and holds by the same speed (`at_speed`); `headcount up --speed N` does that, and
publishes the speed with its site.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

import numpy as np

from headcount.counting.fix_columns import F8, I8
from headcount.errors import SettingsError
from headcount.messages.fixes import encode_fix
from headcount.messages.topics import KINDS, Kind
from headcount.runtime.tasks import wait_any
from headcount.simulate.clocks import MAX_GAP_S, arrivals, wrong_clocks
from headcount.simulate.crowd import Crowd, Reports
from headcount.simulate.fleet import Fleet, SendStats, SystemInfo
from headcount.simulate.ground_truth import HEADER, GroundTruth
from headcount.simulate.traces import Trace

#: Real seconds between two steps of a crowd, and between two polls of a recording.
STEP_S = 0.2
#: Rows of a recording that are sent before other tasks get a turn.
ROWS_PER_TURN = 1000
#: Maximum number of buffered messages of a recording.
MAX_WAITING = 5000


@dataclass(frozen=True, slots=True)
class RunProgress:
    """The progress of a run, reported about five times a second."""

    sent: SendStats
    clock_s: float  # simulated seconds since midnight, or seconds of the recording since its start
    people: int  # on site by true position; of a recording: the rows so far
    vehicles: int  # on site; of a recording: the connections
    share: float | None  # of the run that is done; None = no end


ReportProgress = Callable[[RunProgress], None]


def check_speed(wanted: float | None, running: SystemInfo) -> float:
    """The system's speed; at another one, real movement would be judged implausible.

    Raises:
        SettingsError: `wanted` is a different speed.
    """
    if wanted is not None and abs(wanted - running.speed) > 1e-9 * running.speed:
        raise SettingsError(
            "--speed",
            f"the system of site {running.site.id} runs at speed {running.speed:g}, not {wanted:g}. "
            f"Omit --speed, or start the system with `headcount up --speed {wanted:g}`.",
        )
    return running.speed


def devices_of(crowd: Crowd) -> list[tuple[Kind, str]]:
    """Kind and id of each device of a crowd."""
    return [(KINDS[kind], name) for kind, name in zip(crowd.kind, crowd.names, strict=True)]


async def send_crowd(
    crowd: Crowd,
    fleet: Fleet,
    *,
    speed: float,
    duration_s: float | None,
    stop: asyncio.Event,
    report: ReportProgress,
    truth_file: TextIO | None = None,
) -> None:
    """Step a new crowd every `STEP_S` real seconds and send what is due, until the end or `stop`.

    `fleet` has the crowd's devices, in its order; `speed` is in simulated seconds per real second; `duration_s` in real
    seconds, None = without end. The ground truth is written to `truth_file` as CSV, with the times of the fixes.
    """
    truth = None if truth_file is None else GroundTruth(crowd)
    if truth_file is not None:
        truth_file.write(HEADER + "\n")
    people = int((crowd.kind == 0).sum())
    start_s, first_s, steps = time.time(), crowd.t_s, 0
    while not stop.is_set() and (duration_s is None or steps * STEP_S < duration_s):
        steps += 1
        t_s = start_s + steps * STEP_S
        await _until(t_s, stop)
        reports = crowd.step(first_s + steps * STEP_S * speed)
        _put(fleet, reports, t_s)
        if truth is not None and truth_file is not None:
            truth_file.writelines(row + "\n" for row in truth.rows(t_s, reports))
        there = crowd.on_site()
        done = None if duration_s is None else steps * STEP_S / duration_s
        report(RunProgress(fleet.sent, crowd.t_s, int(there[:people].sum()), int(there[people:].sum()), done))


def _put(fleet: Fleet, reports: Reports, t_s: float) -> None:
    t_s = round(t_s, 3)
    columns = (reports.lat_deg.round(7), reports.lon_deg.round(7), reports.acc_m, reports.vel_kmh.round(1))
    rows = zip(reports.device.tolist(), *(column.tolist() for column in columns), strict=True)
    for (device, lat, lon, acc, vel), cog in zip(rows, reports.cog_deg.round().tolist(), strict=True):
        fleet.put(device, encode_fix(t_s, lat, lon, acc=acc, vel=vel, cog=cog if vel else None))


async def _until(t_s: float, stop: asyncio.Event) -> None:
    """Wait for a time of the clock, or for `stop`; other tasks get a turn even if it is late."""
    await wait_any(stop, timeout_s=max(t_s - time.time(), 0.0))


@dataclass(frozen=True, slots=True)
class Schedule:
    """When each row of a recording is sent. Arrays have one entry for each valid row."""

    devices: list[tuple[Kind, str]]  # all senders
    device: I8  # index into `devices`
    due_s: F8  # seconds after the first row, in the recording's time; never decreases
    t_s: F8  # the fix's own time, on the same scale: may decrease, or be before the first row
    lat_deg: F8
    lon_deg: F8
    acc_m: F8
    vel_mps: F8

    def __len__(self) -> int:
        return len(self.due_s)


def schedule(trace: Trace) -> Schedule:
    """Schedule the rows of a recording in the order of the file.

    A row is due at its `received`, or at its `t` without one; a row with an earlier time than its predecessor
    is sent together with it, and so is a row with a wrong clock. A time of more than `MAX_GAP_S` without a row
    is skipped.
    """
    rows = np.flatnonzero(trace.problem == 0)
    code = trace.device[rows].astype(np.int64) * len(KINDS) + trace.kind[rows]
    used, device = np.unique(code, return_inverse=True)
    t_s, arrival_s = trace.t_s[rows], arrivals(trace)[rows]
    wrong = wrong_clocks(arrival_s)
    right = np.flatnonzero(~wrong | wrong.all())
    # the last row before, or the first one at all, whose clock is right
    before = right[np.maximum(np.searchsorted(right, np.arange(len(rows)), side="right") - 1, 0)]
    due_s = np.maximum.accumulate(arrival_s[before])
    gaps_s = np.diff(due_s, prepend=due_s[:1])
    skipped_s = np.cumsum(np.where(gaps_s > MAX_GAP_S, gaps_s, 0.0))
    origin_s = due_s[0] if len(rows) else 0.0
    return Schedule(
        devices=[(KINDS[c % len(KINDS)], trace.devices[c // len(KINDS)]) for c in used.tolist()],
        device=device,
        due_s=due_s - origin_s - skipped_s,
        t_s=t_s - origin_s - skipped_s,
        lat_deg=trace.lat_deg[rows],
        lon_deg=trace.lon_deg[rows],
        acc_m=trace.acc_m[rows],
        vel_mps=trace.vel_mps[rows],
    )


async def send_schedule(
    plan: Schedule, fleet: Fleet, *, speed: float, loop: bool, stop: asyncio.Event, report: ReportProgress
) -> None:
    """Send a recording as if live: a time t becomes `start + t / speed`, where start is now.

    Rows wait while `MAX_WAITING` messages are buffered: no row is dropped because of the speed. `fleet` has the
    devices of the schedule, in its order. With `loop`, start again at the end, without end.
    """
    while len(plan) and not stop.is_set():
        start_s, row = time.time(), 0
        while row < len(plan) and not stop.is_set():
            if fleet.sent.waiting > MAX_WAITING:
                await _until(time.time() + STEP_S / 10, stop)
                continue
            now_s = (time.time() - start_s) * speed
            upto = min(int(np.searchsorted(plan.due_s, now_s, side="right")), row + ROWS_PER_TURN)
            _put_rows(fleet, plan, row, upto, start_s, speed)
            row = max(row, upto)
            report(RunProgress(fleet.sent, now_s, row, len(fleet.connections), row / len(plan)))
            if row < len(plan):
                await _until(min(start_s + plan.due_s[row] / speed, time.time() + STEP_S), stop)
        if not loop:
            return


def _put_rows(fleet: Fleet, plan: Schedule, first: int, end: int, start_s: float, speed: float) -> None:
    times = (start_s + plan.t_s[first:end] / speed).round(3).tolist()
    for row, t_s in enumerate(times, start=first):
        acc_m, vel_mps = float(plan.acc_m[row]), float(plan.vel_mps[row])
        payload = encode_fix(
            t_s,
            float(plan.lat_deg[row]),
            float(plan.lon_deg[row]),
            acc=acc_m if acc_m > 0 else None,
            vel=None if np.isnan(vel_mps) else round(3.6 * vel_mps, 2),
        )
        fleet.put(int(plan.device[row]), payload)
