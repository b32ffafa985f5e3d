"""From signals to observations for the policy, and to the published state: pure.

The capacity of a worker is learned from busy workers. A worker's CPU goes into its clock, heartbeat and
snapshots first, and into fixes second. Measured (one worker, 16 partitions, 2 busy cores): 0.075 CPUs at
100 fixes/s, 0.106 at 1000, 0.107 at 5000, 0.141 at 15 000. Fixes per CPU second are 1300 in the first case
and 108 000 in the last: an idle worker does not show what a busy one can do. So the ratio is learned only
while workers use at least `BUSY` of a CPU each, from sums of both that decay with the same half-life. The
initial value weighs as much as `PRIOR_CPU_S` of measured CPU.

It need not be exact. If it is too high, the CPU in use is a signal of its own; if it is too low, workers
are added a little early.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from headcount.scaling.drivers import UnitRole
from headcount.scaling.policy import Demand, Observation, ScalingPolicy, worker_demand
from headcount.scaling.rebalance import RebalanceRules
from headcount.scaling.signals import BrokerSignals, WorkerSignals
from headcount.settings.scaling import ScaleSettings

#: The kinds of load that the forecast covers.
FIXES, CONNECTIONS, MESSAGES = "fixes_per_s", "connections", "messages_per_s"
INITIAL_PER_CPU_S = 100_000.0
PRIOR_CPU_S = 5.0
BUSY = 0.25
HALF_LIFE_S = 120.0
#: Limits to the learned fixes per CPU second.
MIN_PER_CPU_S, MAX_PER_CPU_S = 5_000.0, 1_000_000.0


@dataclass(frozen=True, slots=True)
class LearnedCapacity:
    """Fixes per CPU second of a busy worker, as known so far."""

    fixes: float = INITIAL_PER_CPU_S * PRIOR_CPU_S
    cpu_s: float = PRIOR_CPU_S

    @property
    def per_cpu_s(self) -> float:
        """Fixes per CPU second, within its limits."""
        return min(max(self.fixes / self.cpu_s, MIN_PER_CPU_S), MAX_PER_CPU_S)

    def learn(self, per_s: float | None, cores: float | None, workers: int, over_s: float) -> LearnedCapacity:
        """The capacity after workers counted `per_s` fixes per second with `cores` CPUs for `over_s`.

        Impossible values (none, negative, not a number) and idle workers change nothing.
        """
        if per_s is None or cores is None or not 0 < per_s < 1e12 or not 0 < over_s < 1e6:
            return self
        if not max(BUSY * workers, BUSY) <= cores < 1e6:
            return self
        weight = 0.5 ** (over_s / HALF_LIFE_S)
        return LearnedCapacity(self.fixes * weight + per_s * over_s, self.cpu_s * weight + cores * over_s)


@dataclass(frozen=True, slots=True)
class ScalingSignals:
    """All signals at one moment."""

    workers: WorkerSignals
    brokers: BrokerSignals
    adapters_per_s: float | None
    capacity: float  # fixes per second of one worker
    forecast: Mapping[str, float | None]

    def loads(self) -> dict[str, float]:
        """The known loads that the profile records."""
        found = {
            FIXES: self.workers.fixes_per_s,
            CONNECTIONS: self.brokers.connections,
            MESSAGES: self.brokers.messages_per_s,
        }
        return {name: float(value) for name, value in found.items() if value is not None}

    def published(self) -> dict[str, float | None]:
        """All signals by name, for the published state and the metrics."""
        workers, brokers = self.workers, self.brokers
        values: dict[str, float | None] = {
            FIXES: workers.fixes_per_s,
            "lag": workers.lag,
            "workers_heard": float(workers.reporting),
            "workers_age_s": workers.age_s,
            "workers_cpus": workers.cores,
            "worker_capacity": self.capacity,
            "latency_p99_s": workers.latency_p99_s,
            "adapter_messages_per_s": self.adapters_per_s,
            "brokers_heard": float(len(brokers.reporting)),
            CONNECTIONS: None if brokers.connections is None else float(brokers.connections),
            MESSAGES: brokers.messages_per_s,
            "brokers_cpus": brokers.cores,
            **{f"forecast_{name}": value for name, value in self.forecast.items()},
        }
        return {
            name: None if value is None or not math.isfinite(value) else round(value, 3)
            for name, value in values.items()
        }


def policy_of(settings: ScaleSettings, role: UnitRole) -> ScalingPolicy:
    """The limits and windows of a role."""
    workers = role == "count"
    return ScalingPolicy(
        min_units=settings.min_workers if workers else settings.min_brokers,
        max_units=settings.max_workers if workers else settings.max_brokers,
        tolerance=settings.tolerance,
        up_window_s=settings.up_window_s,
        down_window_s=settings.down_window_s,
        up_step=settings.up_step,
        up_period_s=settings.up_period_s,
        down_step=settings.down_step,
        down_period_s=settings.down_period_s,
        cooldown_s=settings.cooldown_s,
        latency_target_s=settings.latency_s or None if workers else None,
    )


def rules_of(settings: ScaleSettings) -> RebalanceRules:
    """When brokers are rebalanced, and how fast."""
    return RebalanceRules(
        start=settings.rebalance_start,
        stop=settings.rebalance_stop,
        for_s=settings.rebalance_for_s,
        share_per_s=settings.rebalance_per_s,
        flight_s=2 * settings.interval_s + 1.0,
    )


def worker_capacity(settings: ScaleSettings, per_cpu_s: float) -> float:
    """Fixes per second that a worker should carry: as configured, or derived from the learned capacity."""
    return settings.worker_capacity or per_cpu_s * settings.worker_cores * settings.worker_utilization


def observe_workers(
    settings: ScaleSettings, signals: ScalingSignals, at_s: float, *, complete: bool
) -> Observation:
    """The policy's observation of the workers."""
    workers = signals.workers
    forecast = signals.forecast.get(FIXES)
    return Observation(
        at_s,
        (
            worker_demand(workers.fixes_per_s, workers.lag, settings.catch_up_s, signals.capacity),
            _cpu_demand(workers.cores, settings.worker_cores * settings.worker_utilization),
        ),
        complete=complete,
        latency_p99_s=workers.latency_p99_s,
        floor=None if forecast is None else forecast / signals.capacity,
    )


def observe_brokers(
    settings: ScaleSettings, signals: ScalingSignals, at_s: float, *, complete: bool
) -> Observation:
    """The policy's observation of the brokers."""
    brokers = signals.brokers
    limits = {CONNECTIONS: float(settings.broker_connections), MESSAGES: settings.broker_messages}
    floors = [load / limits[name] for name in limits if (load := signals.forecast.get(name)) is not None]
    return Observation(
        at_s,
        (
            _demand("connections", brokers.connections, limits[CONNECTIONS]),
            _demand("messages/s", brokers.messages_per_s, limits[MESSAGES]),
            _cpu_demand(brokers.cores, settings.broker_cores * settings.broker_utilization),
        ),
        complete=complete,
        floor=max(floors, default=None),
    )


def _demand(what: str, amount: float | None, per_unit: float) -> Demand:
    return Demand(f"{what} unknown" if amount is None else f"{amount:.0f} {what}", amount, per_unit)


def _cpu_demand(cores: float | None, per_unit: float) -> Demand:
    return Demand("CPU unknown" if cores is None else f"{cores:.2f} CPUs", cores, per_unit)
