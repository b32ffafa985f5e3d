"""The scaler's law: its rules one by one, as properties, and over simulated days."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headcount.scaling.capacity import GUESS_PER_CPU_S, LEAST_PER_CPU_S, MOST_PER_CPU_S, Capacity
from headcount.scaling.policy import Load, Memory, Policy, Seen, decide, workers_load
from scaling_day import CAPACITY, DAY_S, DRAIN_S, FULL, PERIOD_S, campus_day, learned_floor, simulate

POLICY = Policy(most=10)


def seen(at_s: float, need: float | None, **more: object) -> Seen:
    """A moment at which so many units are needed."""
    return replace(Seen(at_s, (Load("load", need, 1.0),)), **more)  # type: ignore[arg-type]


def settled(units: int, at_s: float = 0.0, policy: Policy = POLICY) -> Memory:
    """The memory after a long time with so many units."""
    memory = Memory()
    for step in range(int(policy.down_window_s / 10) + 2):
        _, memory = decide(policy, memory, units, seen(at_s - policy.down_window_s - 20 + step * 10, units))
    return memory


# --- single rules ------------------------------------------------------------------------------
def test_a_load_within_tolerance_changes_nothing() -> None:
    """10 % above what there is keeps, 11 % raises."""
    assert decide(POLICY, settled(4), 4, seen(1, 4.4))[0].wanted == 4
    assert decide(POLICY, settled(4), 4, seen(1, 4.45))[0].wanted == 5


def test_lag_is_load() -> None:
    """What waits asks for as many workers as work it off in the drain time, and the reason has the numbers."""
    load = workers_load(900.0, 60_000.0, DRAIN_S, CAPACITY)
    verdict, _ = decide(POLICY, settled(1), 1, Seen(1.0, (load,)))
    assert verdict.recommended == 3
    assert "900 fixes/s and 60000 waiting" in verdict.reason
    assert "2.90" in verdict.reason


def test_the_largest_need_counts() -> None:
    """Of connections, messages and CPU the one that needs most decides."""
    loads = (Load("1 connection", 1, 100), Load("9 messages/s", 9, 3), Load("CPU", 0.5, 0.5))
    verdict, _ = decide(POLICY, settled(2), 2, Seen(1.0, loads))
    assert verdict.wanted == 3
    assert verdict.reason.startswith("9 messages/s")


def test_steps_limit_how_many_come_and_go() -> None:
    """Up two within 15 s, down one within a minute, after the window."""
    memory, wanted, wanted_at = settled(1), 1, {}
    for at_s in range(1, 1000):
        verdict, memory = decide(POLICY, memory, wanted, seen(at_s, 8 if at_s < 100 else 1))
        wanted = verdict.wanted
        wanted_at[at_s] = wanted
    assert (wanted_at[1], wanted_at[15], wanted_at[16], wanted_at[31], wanted_at[46]) == (3, 3, 5, 7, 8)
    assert wanted_at[399] == 8  # the last high recommendation was at 99
    assert (wanted_at[400], wanted_at[459], wanted_at[460]) == (7, 7, 6)
    assert wanted_at[999] == 1


def test_nothing_goes_before_a_window_was_seen() -> None:
    """A scaler that has just begun finds four units and little load: it keeps them for the window."""
    memory, wanted = Memory(), 4
    for at_s in range(0, 298, 2):
        verdict, memory = decide(POLICY, memory, wanted, seen(at_s, 0.5))
        wanted = verdict.wanted
        assert wanted == 4


@pytest.mark.parametrize("need", [None, math.nan, math.inf, -1.0, 1e300])
def test_what_is_not_known_changes_nothing(need: float | None) -> None:
    """A missing or impossible signal keeps what there is."""
    verdict, _ = decide(POLICY, settled(3), 3, seen(1, need))
    assert verdict.wanted == 3
    assert "no signal is usable" in verdict.reason


def test_a_silent_unit_keeps_and_may_raise() -> None:
    """While a unit is silent nothing goes, but what is known may raise."""
    low = decide(POLICY, settled(1), 1, seen(1, 0.2, complete=False))[0]
    assert low.wanted == 1
    memory = Memory(recommended=((-400.0, 1), (-100.0, 1)))
    assert decide(POLICY, memory, 3, seen(1, 1.0))[0].wanted == 2
    assert decide(POLICY, memory, 3, seen(1, 1.0, complete=False))[0].wanted == 3
    assert decide(POLICY, memory, 3, seen(1, 5.0, complete=False))[0].wanted == 5


def test_one_missing_signal_of_two_keeps() -> None:
    """Connections alone don't let a broker go while the message rate isn't known."""
    memory = Memory(recommended=((-400.0, 1), (-100.0, 1)))
    loads = (Load("connections", 1.0, 1.0), Load("messages/s unknown", None, 1.0))
    assert decide(POLICY, memory, 3, Seen(1.0, loads))[0].wanted == 3


def test_latency_raises_by_one_and_not_without_end() -> None:
    """A p99 above its aim asks for one more, again after a while, at most two more than the load needs."""
    policy = replace(POLICY, latency_aim_s=0.5)
    memory, wanted = settled(1), 1
    sizes = {}
    for at_s in range(1, 200):
        verdict, memory = decide(policy, memory, wanted, seen(at_s, 0.9, latency_p99_s=2.0))
        wanted = verdict.wanted
        sizes[at_s] = wanted
    assert sizes[15] == 1
    assert sizes[16] == 2
    assert sizes[30] == 2
    assert sizes[31] == 3
    assert sizes[199] == 3


def test_the_forecast_raises_and_never_lowers() -> None:
    """A floor above the need counts, one below doesn't."""
    assert decide(POLICY, settled(2), 2, seen(1, 2.0, floor=3.2))[0].wanted == 4
    assert decide(POLICY, settled(2), 2, seen(1, 3.0, floor=1.0))[0].wanted == 3
    assert decide(POLICY, settled(2), 2, seen(1, 2.0, floor=math.nan))[0].wanted == 2


