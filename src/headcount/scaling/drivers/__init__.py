"""Drivers start and stop the units of a fleet: one file per platform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, Self

UnitRole = Literal["broker", "count"]
UNIT_ROLES: tuple[UnitRole, UnitRole] = ("broker", "count")


@dataclass(frozen=True, slots=True)
class FleetUnit:
    """One broker or worker; a `leaving` one was asked to stop and may take its time."""

    name: str
    role: UnitRole
    leaving: bool = False

    @property
    def number(self) -> int:
        """The number at the end of its name; a larger one mostly started later."""
        return int(self.name.rpartition("-")[2])


class Driver(Protocol):
    """Starts and stops units.

    Calls return soon: what takes long continues in the background. A unit that dies is replaced under its
    name, or is missing from `units` from then on. All calls raise ScalingError when the platform refuses.
    """

    kind: str

    async def __aenter__(self) -> Self:
        """Connect to the platform."""
        ...

    async def __aexit__(self, *error: object) -> None:
        """Disconnect from the platform."""
        ...

    async def units(self, role: UnitRole) -> list[FleetUnit]:
        """The units of a role, leaving ones included."""
        ...

    async def add(self, role: UnitRole) -> str:
        """Start one more unit; returns its name."""
        ...

    async def remove(self, role: UnitRole, name: str) -> None:
        """Ask a unit to stop gracefully: a broker drains, a worker releases its partitions."""
        ...


def free_name(role: UnitRole, taken: set[str]) -> str:
    """The first of `broker-1`, `broker-2`, … that is not taken."""
    number = 1
    while f"{role}-{number}" in taken:
        number += 1
    return f"{role}-{number}"
