"""How many units a role needs: a pure function of what was seen, with no clock of its own.

    need = load / what one unit carries, the largest over all kinds of load
    load of the workers = rate + lag / drain_time

From there on the rules are those of Kubernetes' Horizontal Pod Autoscaler, so that what an operator knows of
it holds here too:

1. Within `tolerance` of what there is, nothing changes.
2. A need that isn't known changes nothing. A need that is known only in part (a unit is silent) may
   raise, not lower.
3. Going up takes the smallest recommendation of the last `up_window_s`, going down the largest of the
   last `down_window_s`.
4. At most `up_step` units come within `up_period_s`, at most `down_step` go within `down_period_s`.
5. Never below `least`, never above `most`.

And three of our own: a latency above its aim asks for one unit more than there are, at most `MOST_FOR_LATENCY`
more than the load needs; a forecast may raise the recommendation, never lower it; after a change in
one direction none in the other for `cooldown_s`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

#: A latency above its aim raises at most so many units above what the load needs: more of the
#: same doesn't help where something else is slow.
MOST_FOR_LATENCY = 2
#: Loads beyond any machine are garbage; it also keeps quotients finite.
_LARGEST = 1e12


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits and windows of one role."""

    least: int = 1
    most: int = 4
    tolerance: float = 0.1
    up_window_s: float = 0.0
    down_window_s: float = 300.0
    up_step: int = 2
    up_period_s: float = 15.0
    down_step: int = 1
    down_period_s: float = 60.0
    cooldown_s: float = 30.0
    latency_aim_s: float | None = None
    latency_for_s: float = 15.0  # so long above its aim before it counts, and again after each change


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of load: how much there is altogether, and how much of it one unit carries."""

    text: str  # with its numbers, for the reason: "12000 fixes/s"
    amount: float | None  # None = not known
    per_unit: float

    @property
    def need(self) -> float | None:
        """Units for this load, with fractions; None where amount or capacity are no usable numbers."""
        amount = self.amount
        if amount is None or not 0 <= amount <= _LARGEST or not 0 < self.per_unit <= _LARGEST:
            return None
        return amount / self.per_unit


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known at one moment."""

    at_s: float  # of a clock that only goes forward
    loads: tuple[Load, ...]
    complete: bool = True  # whether every unit that there should be was heard
    latency_p99_s: float | None = None
    floor: float | None = None  # units for the forecast load


