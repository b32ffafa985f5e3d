"""From signals to what the law sees, and to what is told: pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from headcount.scaling.policy import Load, Seen, workers_load
from headcount.scaling.scale_settings import ScaleSettings
from headcount.scaling.signals import BrokerSignals, WorkerSignals

#: The kinds of load whose daily course is remembered.
FIXES, CONNECTIONS, MESSAGES = "fixes_per_s", "connections", "messages_per_s"


@dataclass(frozen=True, slots=True)
class Signals:
    """Everything that is known at one moment."""

    workers: WorkerSignals
    brokers: BrokerSignals
    adapters_per_s: float | None
    capacity: float  # fixes per second of one worker
    forecast: Mapping[str, float | None]

    def loads(self) -> dict[str, float]:
        """The loads that a profile remembers, as far as they are known."""
        found = {
            FIXES: self.workers.fixes_per_s,
            CONNECTIONS: self.brokers.connections,
            MESSAGES: self.brokers.messages_per_s,
        }
        return {name: float(value) for name, value in found.items() if value is not None}

    def told(self) -> dict[str, float | None]:
        """By name, for the state and the metrics."""
        workers, brokers = self.workers, self.brokers
        values: dict[str, float | None] = {
            FIXES: workers.fixes_per_s,
            "lag": workers.lag,
            "workers_heard": float(workers.heard),
            "workers_age_s": workers.age_s,
            "workers_cpus": workers.cores,
            "worker_capacity": self.capacity,
            "latency_p99_s": workers.latency_p99_s,
            "adapter_messages_per_s": self.adapters_per_s,
            "brokers_heard": float(len(brokers.heard)),
            CONNECTIONS: None if brokers.connections is None else float(brokers.connections),
            MESSAGES: brokers.messages_per_s,
            "brokers_cpus": brokers.cores,
            **{f"forecast_{name}": value for name, value in self.forecast.items()},
        }
        return {
            name: None if value is None or not math.isfinite(value) else round(value, 3)
            for name, value in values.items()
        }


def worker_capacity(settings: ScaleSettings, per_cpu_s: float) -> float:
    """Fixes per second that a worker should carry: what was set, else what its CPUs are good for."""
    return settings.worker_capacity or per_cpu_s * settings.worker_cores * settings.worker_use


def workers_seen(settings: ScaleSettings, signals: Signals, at_s: float, *, complete: bool) -> Seen:
    """What the law sees of the workers."""
    workers = signals.workers
    ahead = signals.forecast.get(FIXES)
    return Seen(
        at_s,
        (
            workers_load(workers.fixes_per_s, workers.lag, settings.catch_up_s, signals.capacity),
            _cpus(workers.cores, settings.worker_cores * settings.worker_use),
        ),
        complete=complete,
        latency_p99_s=workers.latency_p99_s,
        floor=None if ahead is None else ahead / signals.capacity,
    )


def brokers_seen(settings: ScaleSettings, signals: Signals, at_s: float, *, complete: bool) -> Seen:
    """What the law sees of the brokers."""
    brokers = signals.brokers
    limits = {CONNECTIONS: float(settings.broker_connections), MESSAGES: settings.broker_messages}
    floors = [ahead / limits[name] for name in limits if (ahead := signals.forecast.get(name)) is not None]
    return Seen(
        at_s,
        (
            _load("connections", brokers.connections, limits[CONNECTIONS]),
            _load("messages/s", brokers.messages_per_s, limits[MESSAGES]),
            _cpus(brokers.cores, settings.broker_cores * settings.broker_use),
        ),
        complete=complete,
        floor=max(floors, default=None),
    )


def _load(what: str, amount: float | None, per_unit: float) -> Load:
    return Load(f"{what} unknown" if amount is None else f"{amount:.0f} {what}", amount, per_unit)


def _cpus(cores: float | None, per_unit: float) -> Load:
    return Load("CPU unknown" if cores is None else f"{cores:.2f} CPUs", cores, per_unit)
