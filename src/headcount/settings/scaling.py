"""The section `scale`: how the role `scale` adds and removes brokers and counting workers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from headcount.errors import SettingsError
from headcount.settings.formats import MOUNTS, NAME
from headcount.settings.model import check_all, setting

DriverName = Literal["process", "docker", "none"]

FLEET = "Scaling: units"
CAPACITY = "Scaling: capacity of a unit"
PACE = "Scaling: pace"
FORECAST = "Scaling: forecast"
REBALANCE = "Scaling: rebalancing"
DOCKER = "Scaling: Docker"
SCALE_GROUPS = (FLEET, CAPACITY, PACE, FORECAST, REBALANCE, DOCKER)

_units = partial(setting, group=FLEET)
_capacity = partial(setting, group=CAPACITY)
_pace = partial(setting, group=PACE)
_forecast = partial(setting, group=FORECAST)
_rebalance = partial(setting, group=REBALANCE)
_docker = partial(setting, group=DOCKER)


@dataclass(frozen=True, slots=True)
class ScaleSettings:
    """Everything that the scaler decides by. A capacity is the load that one unit should carry, not its limit."""

    SECTION: ClassVar = "scale"

    driver: DriverName = _units(
        "process", "Platform that starts and stops units; none: publish the decisions only."
    )
    dry_run: bool = _units(False, "Publish the decisions, but start and stop nothing.")
    min_brokers: int = _units(1, "Minimum number of brokers.", low=1)
    max_brokers: int = _units(4, "Maximum number of brokers.", low=1)
    min_workers: int = _units(1, "Minimum number of counting workers.", low=1)
    max_workers: int = _units(4, "Maximum number of counting workers.", low=1)
    heartbeat_timeout_s: float = _units(
        60.0, "Seconds without a heartbeat after which a running broker is replaced.", above_low=True
    )
    worker_capacity: float | None = _capacity(
        None,
        "Fixes per second that a worker should carry.",
        above_low=True,
        default_text="measured, from fixes per CPU second",
    )
    worker_cores: float = _capacity(1.0, "CPUs that a worker can use.", above_low=True)
    worker_utilization: float = _capacity(0.7, "Share of its CPUs that a worker should use.", above_low=True)
    catch_up_s: float = _capacity(
        30.0, "Seconds within which a backlog of fixes should be counted.", above_low=True
    )
    latency_s: float = _capacity(
        1.0, "Target for the 99th percentile of the latency from receipt to count, in seconds; 0: no target."
    )
    broker_connections: int = _capacity(5000, "Device connections that a broker should carry.", low=1)
    broker_messages: float = _capacity(
        20_000.0, "Messages per second that a broker should receive.", above_low=True
    )
    broker_cores: float = _capacity(1.0, "CPUs that a broker can use.", above_low=True)
    broker_utilization: float = _capacity(0.7, "Share of its CPUs that a broker should use.", above_low=True)
    interval_s: float = _pace(2.0, "Seconds between two decisions.", above_low=True)
    tolerance: float = _pace(0.1, "Relative difference between demand and units that changes nothing.")
    up_window_s: float = _pace(0.0, "Seconds that a higher demand must last before units are added.")
    up_step: int = _pace(2, "Maximum number of units added per up_period_s.", low=1)
    up_period_s: float = _pace(15.0, "Period of up_step, in seconds.", above_low=True)
    down_window_s: float = _pace(300.0, "Seconds that a lower demand must last before units are removed.")
    down_step: int = _pace(1, "Maximum number of units removed per down_period_s.", low=1)
    down_period_s: float = _pace(60.0, "Period of down_step, in seconds.", above_low=True)
    cooldown_s: float = _pace(30.0, "Seconds between a change and the next one in the other direction.")
    forecast: bool = _forecast(True, "Add units ahead of the load that the last days predict.")
    forecast_lead_s: float = _forecast(
        600.0, "Seconds by which units are ready ahead of a predicted load.", above_low=True
    )
    day_s: float = _forecast(86_400.0, "Length of a day in seconds, for time-lapse.", above_low=True)
    rebalance: bool = _rebalance(True, "Move devices from full brokers to emptier ones.")
    rebalance_start: float = _rebalance(
        1.3, "Start when the fullest broker has this multiple of the mean.", low=1, above_low=True
    )
    rebalance_stop: float = _rebalance(
        1.1, "Stop when the fullest broker has this multiple of the mean.", low=1, above_low=True
    )
    rebalance_for_s: float = _rebalance(10.0, "Seconds that an imbalance must last.")
    rebalance_per_s: float = _rebalance(
        0.02, "Share of its devices that a broker disconnects per second.", above_low=True
    )
    docker_host: str = _docker(
        "unix:///var/run/docker.sock", "Address of Docker Engine.", variable="DOCKER_HOST"
    )
    deployment: str = _docker(
        "headcount", "Label and name prefix of this deployment's containers.", format=NAME
    )
    image: str = _docker("headcount", "Image of brokers and workers.")
    network: str = _docker("", "Network that the containers join.", default_text="Docker's default")
    mounts: str = _docker(
        "", "Host paths or volumes that the containers mount.", format=MOUNTS, default_text="none"
    )
    user: str = _docker("", "User that the containers run as.", default_text="the image's")
    memory_mb: int = _docker(512, "Memory of a container, in MiB.", low=6)
    pids: int = _docker(256, "Maximum number of processes and threads of a container.", low=1)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SettingsError: one is out of range, or two contradict each other.
        """
        check_all(self)
        for units in ("brokers", "workers"):
            low, high = getattr(self, f"min_{units}"), getattr(self, f"max_{units}")
            if low > high:
                raise SettingsError(f"scale.min_{units}", f"{low} is greater than max_{units}, {high}")
        if self.rebalance_stop >= self.rebalance_start:
            raise SettingsError(
                "scale.rebalance_stop",
                f"{self.rebalance_stop:g} is not below rebalance_start, {self.rebalance_start:g}",
            )
