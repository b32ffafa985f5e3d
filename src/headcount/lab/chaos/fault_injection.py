"""Injects faults into a running system."""

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
    """A fault with its start and end (Unix seconds), or the reason why it was skipped."""

    fault: Fault
    from_s: float
    to_s: float
    skipped: str = ""


async def apply_all(
    system: ChaosSystem, faults: Sequence[Fault], start_s: float, no_disk: str, show: Callable[[Fault], None]
) -> list[AppliedFault]:
    """Inject each fault at its time; return when the last one is over.

    Args:
        system: the target.
        faults: in order of time.
        start_s: start of the run, Unix seconds.
        no_disk: why the disk can't be filled; "" if it can.
        show: is called with each fault when it starts.
    """
    async with asyncio.TaskGroup() as group:
        tasks = []
        for fault in faults:
            await asyncio.sleep(max(0.0, start_s + fault.at_s - time.time()))
            show(fault)
            skipped = no_disk if fault.kind == "full disk" else ""
            tasks.append(group.create_task(_apply(system, fault, skipped), name=fault.kind))
    return [task.result() for task in tasks]


async def _apply(system: ChaosSystem, fault: Fault, skipped: str) -> AppliedFault:
    from_s = time.time()
    if not skipped:
        skipped = await _inject(system, fault) or ""
    return AppliedFault(fault, from_s, time.time(), skipped)


async def _inject(system: ChaosSystem, fault: Fault) -> str | None:
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
            return None if system.kill_broker() else "the NATS server was not running"
        case "core restart":
            await system.core.stop()
            await system.core.start()
            await system.ready()
        case "history kill":
            system.history.send(signal.SIGKILL)
        case "full disk":
            await asyncio.to_thread(small_disk.fill, system.data)
            await asyncio.sleep(fault.lasts_s)
            small_disk.release(system.data)
        case "old hours":
            place_old_hours(system.data, time.time())
        case "site change" | "site added" | "site removed":
            return await system.change_sites(fault.kind)
        case "duplicates":
            await asyncio.sleep(0)  # the load contains them
    return None


async def _pause(system: ChaosSystem, fault: Fault) -> None:
    worker = system.workers[fault.worker]
    worker.send(signal.SIGSTOP)
    await asyncio.sleep(fault.lasts_s)
    worker.send(signal.SIGCONT)


def old_hours(data: Path, now_s: float) -> tuple[list[Path], list[Path]]:
    """Folders of hours that retention must delete, and of hours that it must keep."""
    expired_s, kept_s = now_s - KEEP_S - 2 * HOUR_S, now_s - KEEP_S + 2 * HOUR_S
    return tuple(  # type: ignore[return-value]  # two of them
        [folder(data) / kind / hour_name(t_s) for kind in ("fixes", "counts")] for t_s in (expired_s, kept_s)
    )


def place_old_hours(data: Path, now_s: float) -> None:
    """Create hours of the history as if the system had run yesterday; they contain no device's data."""
    for hours in old_hours(data, now_s):
        for hour in hours:
            hour.mkdir(parents=True, exist_ok=True)
            (hour / "yesterday").write_bytes(b"")
