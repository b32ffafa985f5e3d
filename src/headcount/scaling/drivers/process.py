"""Units as processes of this machine, children of the scaler.

A unit that ends by itself is started again under its name, after a growing pause. A unit that is removed
receives SIGTERM and may take as long as a drain. All of them end with the scaler, however it ends.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from headcount.errors import ScalingError
from headcount.runtime.ports import free_ports
from headcount.runtime.processes import start_process
from headcount.runtime.supervisor import STOP_S, Supervised
from headcount.runtime.tasks import cancel_all
from headcount.scaling.drivers import FleetUnit, UnitRole, free_name

_log = logging.getLogger(__name__)

#: Beyond the time for draining, until a unit that has not ended receives SIGTERM again and is then killed.
GRACE_S = 10.0
#: When the scaler itself ends, no unit is left to drain to: brokers receive a second SIGTERM after this.
HURRY_S = 1.0
#: The ports that each broker needs on this machine.
_BROKER_PORTS = ("MQTT_PORT", "WS_PORT", "NATS_PORT", "HEALTH_PORT")


class ProcessDriver:
    """`headcount run broker` and `headcount run count` as children."""

    kind = "process"

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        drain_s: float,
        command: tuple[str, ...] = (sys.executable, "-m", "headcount", "run"),
        stop_s: float = STOP_S,
    ) -> None:
        """Run `<command> broker` and `<command> count`.

        Args:
            folder: for their logs, <name>.log.
            environment: the deployment's; name and ports are added for each unit.
            drain_s: how long a broker may take to send its devices away.
            command: before the role.
            stop_s: how long units may take to stop when the scaler ends.
        """
        self._folder = folder
        self._environment = environment
        self._patience_s = drain_s + GRACE_S, GRACE_S
        self._command = command
        self._stop_s = HURRY_S, stop_s
        self._units: dict[str, _ProcessUnit] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *error: object) -> None:
        await cancel_all(self._leaving)
        # a broker is not expected to send its devices away within the first second
        await asyncio.gather(
            *(unit.child.stop(self._stop_s, quiet_s=HURRY_S) for unit in self._units.values())
        )

    async def units(self, role: UnitRole) -> list[FleetUnit]:
        """The units of a role, also those that are being restarted."""
        return [
            FleetUnit(name, role, leaving=unit.leaving)
            for name, unit in self._units.items()
            if unit.role == role
        ]

    async def add(self, role: UnitRole) -> str:
        """Start one more."""
        name = free_name(role, set(self._units))
        environment, log = self._environment_of(role, name), self._folder / f"{name}.log"
        command = [*self._command, role]
        start = partial(start_process, name, command, environment=environment, output=log)
        child = Supervised(f"{name}, see {log}", start)
        try:
            await child.__aenter__()
        except OSError as error:
            raise ScalingError(f"start {name}", str(error), "Fix the cause named here") from error
        self._units[name] = _ProcessUnit(name, role, environment, child)
        return name

    async def remove(self, role: UnitRole, name: str) -> None:
        """Stop a unit, which may take as long as draining may; it is killed when it takes longer."""
        unit = self._units.get(name)
        if unit is None or unit.role != role or unit.leaving:
            return
        unit.leaving = True
        task = asyncio.create_task(self._leave(unit), name=f"remove {name}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave(self, unit: _ProcessUnit) -> None:
        await unit.child.stop(self._patience_s)
        del self._units[unit.name]
        _log.info("%s has ended", unit.name)

    def pids(self) -> dict[str, int]:
        """Process ids by name, of those that run now."""
        return {name: unit.child.pid for name, unit in self._units.items() if unit.child.pid}

    def environment(self, name: str) -> Mapping[str, str]:
        """Return the environment variables of a unit."""
        return self._units[name].environment

    def _environment_of(self, role: UnitRole, name: str) -> dict[str, str]:
        own = {"HEADCOUNT_NAME": name}
        if role == "broker":
            ports = free_ports(len(_BROKER_PORTS))
            own |= {f"HEADCOUNT_{key}": str(port) for key, port in zip(_BROKER_PORTS, ports, strict=True)}
        return {**self._environment, **own}


@dataclass(slots=True)
class _ProcessUnit:
    """One unit, over as many processes as it takes."""

    name: str
    role: UnitRole
    environment: Mapping[str, str]
    child: Supervised
    leaving: bool = False
