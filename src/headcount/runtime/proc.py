"""Processes of this machine as /proc describes them; where there is no /proc, nothing is found."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from headcount.runtime.processes import run_briefly

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessStat(NamedTuple):
    """A process at one moment."""

    pid: int
    parent: int
    started: int  # clock ticks since boot: names a process together with the pid
    cpu_s: float
    children_cpu_s: float  # of children that have ended
    memory: int  # bytes, resident
    zombie: bool


def process_stat(pid: int) -> ProcessStat | None:
    """Fields of /proc/<pid>/stat, see proc(5); None if there is no such process."""
    try:
        # "pid (name) state ppid …": a name may contain spaces and brackets
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user, system, children_user, children_system = (int(field) / _TICKS_PER_S for field in fields[11:15])
    except (OSError, ValueError):
        return None
    return ProcessStat(
        pid=pid,
        parent=int(fields[1]),
        started=int(fields[19]),
        cpu_s=user + system,
        children_cpu_s=children_user + children_system,
        memory=int(fields[21]) * _PAGE_BYTES,
        zombie=fields[0] == "Z",
    )


def all_processes() -> dict[int, ProcessStat]:
    """Every process of this machine by its id."""
    found = (process_stat(int(folder.name)) for folder in Path("/proc").glob("[0-9]*"))
    return {stat.pid: stat for stat in found if stat is not None}


def cpu_s_of(pid: int) -> float:
    """Processor time of another process so far, in seconds; 0 where it is not known."""
    stat = process_stat(pid)
    return 0.0 if stat is None else stat.cpu_s


def command_line(pid: int) -> list[str]:
    """A process's arguments; empty when there is no such process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    return run_briefly(["ps", "-ww", "-o", "args=", "-p", str(pid)]).split()  # systems without /proc


def end_process(pid: int, timeout_s: float) -> None:
    """End a process that is not our child: SIGTERM, and SIGKILL after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while time.monotonic() < deadline_s:
            stat = process_stat(pid)
            if stat is not None and stat.zombie:
                return
            time.sleep(0.02)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)
