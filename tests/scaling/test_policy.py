"""The scaling policy: its rules one by one, as properties, and over simulated days."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headcount.scaling.demand import INITIAL_PER_CPU_S, MAX_PER_CPU_S, MIN_PER_CPU_S, LearnedCapacity
from headcount.scaling.policy import Demand, Observation, PolicyState, ScalingPolicy, decide, worker_demand
from scaling.simulated_day import (
    CAPACITY,
    DAY_S,
    DRAIN_S,
    FULL,
    PERIOD_S,
    campus_day,
    learned_floor,
    simulate,
)

POLICY = ScalingPolicy(max_units=10)


def observe(at_s: float, need: float | None, **more: object) -> Observation:
    """An observation in which `need` units are needed."""
    return replace(Observation(at_s, (Demand("load", need, 1.0),)), **more)  # type: ignore[arg-type]


def settled(units: int, at_s: float = 0.0, policy: ScalingPolicy = POLICY) -> PolicyState:
    """The state after a long time with this many units."""
    state = PolicyState()
    for step in range(int(policy.down_window_s / 10) + 2):
        _, state = decide(policy, state, units, observe(at_s - policy.down_window_s - 20 + step * 10, units))
    return state


# --- single rules ------------------------------------------------------------------------------
def test_a_load_within_tolerance_changes_nothing() -> None:
    """10 % above the current size changes nothing, 11 % adds a unit."""
    assert decide(POLICY, settled(4), 4, observe(1, 4.4))[0].wanted == 4
    assert decide(POLICY, settled(4), 4, observe(1, 4.45))[0].wanted == 5


def test_lag_is_load() -> None:
    """The lag asks for as many workers as drain it in the drain time, and the reason has the numbers."""
    load = worker_demand(900.0, 60_000.0, DRAIN_S, CAPACITY)
    decision, _ = decide(POLICY, settled(1), 1, Observation(1.0, (load,)))
    assert decision.recommended == 3
    assert "900 fixes/s and a lag of 60000" in decision.reason
    assert "2.90" in decision.reason


def test_the_largest_need_counts() -> None:
    """Of connections, messages and CPU, the one that needs most units decides."""
    loads = (Demand("1 connection", 1, 100), Demand("9 messages/s", 9, 3), Demand("CPU", 0.5, 0.5))
    decision, _ = decide(POLICY, settled(2), 2, Observation(1.0, loads))
    assert decision.wanted == 3
    assert decision.reason.startswith("9 messages/s")


def test_steps_limit_how_many_come_and_go() -> None:
    """At most two units are added within 15 s, one is removed per minute after the window."""
    state, wanted, wanted_at = settled(1), 1, {}
    for at_s in range(1, 1000):
        decision, state = decide(POLICY, state, wanted, observe(at_s, 8 if at_s < 100 else 1))
        wanted = decision.wanted
        wanted_at[at_s] = wanted
    assert (wanted_at[1], wanted_at[15], wanted_at[16], wanted_at[31], wanted_at[46]) == (3, 3, 5, 7, 8)
    assert wanted_at[399] == 8  # the last high recommendation was at 99
    assert (wanted_at[400], wanted_at[459], wanted_at[460]) == (7, 7, 6)
    assert wanted_at[999] == 1


def test_nothing_goes_before_a_window_was_seen() -> None:
    """A scaler that starts with four units and little load keeps them for the whole window."""
    state, wanted = PolicyState(), 4
    for at_s in range(0, 298, 2):
        decision, state = decide(POLICY, state, wanted, observe(at_s, 0.5))
        wanted = decision.wanted
        assert wanted == 4


@pytest.mark.parametrize("need", [None, math.nan, math.inf, -1.0, 1e300])
def test_what_is_not_known_changes_nothing(need: float | None) -> None:
    """A missing or impossible signal changes nothing."""
    decision, _ = decide(POLICY, settled(3), 3, observe(1, need))
    assert decision.wanted == 3
    assert "no signal is usable" in decision.reason


def test_a_silent_unit_keeps_and_may_raise() -> None:
    """While a unit does not report, no unit is removed, but known load may add units."""
    low = decide(POLICY, settled(1), 1, observe(1, 0.2, complete=False))[0]
    assert low.wanted == 1
    state = PolicyState(recommended=((-400.0, 1), (-100.0, 1)))
    assert decide(POLICY, state, 3, observe(1, 1.0))[0].wanted == 2
    assert decide(POLICY, state, 3, observe(1, 1.0, complete=False))[0].wanted == 3
    assert decide(POLICY, state, 3, observe(1, 5.0, complete=False))[0].wanted == 5


def test_one_missing_signal_of_two_keeps() -> None:
    """No broker is removed because of few connections while the message rate is unknown."""
    state = PolicyState(recommended=((-400.0, 1), (-100.0, 1)))
    loads = (Demand("connections", 1.0, 1.0), Demand("messages/s unknown", None, 1.0))
    assert decide(POLICY, state, 3, Observation(1.0, loads))[0].wanted == 3


def test_latency_raises_by_one_and_not_without_end() -> None:
    """A p99 above its target adds one unit, again after a while, at most two more than the load needs."""
    policy = replace(POLICY, latency_target_s=0.5)
    state, wanted = settled(1), 1
    sizes = {}
    for at_s in range(1, 200):
        decision, state = decide(policy, state, wanted, observe(at_s, 0.9, latency_p99_s=2.0))
        wanted = decision.wanted
        sizes[at_s] = wanted
    assert sizes[15] == 1
    assert sizes[16] == 2
    assert sizes[30] == 2
    assert sizes[31] == 3
    assert sizes[199] == 3


def test_the_forecast_raises_and_never_lowers() -> None:
    """A forecast above the demand raises the size, one below changes nothing."""
    assert decide(POLICY, settled(2), 2, observe(1, 2.0, floor=3.2))[0].wanted == 4
    assert decide(POLICY, settled(2), 2, observe(1, 3.0, floor=1.0))[0].wanted == 3
    assert decide(POLICY, settled(2), 2, observe(1, 2.0, floor=math.nan))[0].wanted == 2


def test_a_size_outside_the_limits_is_put_right_at_once() -> None:
    """A size below the minimum or above the maximum is corrected immediately."""
    policy = ScalingPolicy(min_units=3, max_units=5)
    assert decide(policy, PolicyState(), 0, observe(1, None))[0].wanted == 3
    assert decide(policy, PolicyState(), 9, observe(1, None))[0].wanted == 5


def test_an_up_window_waits_for_a_need_that_lasts() -> None:
    """With a window for scaling up, a shorter spike changes nothing."""
    policy = replace(POLICY, up_window_s=10.0)
    state, wanted, sizes = settled(1), 1, []
    for at_s in range(2, 60, 2):
        decision, state = decide(
            policy, state, wanted, observe(at_s, 3.0 if 10 <= at_s <= 14 or at_s >= 30 else 1.0)
        )
        wanted = decision.wanted
        sizes.append((at_s, wanted))
    assert dict(sizes)[28] == 1
    assert dict(sizes)[40] == 1
    assert dict(sizes)[42] == 3


# --- properties ----------------------------------------------------------------------------------
_needs = st.one_of(
    st.floats(0, 30), st.sampled_from([None, math.nan, -5.0, math.inf, 1e30]), st.floats(allow_nan=True)
)
_policies = st.builds(
    lambda least, more, up, down, window, up_window, cool: ScalingPolicy(
        min_units=least,
        max_units=least + more,
        up_step=up,
        down_step=down,
        down_window_s=window,
        up_window_s=up_window,
        cooldown_s=cool,
        latency_target_s=0.5,
    ),
    st.integers(1, 3),
    st.integers(0, 8),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0.0, 20.0, 60.0]),
    st.sampled_from([0.0, 6.0]),
    st.sampled_from([0.0, 30.0]),
)
_moments = st.lists(
    st.tuples(st.floats(0.5, 20.0), _needs, st.booleans(), _needs, _needs), min_size=1, max_size=60
)


@settings(max_examples=150, deadline=None)
@given(_policies, _moments, st.integers(0, 8))
def test_properties(
    policy: ScalingPolicy,
    moments: list[tuple[float, float | None, bool, float | None, float | None]],
    above: int,
) -> None:
    """Any observations leave the size within limits, steps, windows and cool-down, and decisions are deterministic."""
    current = min(policy.min_units + above, policy.max_units)
    state, at_s = PolicyState(), 0.0
    changes: list[tuple[float, int]] = []
    recommended: list[tuple[float, int]] = []
    for pause_s, need, complete, latency, floor in moments:
        at_s += pause_s
        now = observe(at_s, need, complete=complete, latency_p99_s=latency, floor=floor)
        decision, after = decide(policy, state, current, now)
        assert (decision, after) == decide(policy, state, current, now)
        assert policy.min_units <= decision.wanted <= policy.max_units
        assert decision.reason
        assert len(after.recommended) < 2 * len(moments) + 3
        recommended.append((at_s, decision.recommended))
        by = decision.wanted - current
        if by:
            changes.append((at_s, by))
        came = sum(n for t, n in changes if n > 0 and at_s - t < policy.up_period_s)
        went = -sum(n for t, n in changes if n < 0 and at_s - t < policy.down_period_s)
        assert came <= policy.up_step
        assert went <= policy.down_step
        if by < 0:
            inside = [n for t, n in recommended if at_s - t <= policy.down_window_s]
            assert decision.wanted >= max(inside)
            assert not [t for t, n in changes if n > 0 and at_s - t < policy.cooldown_s]
        current, state = decision.wanted, after


_garbage = st.one_of(st.none(), st.floats(allow_nan=True), st.floats(0, 1e6))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(_garbage, _garbage, st.integers(0, 9), st.floats(allow_nan=True))))
def test_capacity_stays_believable(samples: list[tuple[float | None, float | None, int, float]]) -> None:
    """Whatever is measured, the learned fixes per CPU second stay within their limits."""
    capacity = LearnedCapacity()
    for per_s, cores, workers, over_s in samples:
        capacity = capacity.learn(per_s, cores, workers, over_s)
        assert MIN_PER_CPU_S <= capacity.per_cpu_s <= MAX_PER_CPU_S


def test_capacity_is_learned_from_busy_workers() -> None:
    """A busy worker's real value is learned to 5 % in ten minutes; one second changes little, idleness nothing."""
    capacity = LearnedCapacity()
    assert capacity.per_cpu_s == INITIAL_PER_CPU_S
    assert capacity.learn(100.0, 0.08, 1, 600.0) == capacity
    assert capacity.learn(10_000.0, 0.4, 2, 600.0) == capacity
    assert capacity.learn(10.0, 1.0, 1, 1.0).per_cpu_s > 0.8 * INITIAL_PER_CPU_S
    for _ in range(300):
        capacity = capacity.learn(0.7 * 20_000, 0.7, 1, 2.0)
    assert capacity.per_cpu_s == pytest.approx(20_000, rel=0.05)


