"""CPU time and memory of a system's processes by part, from /proc (Linux)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from headcount.runtime.proc import ProcessStat, all_processes, command_line


class RoleUsage(NamedTuple):
    """CPU time and memory of a part of the system."""

    processes: int
    cpu_s: float  # since the start, including ended processes
    memory: int  # bytes, now


@dataclass(slots=True)
class UsageMeter:
    """Measures CPU time by part; an ended process counts as last measured."""

    _last: dict[tuple[int, int], tuple[str, float]] = field(default_factory=dict)
    _began: dict[tuple[int, int], float] = field(default_factory=dict)

    def read(self, roots: Iterable[int]) -> dict[str, RoleUsage]:
        """Part → usage of these processes and their descendants."""
        found: dict[str, list[ProcessStat]] = {}
        for process, part in parts(all_processes(), roots):
            self._last[process.pid, process.started] = part, process.cpu_s
            found.setdefault(part, []).append(process)
        cpu_s: dict[str, float] = {}
        for part, seconds in self._last.values():
            cpu_s[part] = cpu_s.get(part, 0.0) + seconds
        return {
            part: RoleUsage(
                len(found.get(part, ())),
                seconds,
                sum(process.memory for process in found.get(part, ())),
            )
            for part, seconds in cpu_s.items()
        }


def parts(
    known: Mapping[int, ProcessStat],
    roots: Iterable[int],
    command_of: Callable[[int], Sequence[str]] = command_line,
) -> Iterator[tuple[ProcessStat, str]]:
    """Each process of the trees with the part of the system that it belongs to.

    A program that a role starts (nats-server, haproxy) belongs to the role; that of `up` is the core.
    """
    below: dict[int, list[ProcessStat]] = {}
    for process in known.values():
        below.setdefault(process.parent, []).append(process)
    waiting = [(known[root], "other") for root in roots if root in known]
    while waiting:
        process, part = waiting.pop()
        command = [word for word in command_of(process.pid) if word]
        part = role_of(command) or part
        if part == "up" and command and Path(command[0]).name == "nats-server":
            part = "core"
        yield process, part
        waiting += [(child, part) for child in below.get(process.pid, ())]


def role_of(command: Sequence[str]) -> str | None:
    """The role of a command line; None if it isn't one of headcount."""
    if "headcount" not in " ".join(command[:4]):
        return None
    for word, after in itertools.pairwise(command):
        if word == "run":
            return after
    return "up" if "up" in command else None
