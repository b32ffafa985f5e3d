"""A simulated fleet under the scaling policy: loads from a seed, workers that take time to start.

`python tests/scaling/simulated_day.py > docs/images/scaling-day.svg` draws a day.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from headcount.lab.plots import COLOURS, as_svg, figure, legend
from headcount.scaling import forecast
from headcount.scaling.policy import Observation, PolicyState, ScalingPolicy, decide, worker_demand

PERIOD_S = 2.0
DAY_S = 86_400.0
CAPACITY = 1000.0  # at the target use
FULL = CAPACITY / 0.7  # a worker's maximum
START_S = 6.0  # until a new worker counts
DRAIN_S = 30.0

Load = Callable[[float], float]
#: Maps time, rate and lag to the rate and lag that the scaler receives; None = no report.
Received = Callable[[float, float, float], tuple[float | None, float | None]]


@dataclass
class Step:
    """One step of the scaler."""

    at_s: float
    rate: float
    lag: float
    wanted: int
    counting: int
    floor: float | None


@dataclass
class Run:
    """A whole run."""

    steps: list[Step] = field(default_factory=list)

    @property
    def changes(self) -> list[tuple[float, int]]:
        """(at, difference) of each change."""
        pairs = zip(self.steps, self.steps[1:], strict=False)
        return [(b.at_s, b.wanted - a.wanted) for a, b in pairs if a.wanted != b.wanted]


def unchanged(_: float, rate: float, lag: float) -> tuple[float | None, float | None]:
    """The scaler receives the true values."""
    return rate, lag


def simulate(
    load: Load,
    length_s: float,
    policy: ScalingPolicy,
    *,
    start: int = 1,
    received: Received = unchanged,
    floor: Callable[[float], float | None] = lambda _: None,
    begin_s: float = 0.0,
) -> Run:
    """Run workers under a load, with a decision every two seconds."""
    run, state = Run(), PolicyState()
    wanted, lag, starting = start, 0.0, list[float]()
    counting = start
    for number in range(int(length_s / PERIOD_S)):
        at_s = begin_s + number * PERIOD_S
        ready = [s for s in starting if at_s - s >= START_S]
        starting = [s for s in starting if at_s - s < START_S]
        counting += len(ready)
        rate = load(at_s)
        lag = max(lag + (rate - counting * FULL) * PERIOD_S, 0.0)
        reported_rate, reported_lag = received(at_s, rate, lag)
        seen = Observation(
            at_s, (worker_demand(reported_rate, reported_lag, DRAIN_S, CAPACITY),), floor=floor(at_s)
        )
        decision, state = decide(policy, state, wanted, seen)
        if decision.wanted > wanted:
            starting += [at_s] * (decision.wanted - wanted)
        for _ in range(wanted - decision.wanted):
            if starting:
                starting.pop()
            else:
                counting -= 1
        wanted = decision.wanted
        run.steps.append(Step(at_s, rate, lag, wanted, counting, seen.floor))
    return run


def campus_day(seed: int, *, peak: float = 6000.0, noise: float = 0.05) -> Load:
    """Fixes per second over a day with two peaks, at ten and at three, and noise."""
    random_ = random.Random(seed)
    wobble = [random_.gauss(1.0, noise) for _ in range(5000)]

    def load(at_s: float) -> float:
        hour = at_s % DAY_S / 3600
        first = math.exp(-(((hour - 10.0) / 1.6) ** 2))
        second = 0.85 * math.exp(-(((hour - 15.0) / 1.8) ** 2))
        return max(peak * (0.03 + 0.97 * max(first, second)) * wobble[int(at_s / PERIOD_S) % 5000], 0.0)

    return load


def learned_floor(load: Load, days: int = 2, lead_slots: int = 2) -> Callable[[float], float | None]:
    """The forecast, in workers, with the same load on the days before."""
    profile = forecast.LoadProfile()
    for slot in range(-days * forecast.SLOTS, 0):
        at_s = slot * forecast.SLOT_S
        mean = sum(load(at_s + DAY_S * days + s) for s in range(0, forecast.SLOT_S, 30)) / (
            forecast.SLOT_S / 30
        )
        where = forecast.time_slot(at_s + DAY_S * 100, day_s=DAY_S - 0.001)
        profile = forecast.add_slot(profile, where, {"fixes": mean})

    def floor(at_s: float) -> float | None:
        where = forecast.time_slot(at_s + DAY_S * 100, day_s=DAY_S - 0.001)
        ahead = forecast.forecast_load(profile, "fixes", where, lead_slots)
        return None if ahead is None else ahead / CAPACITY

    return floor


def plot(run: Run) -> str:
    """A day as SVG: load and the capacity of the workers, in fixes per second."""
    thin = run.steps[:: int(120 / PERIOD_S)]
    with figure([3.0]) as (drawn, (panel,)):
        hours = [step.at_s / 3600 for step in thin]
        panel.plot(hours, [step.rate for step in thin], color=COLOURS[1], label="fixes/s", linewidth=0.8)
        capacity = [step.counting * FULL for step in thin]
        panel.step(hours, capacity, where="post", color=COLOURS[0], label="capacity of the workers")
        panel.set_xlim(0, 24)
        panel.set_xticks(range(0, 25, 4))
        panel.set_xlabel("hour of the day")
        panel.set_ylim(bottom=0)
        legend(panel)
        return as_svg(drawn, "A simulated day under the scaling policy")


if __name__ == "__main__":
    day = campus_day(4)
    sys.stdout.write(plot(simulate(day, DAY_S, ScalingPolicy(max_units=10), floor=learned_floor(day))))