# --- simulated fleets ------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("level", [1.5, 2.0, 3.0, 3.95])
def test_noise_does_not_flap(seed: int, level: float) -> None:
    """A steady load with 8 % noise changes the fleet at most four times an hour at any level."""
    print("seed", seed)
    noise = random.Random(seed)
    run = simulate(lambda _: max(noise.gauss(level, 0.08 * level) * CAPACITY, 0.0), 4 * 3600, POLICY, start=2)
    settled_changes = [at_s for at_s, _ in run.changes if at_s > 600]
    assert len(settled_changes) <= 4 * 4, settled_changes


@pytest.mark.parametrize("high", [2.5, 4.0, 7.5])
def test_a_jump_is_followed_without_overshoot(high: float) -> None:
    """After a jump of the load, capacity suffices in time and exceeds the need by one step at most."""
    run = simulate(lambda t: (0.5 if t < 600 else high) * CAPACITY, 1800, POLICY)
    assert max(step.wanted for step in run.steps) <= math.ceil(high) + POLICY.up_step
    enough = next(step.at_s for step in run.steps if step.at_s >= 600 and step.counting * FULL >= step.rate)
    assert enough - 600 <= math.ceil(high / POLICY.up_step) * POLICY.up_period_s + 10
    assert run.steps[-1].lag == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_day_with_two_peaks_is_followed(seed: int) -> None:
    """Over a day with two peaks, capacity covers the load except for seconds at 1.6 times the ideal cost at most."""
    print("seed", seed)
    run = simulate(campus_day(seed), DAY_S, POLICY)
    short_s = PERIOD_S * sum(step.counting * FULL < step.rate for step in run.steps)
    assert short_s <= 30
    assert max(step.lag for step in run.steps) <= 5000
    used = sum(step.counting for step in run.steps)
    ideal = sum(max(step.rate / CAPACITY, 1.0) for step in run.steps)
    assert used / ideal <= 1.6
    fixed = max(step.counting for step in run.steps) * len(run.steps)
    assert used / fixed <= 0.6
    middle = [step.wanted for step in run.steps if 12 * 3600 < step.at_s < 13.5 * 3600]
    assert min(middle) < max(step.wanted for step in run.steps if step.at_s < 12 * 3600)
    assert len(run.changes) <= 40


