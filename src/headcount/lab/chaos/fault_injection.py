"""Faults as they happen to a running system."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headcount.history.hours import HOUR_S, folder, hour_name
from headcount.history.retention import KEEP_S
from headcount.lab.chaos import small_disk
from headcount.lab.chaos.chaos_system import ChaosSystem
from headcount.lab.chaos.fault_schedule import Fault


@dataclass(frozen=True, slots=True)
class AppliedFault:
    """A fault, when it came and when it was over (Unix seconds); or why it was left out."""

    fault: Fault
    from_s: float
    to_s: float
    skipped: str = ""


async def apply_all(
    system: ChaosSystem, faults: Sequence[Fault], start_s: float, no_disk: str, tell: Callable[[Fault], None]
) -> list[AppliedFault]:
    """Let each fault happen at its time; returns when the last one is over.

    Args:
        system: what they happen to.
        faults: in order of time.
        start_s: the beginning of the run, Unix seconds.
        no_disk: why the disk can't be filled; "" where it can.
        tell: hears of each fault as it comes.
    """
    async with asyncio.TaskGroup() as group:
        tasks = []
        for fault in faults:
            await asyncio.sleep(max(0.0, start_s + fault.at_s - time.time()))
            tell(fault)
            skipped = no_disk if fault.kind == "full disk" else ""
            tasks.append(group.create_task(_apply(system, fault, skipped), name=fault.kind))
    return [task.result() for task in tasks]


async def _apply(system: ChaosSystem, fault: Fault, skipped: str) -> AppliedFault:
    from_s = time.time()
    if not skipped:
        skipped = await _happen(system, fault) or ""
    return AppliedFault(fault, from_s, time.time(), skipped)


async def _happen(system: ChaosSystem, fault: Fault) -> str | None:
    match fault.kind:
        case "join":
            await system.join(fault.worker)
        case "leave":
            await system.workers[fault.worker].stop()
        case "kill":
            await system.workers[fault.worker].kill()
        case "pause":
            await _pause(system, fault)
        case "broker kill":
            return None if system.kill_broker() else "the NATS server wasn't running"
        case "core restart":
            await system.broker.stop()
            await system.broker.start()
            await system.ready()
        case "history kill":
            system.history.send(signal.SIGKILL)
        case "full disk":
            await asyncio.to_thread(small_disk.fill, system.data)
            await asyncio.sleep(fault.lasts_s)
            small_disk.release(system.data)
        case "old hours":
            place_old_hours(system.data, time.time())
        case "duplicates":
            await asyncio.sleep(0)  # the load does it
    return None


async def _pause(system: ChaosSystem, fault: Fault) -> None:
    worker = system.workers[fault.worker]
    worker.send(signal.SIGSTOP)
    await asyncio.sleep(fault.lasts_s)
    worker.send(signal.SIGCONT)


def old_hours(data: Path, now_s: float) -> tuple[list[Path], list[Path]]:
    """Folders of hours that are over a day old and must go, and of hours that must stay."""
    gone_s, kept_s = now_s - KEEP_S - 2 * HOUR_S, now_s - KEEP_S + 2 * HOUR_S
    return tuple(  # type: ignore[return-value]  # two of them
        [folder(data) / kind / hour_name(t_s) for kind in ("fixes", "counts")] for t_s in (gone_s, kept_s)
    )


def place_old_hours(data: Path, now_s: float) -> None:
    """Put hours into the history as if the system had run yesterday; what is in them is nobody's."""
    for hours in old_hours(data, now_s):
        for hour in hours:
            hour.mkdir(parents=True, exist_ok=True)
            (hour / "yesterday").write_bytes(b"")