@dataclass(frozen=True, slots=True)
class Memory:
    """What the law remembers from one moment to the next."""

    recommended: tuple[tuple[float, int], ...] = ()  # (at, units)
    changed: tuple[tuple[float, int], ...] = ()  # (at, difference)
    slow_since_s: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many there should be, and why, in words with the numbers."""

    wanted: int
    recommended: int  # before windows and steps
    reason: str


def workers_load(rate: float | None, lag: float | None, drain_s: float, capacity: float) -> Load:
    """The load of counting: fixes per second, and what waits, to be worked off within `drain_s`."""
    if not _usable(rate) or not _usable(lag) or rate is None or lag is None:
        return Load("fixes/s unknown", None, capacity)
    text = f"{rate:.0f} fixes/s"
    if lag / drain_s > 0.01 * rate:
        text += f" and {lag:.0f} waiting, to be worked off in {drain_s:g} s,"
    return Load(text, rate + lag / drain_s, capacity)


def decide(policy: Policy, memory: Memory, current: int, seen: Seen) -> tuple[Verdict, Memory]:
    """How many units there should be when there are `current`; and what to remember for the next time."""
    now_s = seen.at_s
    if not policy.least <= current <= policy.most:
        wanted = min(max(current, policy.least), policy.most)
        limit = f"at least {policy.least}" if current < policy.least else f"at most {policy.most}"
        reason = f"there are {current}, and {limit} may be"
        return Verdict(wanted, wanted, reason), _remember(policy, memory, now_s, wanted, wanted - current)
    memory = _begin(memory, now_s, current)
    memory = _watch_latency(policy, memory, seen)
    recommended, why = _recommend(policy, memory, current, seen)
    memory = _remember(policy, memory, now_s, recommended, 0)
    wanted, held = _paced(policy, memory, current, recommended, now_s)
    reason = why if not held else f"{why}; {held}"
    if wanted != current:
        memory = _remember(policy, memory, now_s, recommended, wanted - current)
    return Verdict(wanted, recommended, reason), memory


def _usable(value: float | None) -> bool:
    return value is not None and 0 <= value <= _LARGEST


def _begin(memory: Memory, now_s: float, current: int) -> Memory:
    """At the first look what there is was once right: nothing goes before a whole window was seen."""
    # a little earlier: what is recommended now must not replace it
    return memory if memory.recommended else replace(memory, recommended=((now_s - 0.001, current),))


def _watch_latency(policy: Policy, memory: Memory, seen: Seen) -> Memory:
    latency = seen.latency_p99_s
    aim = policy.latency_aim_s
    # not known is not slow
    if aim is None or latency is None or not aim < latency <= _LARGEST:
        return replace(memory, slow_since_s=None)
    return memory if memory.slow_since_s is not None else replace(memory, slow_since_s=seen.at_s)


def _recommend(policy: Policy, memory: Memory, current: int, seen: Seen) -> tuple[int, str]:
    """What the signals alone ask for, within the limits."""
    needs = [(need, load) for load in seen.loads if (need := load.need) is not None]
    if not needs:
        return current, f"{current} kept: no signal is usable"
    need, load = max(needs, key=lambda pair: pair[0])
    why = f"{load.text} need {need:.2f} of {load.per_unit:.4g} each"
    recommended = math.ceil(need)
    if abs(need / current - 1) <= policy.tolerance + 1e-9:
        recommended, why = current, f"{why}, {current} is near enough"
    if recommended < current and (not seen.complete or len(needs) < len(seen.loads)):
        recommended, why = current, f"{why}, but not every unit and signal was heard: nothing goes"
    slow_s = (
        0.0 if memory.slow_since_s is None else seen.at_s - max(memory.slow_since_s, _last_change(memory))
    )
    latency = seen.latency_p99_s
    if memory.slow_since_s is not None and slow_s >= policy.latency_for_s and latency is not None:
        slow = min(current + 1, math.ceil(need) + MOST_FOR_LATENCY)
        if slow > recommended:
            recommended = slow
            why = f"p99 of {latency:.2f} s is above {policy.latency_aim_s:g} s; {why}"
    floor = seen.floor
    if floor is not None and 0 <= floor <= _LARGEST and math.ceil(floor) > recommended:
        recommended, why = math.ceil(floor), f"the forecast asks for {floor:.2f}; {why}"
    return min(max(recommended, policy.least), policy.most), why


def _paced(policy: Policy, memory: Memory, current: int, recommended: int, now_s: float) -> tuple[int, str]:
    """Windows, cool-down and steps between a recommendation and a change; and what held it back."""
    if recommended > current:
        lowest = _within(memory, now_s, policy.up_window_s, smallest=True)
        wanted = max(min(recommended, lowest), current)
        if wanted == current:
            return current, f"{recommended} wait until they were needed for {policy.up_window_s:g} s"
        room = policy.up_step - _moved(memory, now_s, policy.up_period_s, +1)
        limit = f"at most {policy.up_step} come within {policy.up_period_s:g} s"
    else:
        highest = _within(memory, now_s, policy.down_window_s, smallest=False)
        wanted = min(highest, current)
        if wanted == current:
            if recommended == current:
                return current, ""
            return current, f"{highest} were needed within the last {policy.down_window_s:g} s"
        room = policy.down_step - _moved(memory, now_s, policy.down_period_s, -1)
        limit = f"at most {policy.down_step} go within {policy.down_period_s:g} s"
    direction = 1 if wanted > current else -1
    if _moved(memory, now_s, policy.cooldown_s, -direction):
        return current, f"{wanted} wait: the last change was the other way, within {policy.cooldown_s:g} s"
    paced = current + direction * min(abs(wanted - current), max(room, 0))
    return paced, "" if paced == wanted else f"{wanted} wait: {limit}"


def _within(memory: Memory, now_s: float, window_s: float, *, smallest: bool) -> int:
    """The smallest or largest recommendation that held at some time within the window."""
    values = [units for at_s, units in memory.recommended if now_s - at_s <= window_s]
    if smallest:
        # one that was made before the window held until the first one inside
        before = [units for at_s, units in memory.recommended if now_s - at_s > window_s]
        values += before[-1:] if window_s > 0 else []
        return min(values)
    return max(values)


def _moved(memory: Memory, now_s: float, period_s: float, direction: int) -> int:
    """How many came (1) or went (-1) within the last `period_s`."""
    return sum(abs(by) for at_s, by in memory.changed if now_s - at_s < period_s and by * direction > 0)


def _last_change(memory: Memory) -> float:
    return memory.changed[-1][0] if memory.changed else -math.inf


def _remember(policy: Policy, memory: Memory, now_s: float, recommended: int, change: int) -> Memory:
    """The memory with one recommendation (and change) more, and nothing that is too old to matter."""
    window_s = max(policy.up_window_s, policy.down_window_s)
    inside = [pair for pair in memory.recommended if now_s - pair[0] <= window_s and pair[0] < now_s]
    older = [pair for pair in memory.recommended if now_s - pair[0] > window_s][-1:]
    period_s = max(policy.up_period_s, policy.down_period_s, policy.cooldown_s)
    changed = [pair for pair in memory.changed if now_s - pair[0] <= period_s or pair is memory.changed[-1]]
    return replace(
        memory,
        recommended=(*older, *inside, (now_s, recommended)),
        changed=(*changed, (now_s, change)) if change else tuple(changed),
    )
