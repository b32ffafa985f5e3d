"""What the processes of a system use: processor time and memory, out of /proc (Linux)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Process(NamedTuple):
    """A process at one moment."""

    pid: int
    parent: int
    started: int  # clock ticks since boot: with the pid it names a process
    cpu_s: float
    memory: int  # bytes, resident
    command: tuple[str, ...]


class Usage(NamedTuple):
    """What a part of the system uses."""

    processes: int
    cpu_s: float  # since the start, ended processes included
    memory: int  # bytes, now


@dataclass(slots=True)
class Meter:
    """Processor time by part; a process that has ended keeps what it last had."""

    _last: dict[tuple[int, int], tuple[str, float]] = field(default_factory=dict)
    _began: dict[tuple[int, int], float] = field(default_factory=dict)

    def read(self, roots: Iterable[int]) -> dict[str, Usage]:
        """Part → what it uses, of these processes and all below them."""
        found: dict[str, list[Process]] = {}
        for process, part in parts(all_processes(), roots):
            self._last[process.pid, process.started] = part, process.cpu_s
            found.setdefault(part, []).append(process)
        cpu_s: dict[str, float] = {}
        for part, seconds in self._last.values():
            cpu_s[part] = cpu_s.get(part, 0.0) + seconds
        return {
            part: Usage(
                len(found.get(part, ())),
                seconds,
                sum(process.memory for process in found.get(part, ())),
            )
            for part, seconds in cpu_s.items()
        }


def all_processes() -> list[Process]:
    """Every process of this machine that can be read."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found.append(_process(folder))
        except (OSError, ValueError, IndexError):
            continue  # it has just ended
    return found


def _process(folder: Path) -> Process:
    # "pid (name) state ppid …": a name may hold spaces and brackets
    words = (folder / "stat").read_text().rsplit(")", 1)[1].split()
    command = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    return Process(
        int(folder.name),
        int(words[1]),
        int(words[19]),
        (int(words[11]) + int(words[12])) / _TICKS,
        int(words[21]) * _PAGE,
        tuple(word for word in command if word),
    )


def parts(processes: Iterable[Process], roots: Iterable[int]) -> Iterator[tuple[Process, str]]:
    """Each process of the trees, with the part of the system to which it belongs.

    A program that a role starts (nats-server, haproxy) belongs to the role; that of `up` is the core.
    """
    below: dict[int, list[Process]] = {}
    known: dict[int, Process] = {}
    for process in processes:
        below.setdefault(process.parent, []).append(process)
        known[process.pid] = process
    waiting = [(known[root], "other") for root in roots if root in known]
    while waiting:
        process, part = waiting.pop()
        part = role_of(process.command) or part
        if part == "up" and process.command and Path(process.command[0]).name == "nats-server":
            part = "core"
        yield process, part
        waiting += [(child, part) for child in below.get(process.pid, ())]


def role_of(command: tuple[str, ...]) -> str | None:
    """The role that a command line runs, if it is one of ours."""
    if "headcount" not in " ".join(command[:4]):
        return None
    for word, after in itertools.pairwise(command):
        if word == "run":
            return after
    return "up" if "up" in command else None
