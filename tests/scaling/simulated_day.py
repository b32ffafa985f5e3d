"""A simulated fleet under the scaling policy: loads from a seed, workers that take time to start.

`python tests/scaling/simulated_day.py > docs/images/scaling-day.svg` draws a day.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

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


def picture(run: Run, width: int = 760, height: int = 300) -> str:
    """A day as SVG: load and what the workers can do, in thousands of fixes per second."""
    top = max(max(s.counting * FULL, s.rate) for s in run.steps) * 1.1
    left, bottom = 46, height - 30

    def x(at_s: float) -> float:
        return left + at_s / DAY_S * (width - left - 10)

    def y(value: float) -> float:
        return bottom - value / top * (bottom - 26)

    thin = run.steps[:: int(60 / PERIOD_S)]
    load = " ".join(f"{x(s.at_s):.1f},{y(s.rate):.1f}" for s in thin)
    steps: list[str] = []
    last = -1
    for s in run.steps:
        if s.counting != last:
            if steps:
                steps.append(f"{x(s.at_s):.1f},{y(last * FULL):.1f}")
            steps.append(f"{x(s.at_s):.1f},{y(s.counting * FULL):.1f}")
            last = s.counting
    steps.append(f"{x(DAY_S):.1f},{y(last * FULL):.1f}")
    axis = "".join(
        f'<text x="{x(hour * 3600):.0f}" y="{bottom + 18}" text-anchor="middle">{hour:02d}:00</text>'
        for hour in range(0, 25, 4)
    )
    axis += "".join(
        f'<line x1="{left}" y1="{y(v):.1f}" x2="{width - 10}" y2="{y(v):.1f}" stroke="#ddd"/>'
        f'<text x="{left - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v / 1000:.0f}k</text>'
        for v in range(0, int(top), 2000)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12" role="img"><title>A simulated day under the scaling policy</title>{axis}'
        f'<polyline points="{load}" fill="none" stroke="#c2571a" stroke-width="1"/>'
        f'<polyline points="{" ".join(steps)}" fill="none" stroke="#1d5fa8" stroke-width="1.8"/>'
        f'<text x="{left}" y="16" fill="#c2571a">fixes/s</text>'
        f'<text x="{left + 60}" y="16" fill="#1d5fa8">capacity of the workers</text></svg>\n'
    )


if __name__ == "__main__":
    day = campus_day(4)
    sys.stdout.write(picture(simulate(day, DAY_S, ScalingPolicy(max_units=10), floor=learned_floor(day))))
