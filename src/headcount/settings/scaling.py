"""What an operator may set of the scaler: one frozen object; flags and variables are read off its fields."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from headcount.errors import SettingsError
from headcount.messages.topics import ID
from headcount.scaling.policy import ScalingPolicy
from headcount.scaling.rebalance import RebalanceRules

#: Before the name of a field, in capitals.
ENVIRONMENT = "HEADCOUNT_SCALE_"
DriverName = Literal["process", "docker", "none"]


@dataclass(frozen=True, slots=True)
class ScaleSettings:
    """Everything that the scaler goes by. Loads are those that one unit should carry, not can carry."""

    driver: Annotated[DriverName, "What starts and stops units; `none` only says how many."] = "process"
    dry_run: Annotated[bool, "Decide and tell, but change nothing."] = False
    period_s: Annotated[float, "Seconds between two looks."] = 2.0
    brokers_least: Annotated[int, "Never fewer brokers."] = 1
    brokers_most: Annotated[int, "Never more brokers."] = 4
    workers_least: Annotated[int, "Never fewer counting workers."] = 1
    workers_most: Annotated[int, "Never more counting workers."] = 4
    worker_capacity: Annotated[
        float | None,
        "Fixes per second a worker should carry. Default: learned from what a CPU second is good for.",
    ] = None
    worker_cores: Annotated[float, "CPUs that a worker may use."] = 1.0
    worker_use: Annotated[float, "Share of its CPUs that a worker should use."] = 0.7
    catch_up_s: Annotated[float, "Seconds within which what waits should be counted."] = 30.0
    latency_s: Annotated[float, "Aim for the 99th percentile from received to counted; 0 = none."] = 1.0
    broker_connections: Annotated[int, "Device connections a broker should carry."] = 5000
    broker_messages: Annotated[float, "Messages per second a broker should take."] = 20_000.0
    broker_cores: Annotated[float, "CPUs that a broker may use."] = 1.0
    broker_use: Annotated[float, "Share of its CPUs that a broker should use."] = 0.7
    tolerance: Annotated[float, "A need so close to what there is changes nothing."] = 0.1
    up_window_s: Annotated[float, "A need must last so long before units come."] = 0.0
    up_step: Annotated[int, "So many units come at most within the up period."] = 2
    up_period_s: Annotated[float, "Seconds of the up period."] = 15.0
    down_window_s: Annotated[float, "Units go only if none of these seconds needed them."] = 300.0
    down_step: Annotated[int, "So many units go at most within the down period."] = 1
    down_period_s: Annotated[float, "Seconds of the down period."] = 60.0
    cooldown_s: Annotated[float, "Seconds between a change and one in the other direction."] = 30.0
    silent_s: Annotated[float, "A broker that runs and says nothing for so long is replaced."] = 60.0
    forecast: Annotated[bool, "Let the last days raise the floor."] = True
    forecast_lead_s: Annotated[float, "Be ready so long before the load comes."] = 600.0
    day_s: Annotated[float, "Length of a day, for time-lapse runs."] = 86_400.0
    rebalance: Annotated[bool, "Let full brokers send devices to emptier ones."] = True
    rebalance_start: Annotated[float, "Begin where the fullest broker has so many times the mean."] = 1.3
    rebalance_stop: Annotated[float, "End where it has."] = 1.1
    rebalance_for_s: Annotated[float, "It must have been uneven for so long."] = 10.0
    rebalance_per_s: Annotated[float, "Share of its devices that a broker sends away in a second."] = 0.02
    deployment: Annotated[str, "Docker: label and name of this deployment's containers."] = "headcount"
    image: Annotated[str, "Docker: the image of brokers and workers."] = "headcount"
    network: Annotated[str, "Docker: the network that they join."] = ""
    mounts: Annotated[
        str, "Docker: FROM:TO[:ro], several with commas between; paths of the host or volumes."
    ] = ""
    user: Annotated[str, "Docker: who they run as. Default: whom the image names."] = ""
    memory_mb: Annotated[int, "Docker: memory of a container."] = 512
    pids: Annotated[int, "Docker: processes and threads of a container."] = 256

    def __post_init__(self) -> None:
        """Check what can't be.

        Raises:
            SettingsError: a value is out of range or values don't go together.
        """
        for item in fields(self):
            value = getattr(self, item.name)
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            may_be_0 = item.name in _MAY_BE_0
            if numeric and not (0 <= value <= 1e12 and (may_be_0 or value > 0)):
                raise SettingsError(option(item.name), f"{value:g} is not above 0")
        for role in ("brokers", "workers"):
            least, most = getattr(self, f"{role}_least"), getattr(self, f"{role}_most")
            if least > most:
                raise SettingsError(f"--{role}-least", f"{least} is more than --{role}-most, {most}")
        if self.rebalance_stop >= self.rebalance_start or self.rebalance_stop <= 1:
            raise SettingsError("--rebalance-stop", "must be above 1 and below --rebalance-start")
        if ID.fullmatch(self.deployment) is None:
            raise SettingsError("--deployment", f"{self.deployment!r}: use 1 to 64 of A-Z a-z 0-9 _ -")
        self.binds()

    def policy(self, role: Literal["broker", "count"]) -> ScalingPolicy:
        """The law's limits and windows for a role."""
        workers = role == "count"
        return ScalingPolicy(
            min_units=self.workers_least if workers else self.brokers_least,
            max_units=self.workers_most if workers else self.brokers_most,
            tolerance=self.tolerance,
            up_window_s=self.up_window_s,
            down_window_s=self.down_window_s,
            up_step=self.up_step,
            up_period_s=self.up_period_s,
            down_step=self.down_step,
            down_period_s=self.down_period_s,
            cooldown_s=self.cooldown_s,
            latency_target_s=self.latency_s or None if workers else None,
        )

    def rules(self) -> RebalanceRules:
        """The rebalancer's."""
        return RebalanceRules(
            start=self.rebalance_start,
            stop=self.rebalance_stop,
            for_s=self.rebalance_for_s,
            share_per_s=self.rebalance_per_s,
            flight_s=2 * self.period_s + 1.0,
        )

    def binds(self) -> list[str]:
        """The mounts, one by one.

        Raises:
            SettingsError: one is no FROM:TO.
        """
        mounts = [part.strip() for part in self.mounts.split(",") if part.strip()]
        for mount in mounts:
            if not 2 <= len(mount.split(":")) <= 3 or not mount.split(":")[1].startswith("/"):
                raise SettingsError("--mounts", f"{mount!r}: use FROM:TO or FROM:TO:ro")
        return mounts

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ScaleSettings:
        """From the variables HEADCOUNT_SCALE_<NAME>; what isn't there has its default.

        Raises:
            SettingsError: a value can't be read.
        """
        given = {item.name: environment.get(variable(item.name), "") for item in fields(cls)}
        return cls(**{name: _read(name, text) for name, text in given.items() if text})


