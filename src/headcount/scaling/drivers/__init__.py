"""What starts and stops the units of a fleet: one file per platform."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

Role = Literal["broker", "count"]
ROLES: tuple[Role, Role] = ("broker", "count")


@dataclass(frozen=True, slots=True)
class Unit:
    """One broker or worker. `leaving` has been told to end and may take its time."""

    name: str
    role: Role
    leaving: bool = False

    @property
    def number(self) -> int:
        """The number at the end of its name; a larger one came later, mostly."""
        return int(self.name.rpartition("-")[2])


class Driver(Protocol):
    """Starts and stops units.

    Calls return soon: what takes long goes on by itself. A unit that dies is replaced under its name,
    or is missing from `units` from then on. All calls raise ScalingError when the platform refuses.
    """

    kind: str

    async def __aenter__(self) -> Self:
        """Find what there is."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go."""
        ...

    async def units(self, role: Role) -> list[Unit]:
        """The units of a role, those that are leaving among them."""
        ...

    async def add(self, role: Role) -> str:
        """Start one more; its name."""
        ...

    async def remove(self, role: Role, name: str) -> None:
        """Tell one to end in order: a broker drains, a worker gives its partitions back."""
        ...

    async def cpu_seconds(self) -> dict[str, float]:
        """CPU seconds by name, of all units that ever were, as far as they were seen."""
        ...


def free_name(role: Role, taken: set[str]) -> str:
    """`broker-1` or the next that isn't taken."""
    number = 1
    while f"{role}-{number}" in taken:
        number += 1
    return f"{role}-{number}"