def test_a_size_outside_the_limits_is_put_right_at_once() -> None:
    """Below the least or above the most, the limits decide."""
    policy = Policy(least=3, most=5)
    assert decide(policy, Memory(), 0, seen(1, None))[0].wanted == 3
    assert decide(policy, Memory(), 9, seen(1, None))[0].wanted == 5


def test_an_up_window_waits_for_a_need_that_lasts() -> None:
    """With a window for going up, a spike shorter than it changes nothing."""
    policy = replace(POLICY, up_window_s=10.0)
    memory, wanted, sizes = settled(1), 1, []
    for at_s in range(2, 60, 2):
        verdict, memory = decide(
            policy, memory, wanted, seen(at_s, 3.0 if 10 <= at_s <= 14 or at_s >= 30 else 1.0)
        )
        wanted = verdict.wanted
        sizes.append((at_s, wanted))
    assert dict(sizes)[28] == 1
    assert dict(sizes)[40] == 1
    assert dict(sizes)[42] == 3


# --- properties ----------------------------------------------------------------------------------
_needs = st.one_of(
    st.floats(0, 30), st.sampled_from([None, math.nan, -5.0, math.inf, 1e30]), st.floats(allow_nan=True)
)
_policies = st.builds(
    lambda least, more, up, down, window, up_window, cool: Policy(
        least=least,
        most=least + more,
        up_step=up,
        down_step=down,
        down_window_s=window,
        up_window_s=up_window,
        cooldown_s=cool,
        latency_aim_s=0.5,
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
    policy: Policy, moments: list[tuple[float, float | None, bool, float | None, float | None]], above: int
) -> None:
    """Within limits, steps, windows and cool-down whatever is seen, and the same answer to the same question."""
    current = min(policy.least + above, policy.most)
    memory, at_s = Memory(), 0.0
    changes: list[tuple[float, int]] = []
    recommended: list[tuple[float, int]] = []
    for pause_s, need, complete, latency, floor in moments:
        at_s += pause_s
        now = seen(at_s, need, complete=complete, latency_p99_s=latency, floor=floor)
        verdict, after = decide(policy, memory, current, now)
        assert (verdict, after) == decide(policy, memory, current, now)
        assert policy.least <= verdict.wanted <= policy.most
        assert verdict.reason
        assert len(after.recommended) < 2 * len(moments) + 3
        recommended.append((at_s, verdict.recommended))
        by = verdict.wanted - current
        if by:
            changes.append((at_s, by))
        came = sum(n for t, n in changes if n > 0 and at_s - t < policy.up_period_s)
        went = -sum(n for t, n in changes if n < 0 and at_s - t < policy.down_period_s)
        assert came <= policy.up_step
        assert went <= policy.down_step
        if by < 0:
            inside = [n for t, n in recommended if at_s - t <= policy.down_window_s]
            assert verdict.wanted >= max(inside)
            assert not [t for t, n in changes if n > 0 and at_s - t < policy.cooldown_s]
        current, memory = verdict.wanted, after


_garbage = st.one_of(st.none(), st.floats(allow_nan=True), st.floats(0, 1e6))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(_garbage, _garbage, st.integers(0, 9), st.floats(allow_nan=True))))
def test_capacity_stays_believable(samples: list[tuple[float | None, float | None, int, float]]) -> None:
    """Whatever is measured, what a CPU second is good for stays within its bounds."""
    capacity = Capacity()
    for per_s, cores, workers, over_s in samples:
        capacity = capacity.learn(per_s, cores, workers, over_s)
        assert LEAST_PER_CPU_S <= capacity.per_cpu_s <= MOST_PER_CPU_S