_MAY_BE_0 = {"up_window_s", "down_window_s", "cooldown_s", "tolerance", "latency_s", "rebalance_for_s"}


def variable(name: str) -> str:
    """The environment variable of a field."""
    return f"{ENVIRONMENT}{name.upper()}"


def option(name: str) -> str:
    """The flag of a field."""
    return f"--{name.replace('_', '-')}"


def kind_of(name: str) -> Any:
    """The type of a field's value: bool, int, float, str or a Literal."""
    kind = typing.get_type_hints(ScaleSettings)[name]
    if isinstance(kind, types.UnionType):
        return next(inner for inner in typing.get_args(kind) if inner is not type(None))
    return kind


def help_of(name: str) -> str:
    """What a field means."""
    hint = typing.get_type_hints(ScaleSettings, include_extras=True)[name]
    text: str = hint.__metadata__[0]
    return text


def _read(name: str, text: str) -> Any:
    kind = kind_of(name)
    if choices := typing.get_args(kind):
        if text not in choices:
            raise SettingsError(variable(name), f"{text!r} is none of {', '.join(choices)}")
        return text
    if kind is bool:
        if text.lower() in {"1", "true", "yes", "on"}:
            return True
        if text.lower() in {"0", "false", "no", "off"}:
            return False
        raise SettingsError(variable(name), f"{text!r} is neither true nor false")
    try:
        return kind(text)
    except ValueError as error:
        raise SettingsError(variable(name), f"{text!r} is no number") from error
