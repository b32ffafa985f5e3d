"""Injects faults into a running system."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headcount.history.catalog import Catalog
from headcount.history.hours import HOUR_S, folder
from headcount.history.objects import FolderStore
from headcount.history.retention import KEEP_S
from headcount.history.segments import events_table
from headcount.lab.chaos import small_disk
from headcount.lab.chaos.chaos_system import ChaosSystem
from headcount.lab.chaos.fault_schedule import Fault
from headcount.messages.counts import Event

#: The site of events of yesterday, which no test counts.
YESTERDAY = "yesterday"


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
        case "pause" | "history pause":
            role = system.histories[fault.writer] if fault.writer else system.workers[fault.worker]
            role.send(signal.SIGSTOP)
            await asyncio.sleep(fault.lasts_s)
            role.send(signal.SIGCONT)
        case "broker kill":
            return None if system.kill_broker() else "the NATS server was not running"
        case "core restart":
            await system.core.stop()
            await system.core.start()
            await system.ready()
        case "history kill":
            system.histories[fault.writer].send(signal.SIGKILL)
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


def place_old_hours(data: Path, now_s: float) -> None:
    """Store events as if the system had run yesterday: one that has expired, and one that has not."""
    catalog = Catalog(FolderStore(folder(data)))
    times = (now_s - KEEP_S - 2 * HOUR_S, now_s - KEEP_S + 2 * HOUR_S)
    events = [Event("0" * 16, YESTERDAY, "site", "enter", "person", "0" * 16, t_s, "moved") for t_s in times]
    segments = [catalog.write("events", events_table([event]), (event.t, event.t)) for event in events]
    catalog.commit(lambda before: before.with_segments(*segments))


def old_hours(data: Path, now_s: float) -> tuple[bool, bool]:
    """Whether the event that has expired, and the one that has not, is stored."""
    found = Catalog(FolderStore(folder(data))).manifest().of("events", site=YESTERDAY)
    has_expired = [each.to_s < now_s - KEEP_S for each in found]
    return any(has_expired), not all(has_expired)
