"""How the system is started that grows and shrinks, so that a day of minutes makes it do so."""

from __future__ import annotations

from headcount.settings.deployment import Settings
from headcount.settings.model import settings_of

#: At a peak the last unit is needed for its larger part: noise doesn't decide whether it comes.
ROOM = 0.35
#: Seconds that a broker has to send its devices away; in a day of minutes all is faster.
DRAIN_S = 5
#: Of the length of the day: how long a need must have been lower before units go.
DOWN_SHARE = 0.04


def arguments() -> list[str]:
    """For `headcount up`."""
    return ["--elastic"]


def scaler_environment(
    driver: str, most: int, devices: int, peak_per_s: float, seconds: float, *, fixed: bool
) -> dict[str, str]:
    """Settings as environment variables: units that are full when a peak needs `most` of them.

    Args:
        driver: of the scaler.
        most: brokers, and workers, at a peak.
        devices: at a peak.
        peak_per_s: fixes a second at a peak.
        seconds: how long the day lasts.
        fixed: as many as a peak needs, all day long.
    """
    values: dict[str, object] = {
        "driver": driver,
        "interval_s": 1,
        "min_brokers": most if fixed else 1,
        "max_brokers": most,
        "min_workers": most if fixed else 1,
        "max_workers": most,
        "worker_capacity": peak_per_s / (most - ROOM),
        "broker_connections": int(devices / (most - ROOM)),
        "up_step": 1,
        "up_period_s": max(2.0, 0.01 * seconds),
        "down_window_s": max(4.0, DOWN_SHARE * seconds),
        "down_period_s": max(4.0, 0.02 * seconds),
        "cooldown_s": max(4.0, 0.02 * seconds),
        "forecast": "false",
        "rebalance_for_s": 3,
        "rebalance_start": 1.15,
        "rebalance_stop": 1.05,
        "rebalance_per_s": 0.08,
    }
    known = settings_of(Settings)
    ours = {known["drain_s"].variable: str(DRAIN_S)}
    return ours | {known[f"scale.{name}"].variable: str(value) for name, value in values.items()}
