"""Settings with which the system scales within a day of minutes."""

from __future__ import annotations

from headcount.settings.deployment import Settings
from headcount.settings.model import settings_of

#: Unused share of the last unit at a peak, so that noise doesn't decide whether it is needed.
UNUSED_SHARE = 0.35
#: Time for a broker to disconnect its devices, short as the whole day.
DRAIN_S = 5
#: Share of the day that demand must be lower before units are removed.
DOWN_SHARE = 0.04


def arguments() -> list[str]:
    """Arguments of `headcount up`."""
    return ["--elastic"]


def scaler_environment(
    driver: str, units: int, devices: int, peak_per_s: float, seconds: float, *, fixed: bool
) -> dict[str, str]:
    """Environment variables: the capacity of units is such that a peak needs `units`.

    Args:
        driver: of the scaler.
        units: brokers, and workers, at a peak.
        devices: at a peak.
        peak_per_s: fixes a second at a peak.
        seconds: duration of the day.
        fixed: always run as many as a peak needs.
    """
    values: dict[str, object] = {
        "driver": driver,
        "interval_s": 1,
        "min_brokers": units if fixed else 1,
        "max_brokers": units,
        "min_workers": units if fixed else 1,
        "max_workers": units,
        "worker_capacity": peak_per_s / (units - UNUSED_SHARE),
        "broker_connections": int(devices / (units - UNUSED_SHARE)),
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
