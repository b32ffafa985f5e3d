"""No driver: somebody else starts and stops units, and may go by what the scaler says.

In Kubernetes that is a HorizontalPodAutoscaler that follows the metric `headcount_scale_wanted`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from headcount.errors import ScalingError
from headcount.scaling.drivers import Role, Unit


class NoDriver:
    """There are no units of ours."""

    kind = "none"

    async def __aenter__(self) -> Self:
        """Nothing to find."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to let go."""

    async def units(self, role: Role) -> list[Unit]:  # noqa: ARG002  # as all drivers
        """None of ours."""
        return []

    async def add(self, role: Role) -> str:
        """Can't."""
        raise ScalingError(f"add a {role}", "there is no driver", "Choose one with --driver")

    async def remove(self, role: Role, name: str) -> None:  # noqa: ARG002
        """Can't."""
        raise ScalingError(f"remove {name}", "there is no driver", "Choose one with --driver")

    async def cpu_seconds(self) -> dict[str, float]:
        """Not known."""
        return {}
