"""How the system is started that grows and shrinks, so that a day of minutes makes it do so."""

from __future__ import annotations

from pathlib import Path


def arguments() -> list[str]:
    """For `headcount up`."""
    return []


def scaler_environment(
    driver: str, most: int, devices: int, peak_per_s: float, *, fixed: bool
) -> dict[str, str]:
    """Settings of the scaler as environment variables."""
    del driver, most, devices, peak_per_s, fixed
    return {}


def containers(driver: str, data: Path) -> list[int]:
    """The main processes of the units that don't run below `up`."""
    del driver, data
    return []
