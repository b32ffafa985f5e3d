"""No driver: another system starts and stops units, and may follow the scaler's published numbers.

In Kubernetes this is a HorizontalPodAutoscaler that follows the metric `headcount_scaling_desired_units`.
"""

from __future__ import annotations

from typing import Self

from headcount.errors import ScalingError
from headcount.scaling.drivers import FleetUnit, UnitRole


class NoDriver:
    """A driver without units."""

    kind = "none"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def units(self, role: UnitRole) -> list[FleetUnit]:  # noqa: ARG002  # as all drivers
        """Return no units."""
        return []

    async def add(self, role: UnitRole) -> str:
        """Refuse: there is no platform."""
        raise ScalingError(f"add a {role}", "there is no driver", "Choose one with --driver")

    async def remove(self, role: UnitRole, name: str) -> None:  # noqa: ARG002
        """Refuse: there is no platform."""
        raise ScalingError(f"remove {name}", "there is no driver", "Choose one with --driver")
