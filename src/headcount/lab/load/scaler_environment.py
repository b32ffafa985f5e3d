"""How the system is started that grows and shrinks, so that a day of minutes makes it do so."""

from __future__ import annotations

from headcount.scaling.scale_settings import variable
from headcount.settings import ENVIRONMENT

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
        "period_s": 1,
        "brokers_least": most if fixed else 1,
        "brokers_most": most,
        "workers_least": most if fixed else 1,
        "workers_most": most,
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
    ours = {f"{ENVIRONMENT}DRAIN_S": str(DRAIN_S)}
    return ours | {variable(name): str(value) for name, value in values.items()}
