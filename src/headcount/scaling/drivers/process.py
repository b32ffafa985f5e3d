"""Units as processes of this machine, children of the scaler.

A child that exits unexpectedly is restarted under its name, after a growing pause. A child to be removed
gets SIGTERM and as long as a drain may take. All children end with the scaler, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Collection, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from headcount.errors import ScalingError
from headcount.runtime.ports import free_ports
from headcount.runtime.supervisor import FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S, dies_with_parent
from headcount.scaling.drivers import FleetUnit, UnitRole, free_name

_log = logging.getLogger(__name__)

#: Time in addition to draining after which a unit that does not exit is killed.
GRACE_S = 10.0
#: When the scaler itself stops there is no broker to drain to: a second SIGTERM follows after this.
HURRY_S = 1.0
END_S = 5.0
#: A log larger than this is renamed to <name>.log.1 when its unit starts.
MAX_LOG_BYTES = 16 << 20
#: The ports that each broker needs on this machine.
_BROKER_PORTS = ("MQTT_PORT", "WS_PORT", "NATS_PORT", "MONITOR_PORT", "HEALTH_PORT")


class ProcessDriver:
    """`headcount run broker` and `headcount run count` as children."""

    kind = "process"

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        drain_s: float,
        command: tuple[str, ...] = (sys.executable, "-m", "headcount", "run"),
    ) -> None:
        """Run `<command> broker` and `<command> count`.

        Args:
            folder: for their logs, <name>.log.
            environment: of the deployment; name and ports are added for each unit.
            drain_s: how long a broker may take to disconnect its devices.
            command: precedes the role.
        """
        self._folder = folder
        self._environment = environment
        self._drain_s = drain_s
        self._command = command
        self._children: dict[str, _UnitProcess] = {}
        self._used_cpu_s: dict[str, float] = {}  # of processes that have ended, by unit
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Start without children."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all children."""
        children = list(self._children.values())
        await asyncio.gather(*(child.end(HURRY_S, END_S) for child in children))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # one may just have been restarted
        await asyncio.gather(*(child.end(HURRY_S, END_S) for child in children))

    async def units(self, role: UnitRole) -> list[FleetUnit]:
        """The children of a role, including one that is waiting to be restarted."""
        return [
            FleetUnit(child.name, role, leaving=child.leaving)
            for child in self._children.values()
            if child.role == role
        ]

    async def add(self, role: UnitRole) -> str:
        """Start one more child."""
        name = free_name(role, set(self._children))
        child = _UnitProcess(
            name, role, [*self._command, role], self._environment_of(role, name), self._folder / f"{name}.log"
        )
        try:
            await child.start()
        except OSError as error:
            raise ScalingError(f"start {name}", str(error), "Fix the reported problem") from error
        self._children[name] = child
        self._spawn(self._keep(child), f"keep {name}")
        return name

    async def remove(self, role: UnitRole, name: str) -> None:
        """Send SIGTERM; kill the unit if it takes longer than draining may."""
        child = self._children.get(name)
        if child is None or child.role != role or child.leaving:
            return
        child.leaving = True
        self._spawn(child.end(self._drain_s + GRACE_S, GRACE_S), f"end {name}")

    async def cpu_seconds(self) -> dict[str, float]:
        """By name; an exited process counts as last measured."""
        table = await asyncio.to_thread(_processes)
        used = dict(self._used_cpu_s)
        for name, child in self._children.items():
            child.cpu_s = max(_of_tree(table, child.pid), child.cpu_s)
            used[name] = used.get(name, 0.0) + child.cpu_s
        return used

    def pids(self) -> dict[str, int]:
        """Process ids of the running children by name."""
        return {name: child.pid for name, child in self._children.items() if child.pid}

    def environment(self, name: str) -> Mapping[str, str]:
        """The environment of a unit."""
        return self._children[name].environment

    def _environment_of(self, role: UnitRole, name: str) -> dict[str, str]:
        own = {"HEADCOUNT_NAME": name}
        if role == "broker":
            ports = free_ports(len(_BROKER_PORTS))
            own |= {f"HEADCOUNT_{key}": str(port) for key, port in zip(_BROKER_PORTS, ports, strict=True)}
        return {**self._environment, **own}

    async def _keep(self, child: _UnitProcess) -> None:
        """Restart the child whenever it exits unexpectedly; drop it once it has left."""
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = time.monotonic()
            code = await child.wait()
            self._used_cpu_s[child.name] = self._used_cpu_s.get(child.name, 0.0) + child.cpu_s
            child.cpu_s = 0.0
            if child.leaving:
                self._children.pop(child.name, None)
                _log.info("%s stopped", child.name)
                return
            ran_s = time.monotonic() - began_s
            pause_s = FIRST_PAUSE_S if ran_s > STEADY_S else min(2 * pause_s, LONGEST_PAUSE_S)
            _log.warning(
                "%s exited with %d after %.1f s; restarting in %.1f s; see %s",
                child.name,
                code,
                ran_s,
                pause_s,
                child.log,
            )
            await asyncio.sleep(pause_s)
            if child.leaving:
                self._children.pop(child.name, None)
                return
            try:
                await child.start()
            except OSError as error:
                _log.error("cannot start %s: %s", child.name, error)
            if child.leaving:  # removed while no process was running
                self._spawn(child.end(self._drain_s + GRACE_S, GRACE_S), f"end {child.name}")

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _UnitProcess:
    """One unit, across restarts of its process."""

    def __init__(
        self, name: str, role: UnitRole, command: list[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.role = role
        self.log = log
        self.environment = environment
        self.leaving = False
        self.cpu_s = 0.0
        self._command = command
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the process in its own process group, with its output in the log."""
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > MAX_LOG_BYTES:
                self.log.replace(self.log.with_name(f"{self.log.name}.1"))
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=dies_with_parent(),
            )

    async def wait(self) -> int:
        """Wait for the exit code."""
        return -1 if self._process is None else await self._process.wait()

    async def end(self, first_s: float, then_s: float) -> None:
        """Send SIGTERM; again after `first_s`, which means immediately; kill after `then_s` more."""
        self.leaving = True
        for number, patience_s in ((signal.SIGTERM, first_s), (signal.SIGTERM, then_s), (signal.SIGKILL, 5)):
            process = self._process
            if process is None or process.returncode is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await process.wait()
                    return
            # in a hurry, a broker is not expected to have disconnected its devices
            level = logging.WARNING if patience_s > HURRY_S else logging.INFO
            _log.log(level, "%s did not stop within %.0f s", self.name, patience_s)


def _processes() -> dict[int, tuple[int, float]]:
    """Parent and CPU seconds of each process, from /proc: proc(5), fields 4, 14 to 17 of `stat`."""
    ticks = os.sysconf("SC_CLK_TCK")
    table: dict[int, tuple[int, float]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            _, _, rest = (folder / "stat").read_text().rpartition(")")
        except OSError:  # it exited meanwhile
            continue
        values = rest.split()
        table[int(folder.name)] = int(values[1]), sum(map(int, values[11:15])) / ticks
    return table


def _of_tree(table: dict[int, tuple[int, float]], pid: int | None) -> float:
    """CPU seconds of a process and its descendants."""
    wanted: Collection[int] = {pid} if pid in table else set()
    total = 0.0
    while wanted:
        total += sum(table[process][1] for process in wanted)
        wanted = [process for process, (parent, _) in table.items() if parent in wanted]
    return total
