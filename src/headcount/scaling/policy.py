"""The scaling policy: the number of units a role needs, as a pure function of observations.

    units for a load = load / capacity of one unit; the largest over all kinds of load decides
    load of the workers = rate + lag / drain_time

The rest follows the rules of Kubernetes' Horizontal Pod Autoscaler, which operators know:

1. Within `tolerance` of the current size, nothing changes.
2. An unknown load changes nothing. A load that is known only in part (a unit does not report) may
   raise the number of units, not lower it.
3. Scaling up takes the smallest recommendation of the last `up_window_s`, scaling down the largest of
   the last `down_window_s`.
4. At most `up_step` units are added per `up_period_s`, at most `down_step` removed per `down_period_s`.
5. The result is never below `min_units` and never above `max_units`.

Three rules are added: a latency above its target asks for one unit more than there are, at most
`MAX_UNITS_FOR_LATENCY` more than the load needs; a forecast may raise the recommendation, never lower it;
after a change in one direction there is none in the other for `cooldown_s`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

#: A latency above its target adds at most this many units to what the load needs: more of the same
#: does not help when the delay is elsewhere.
MAX_UNITS_FOR_LATENCY = 2
#: Larger values are garbage; the limit also keeps quotients finite.
_MAX_LOAD = 1e12


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """Limits and windows for one role."""

    min_units: int = 1
    max_units: int = 4
    tolerance: float = 0.1
    up_window_s: float = 0.0
    down_window_s: float = 300.0
    up_step: int = 2
    up_period_s: float = 15.0
    down_step: int = 1
    down_period_s: float = 60.0
    cooldown_s: float = 30.0
    latency_target_s: float | None = None
    latency_for_s: float = 15.0  # how long latency must exceed its target, counted again after each change


@dataclass(frozen=True, slots=True)
class Demand:
    """One kind of load: its total, and the share that one unit carries."""

    text: str  # with its numbers, for the reason: "12000 fixes/s"
    amount: float | None  # None = unknown
    per_unit: float

    @property
    def units(self) -> float | None:
        """Units for this load, with fractions; None if amount or capacity is not a usable number."""
        amount = self.amount
        if amount is None or not 0 <= amount <= _MAX_LOAD or not 0 < self.per_unit <= _MAX_LOAD:
            return None
        return amount / self.per_unit


@dataclass(frozen=True, slots=True)
class Observation:
    """The observed state of one role at one moment."""

    at_s: float  # of a monotonic clock
    loads: tuple[Demand, ...]
    complete: bool = True  # whether every expected unit has reported
    latency_p99_s: float | None = None
    floor: float | None = None  # units for the forecast load


@dataclass(frozen=True, slots=True)
class PolicyState:
    """State of the policy between two decisions."""

    recommended: tuple[tuple[float, int], ...] = ()  # (at, units)
    changed: tuple[tuple[float, int], ...] = ()  # (at, difference)
    slow_since_s: float | None = None


@dataclass(frozen=True, slots=True)
class ScaleDecision:
    """The number of units there should be, and the reason with its numbers."""

    wanted: int
    recommended: int  # before windows and steps
    reason: str


def worker_demand(rate: float | None, lag: float | None, drain_s: float, capacity: float) -> Demand:
    """The demand on counting workers: fixes per second, plus the lag, to be drained within `drain_s`."""
    if rate is None or lag is None or not 0 <= rate <= _MAX_LOAD or not 0 <= lag <= _MAX_LOAD:
        return Demand("fixes/s unknown", None, capacity)
    text = f"{rate:.0f} fixes/s"
    if lag / drain_s > 0.01 * rate:
        text += f" and a lag of {lag:.0f}, to be drained in {drain_s:g} s,"
    return Demand(text, rate + lag / drain_s, capacity)


def decide(
    policy: ScalingPolicy, state: PolicyState, current: int, observation: Observation
) -> tuple[ScaleDecision, PolicyState]:
    """Decide how many units there should be when there are `current`.

    Returns:
        The decision, and the state for the next call.
    """
    now_s = observation.at_s
    if not policy.min_units <= current <= policy.max_units:
        wanted = min(max(current, policy.min_units), policy.max_units)
        limit = f"at least {policy.min_units}" if wanted > current else f"at most {policy.max_units}"
        reason = f"{current} units are outside the limits: {limit}"
        return ScaleDecision(wanted, wanted, reason), _remember(
            policy, state, now_s, wanted, wanted - current
        )
    state = _with_first_recommendation(state, now_s, current)
    state = _track_latency(policy, state, observation)
    recommended, reason = _recommend(policy, state, current, observation)
    state = _remember(policy, state, now_s, recommended, 0)
    wanted, limited = _limit_change(policy, state, current, recommended, now_s)
    if limited:
        reason = f"{reason}; {limited}"
    if wanted != current:
        state = _remember(policy, state, now_s, recommended, wanted - current)
    return ScaleDecision(wanted, recommended, reason), state


def _with_first_recommendation(state: PolicyState, now_s: float, current: int) -> PolicyState:
    """Count the initial size as recommended: no unit is removed before a whole window was observed."""
    # slightly earlier, so that the first real recommendation does not replace it
    return state if state.recommended else replace(state, recommended=((now_s - 0.001, current),))


def _track_latency(policy: ScalingPolicy, state: PolicyState, observation: Observation) -> PolicyState:
    latency, target = observation.latency_p99_s, policy.latency_target_s
    # an unknown latency does not count as slow
    if target is None or latency is None or not target < latency <= _MAX_LOAD:
        return replace(state, slow_since_s=None)
    return state if state.slow_since_s is not None else replace(state, slow_since_s=observation.at_s)


def _recommend(
    policy: ScalingPolicy, state: PolicyState, current: int, observation: Observation
) -> tuple[int, str]:
    """The number of units that the signals alone ask for, within the limits."""
    known = [(units, load) for load in observation.loads if (units := load.units) is not None]
    if not known:
        return current, f"unchanged at {current}: no signal is usable"
    needed, load = max(known, key=lambda pair: pair[0])
    why = f"{load.text} need {needed:.2f} units of {load.per_unit:.4g} each"
    recommended = math.ceil(needed)
    if abs(needed / current - 1) <= policy.tolerance + 1e-9:
        recommended, why = current, f"{why}, within the tolerance of {current}"
    if recommended < current and (not observation.complete or len(known) < len(observation.loads)):
        recommended, why = current, f"{why}, but a unit or signal is missing: no scaling down"
    latency = observation.latency_p99_s
    if state.slow_since_s is not None and latency is not None:
        slow_s = observation.at_s - max(state.slow_since_s, _last_change_s(state))
        raised = min(current + 1, math.ceil(needed) + MAX_UNITS_FOR_LATENCY)
        if slow_s >= policy.latency_for_s and raised > recommended:
            recommended = raised
            why = f"p99 latency of {latency:.2f} s is above {policy.latency_target_s:g} s; {why}"
    floor = observation.floor
    if floor is not None and 0 <= floor <= _MAX_LOAD and math.ceil(floor) > recommended:
        recommended, why = math.ceil(floor), f"the forecast asks for {floor:.2f} units; {why}"
    return min(max(recommended, policy.min_units), policy.max_units), why


def _limit_change(
    policy: ScalingPolicy, state: PolicyState, current: int, recommended: int, now_s: float
) -> tuple[int, str]:
    """Apply windows, cool-down and steps to a recommendation; returns the size, and what limited it."""
    if recommended > current:
        lowest = _recommended_within(state, now_s, policy.up_window_s, smallest=True)
        wanted = max(min(recommended, lowest), current)
        if wanted == current:
            return current, f"{recommended} must be needed for {policy.up_window_s:g} s first"
        room = policy.up_step - _units_moved(state, now_s, policy.up_period_s, +1)
        limit = f"at most {policy.up_step} are added per {policy.up_period_s:g} s"
    else:
        highest = _recommended_within(state, now_s, policy.down_window_s, smallest=False)
        wanted = min(highest, current)
        if wanted == current:
            if recommended == current:
                return current, ""
            return current, f"{highest} were needed within the last {policy.down_window_s:g} s"
        room = policy.down_step - _units_moved(state, now_s, policy.down_period_s, -1)
        limit = f"at most {policy.down_step} are removed per {policy.down_period_s:g} s"
    direction = 1 if wanted > current else -1
    if _units_moved(state, now_s, policy.cooldown_s, -direction):
        return current, f"{wanted} must wait: cooling down for {policy.cooldown_s:g} s"
    limited = current + direction * min(abs(wanted - current), max(room, 0))
    return limited, "" if limited == wanted else f"{wanted} must wait: {limit}"


def _recommended_within(state: PolicyState, now_s: float, window_s: float, *, smallest: bool) -> int:
    """The smallest or largest recommendation in effect at some time within the window."""
    values = [units for at_s, units in state.recommended if now_s - at_s <= window_s]
    if smallest:
        # a recommendation made before the window stayed in effect until the first one inside it
        before = [units for at_s, units in state.recommended if now_s - at_s > window_s]
        values += before[-1:] if window_s > 0 else []
        return min(values)
    return max(values)


def _units_moved(state: PolicyState, now_s: float, period_s: float, direction: int) -> int:
    """Units added (1) or removed (-1) within the last `period_s`."""
    return sum(abs(by) for at_s, by in state.changed if now_s - at_s < period_s and by * direction > 0)


def _last_change_s(state: PolicyState) -> float:
    return state.changed[-1][0] if state.changed else -math.inf


def _remember(
    policy: ScalingPolicy, state: PolicyState, now_s: float, recommended: int, change: int
) -> PolicyState:
    """The state with one more recommendation (and change), without entries too old to matter."""
    window_s = max(policy.up_window_s, policy.down_window_s)
    inside = [pair for pair in state.recommended if now_s - pair[0] <= window_s and pair[0] < now_s]
    older = [pair for pair in state.recommended if now_s - pair[0] > window_s][-1:]
    period_s = max(policy.up_period_s, policy.down_period_s, policy.cooldown_s)
    changed = [pair for pair in state.changed if now_s - pair[0] <= period_s or pair is state.changed[-1]]
    return replace(
        state,
        recommended=(*older, *inside, (now_s, recommended)),
        changed=(*changed, (now_s, change)) if change else tuple(changed),
    )