def test_capacity_is_learned_from_busy_workers() -> None:
    """A busy worker's own figure is reached to 5 % in ten minutes; one second and idleness say little and nothing."""
    capacity = Capacity()
    assert capacity.per_cpu_s == GUESS_PER_CPU_S
    assert capacity.learn(100.0, 0.08, 1, 600.0) == capacity
    assert capacity.learn(10_000.0, 0.4, 2, 600.0) == capacity
    assert capacity.learn(10.0, 1.0, 1, 1.0).per_cpu_s > 0.8 * GUESS_PER_CPU_S
    for _ in range(300):
        capacity = capacity.learn(0.7 * 20_000, 0.7, 1, 2.0)
    assert capacity.per_cpu_s == pytest.approx(20_000, rel=0.05)


# --- simulated fleets ------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("level", [1.5, 2.0, 3.0, 3.95])
def test_noise_does_not_flap(seed: int, level: float) -> None:
    """A steady load with 8 % noise changes the fleet at most four times an hour, whatever the level."""
    print("seed", seed)
    noise = random.Random(seed)
    run = simulate(lambda _: max(noise.gauss(level, 0.08 * level) * CAPACITY, 0.0), 4 * 3600, POLICY, start=2)
    settled_changes = [at_s for at_s, _ in run.changes if at_s > 600]
    assert len(settled_changes) <= 4 * 4, settled_changes


@pytest.mark.parametrize("high", [2.5, 4.0, 7.5])
def test_a_jump_is_followed_without_overshoot(high: float) -> None:
    """After a jump of the load there is never more than one step more than it needs, and soon enough."""
    run = simulate(lambda t: (0.5 if t < 600 else high) * CAPACITY, 1800, POLICY)
    assert max(step.wanted for step in run.steps) <= math.ceil(high) + POLICY.up_step
    enough = next(step.at_s for step in run.steps if step.at_s >= 600 and step.counting * FULL >= step.rate)
    assert enough - 600 <= math.ceil(high / POLICY.up_step) * POLICY.up_period_s + 10
    assert run.steps[-1].lag == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_day_with_two_peaks_is_followed(seed: int) -> None:
    """Capacity is at least the load all day but for seconds, at most 1.6 times what is ideal, up and down twice."""
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
    """With a tenth of the signals missing or absurd, and gaps of minutes, the day is still followed."""
    print("seed", seed)
    chance = random.Random(seed)

    def heard(at_s: float, rate: float, lag: float) -> tuple[float | None, float | None]:
        if at_s % 7200 < 180:
            return None, None
        broken = chance.random()
        if broken < 0.05:
            return None, lag
        if broken < 0.1:
            return chance.choice([math.nan, -1.0, math.inf, 1e40]), chance.choice([lag, math.nan])
        return rate, lag

    run = simulate(campus_day(seed), DAY_S, POLICY, heard=heard)
    short_s = PERIOD_S * sum(step.counting * FULL < step.rate for step in run.steps)
    assert short_s <= 60
    ideal = sum(max(step.rate / CAPACITY, 1.0) for step in run.steps)
    assert sum(step.counting for step in run.steps) / ideal <= 3.0


def test_the_forecast_is_ahead_of_the_peak() -> None:
    """With the days before known, workers come earlier than without, and never are there fewer."""
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