@pytest.mark.parametrize("seed", range(3))
def test_missing_and_garbage_signals_are_survived(seed: int) -> None:
    """With a tenth of the signals missing or absurd, and gaps of minutes, the day is still covered."""
    print("seed", seed)
    chance = random.Random(seed)

    def received(at_s: float, rate: float, lag: float) -> tuple[float | None, float | None]:
        if at_s % 7200 < 180:
            return None, None
        broken = chance.random()
        if broken < 0.05:
            return None, lag
        if broken < 0.1:
            return chance.choice([math.nan, -1.0, math.inf, 1e40]), chance.choice([lag, math.nan])
        return rate, lag

    run = simulate(campus_day(seed), DAY_S, POLICY, received=received)
    short_s = PERIOD_S * sum(step.counting * FULL < step.rate for step in run.steps)
    assert short_s <= 60
    ideal = sum(max(step.rate / CAPACITY, 1.0) for step in run.steps)
    assert sum(step.counting for step in run.steps) / ideal <= 3.0


def test_the_forecast_is_ahead_of_the_peak() -> None:
    """With a profile of earlier days, workers start earlier than without, and there are never fewer."""
    day = campus_day(1, noise=0.0)
    without = simulate(day, DAY_S, POLICY)
    with_floor = simulate(day, DAY_S, POLICY, floor=learned_floor(day))
    pairs = list(zip(without.steps, with_floor.steps, strict=True))
    assert all(b.wanted >= a.wanted for a, b in pairs)
    most = max(step.wanted for step in without.steps)

    def first(run: list[float]) -> float:
        return min(run)

    late = first([step.at_s for step in without.steps if step.wanted == most])
    early = first([step.at_s for step in with_floor.steps if step.wanted >= most])
    assert late - early >= 120
