"""How many devices each broker should disconnect so that all brokers carry about the same: pure.

Established MQTT connections never move by themselves: a new broker stays empty until devices reconnect. So
when the fullest broker has `start` times the mean for `for_s`, brokers above the mean disconnect devices at
a slow pace; each comes back through the load balancer, which picks the broker with the fewest connections.
The rebalance ends at `stop` times the mean. Devices on their way count: those disconnected within the last
`flight_s` are subtracted from their broker's report, and the mean is that of the highest total within
that time.

There is one rebalance at a time, none while a broker drains, and none below `min_connections` a broker. A
load balancer that does not pick the broker with the fewest connections would keep it going for ever: a
rebalance may disconnect `BUDGET_FACTOR` times the excess at its start, then it ends and pauses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

#: Devices that one rebalance may disconnect, as a multiple of the excess over the mean at its start.
BUDGET_FACTOR = 1.5
#: Pause after a rebalance that did not help.
REST_S = 300.0


@dataclass(frozen=True, slots=True)
class RebalanceRules:
    """When a rebalance starts and ends, and its pace."""

    start: float = 1.3  # connections of the fullest broker, as a multiple of the mean
    stop: float = 1.1
    for_s: float = 10.0
    share_per_s: float = 0.02  # of a broker's connections, at most
    min_connections: int = 20  # a broker, on average: fewer are not worth it
    flight_s: float = 4.0  # from the request until both brokers' reports show it


@dataclass(frozen=True, slots=True)
class BrokerLoad:
    """A broker's last report."""

    connections: int
    draining: bool = False


@dataclass(frozen=True, slots=True)
class RebalanceState:
    """State of the rebalancer between two plans."""

    uneven_since_s: float | None = None
    budget: int | None = None  # devices that may still be disconnected; None = no rebalance is running
    rest_until_s: float = -math.inf
    sent: tuple[tuple[float, str, int], ...] = ()  # (at, broker, devices)
    totals: tuple[tuple[float, int], ...] = ()  # (at, connections of all)

    @property
    def active(self) -> bool:
        """Whether a rebalance is running."""
        return self.budget is not None

    def ended(self) -> RebalanceState:
        """The state without a rebalance."""
        return replace(self, uneven_since_s=None, budget=None)


@dataclass(frozen=True, slots=True)
class KickPlan:
    """How many devices each broker should disconnect until the next plan; mostly empty."""

    by_broker: dict[str, int]
    reason: str


def plan_kicks(
    rules: RebalanceRules, state: RebalanceState, at_s: float, brokers: dict[str, BrokerLoad], period_s: float
) -> tuple[KickPlan, RebalanceState]:
    """Plan the next `period_s`.

    Returns:
        The plan, and the state for the next call.
    """
    state = _with_report(rules, state, at_s, brokers)
    if any(broker.draining for broker in brokers.values()):
        return KickPlan({}, "a broker drains"), state.ended()
    here = {name: _expected_connections(state, name, broker.connections) for name, broker in brokers.items()}
    total = max((total for _, total in state.totals), default=0)
    mean = total / len(here) if here else 0.0
    if len(here) < 2 or mean < rules.min_connections:
        return KickPlan({}, "too few connections to be uneven"), state.ended()
    fullest = max(here, key=lambda name: (here[name], name))
    ratio = here[fullest] / mean
    spread = f"{fullest} has {here[fullest]} connections, {ratio:.2f} times the mean of {mean:.0f}"
    if not state.active:
        state = _maybe_start(rules, state, at_s, here, mean, ratio)
        if not state.active:
            return KickPlan({}, spread), state
    if ratio <= rules.stop and state.sent:
        # some of the devices on their way are in the reports already, so it may look better than it is
        return KickPlan({}, f"waiting for devices to reconnect: {spread}"), state
    if ratio <= rules.stop:
        return KickPlan({}, f"even again: {spread}"), state.ended()
    budget = state.budget or 0
    if budget <= 0:
        reason = f"paused for {REST_S:.0f} s, disconnecting devices has not helped: {spread}"
        return KickPlan({}, reason), replace(state.ended(), rest_until_s=at_s + REST_S)
    kicks = _kicks(rules, here, mean, period_s, budget)
    sent = tuple((at_s, name, devices) for name, devices in kicks.items())
    state = replace(state, budget=budget - sum(kicks.values()), sent=state.sent + sent)
    return KickPlan(kicks, spread), state


def _with_report(
    rules: RebalanceRules, state: RebalanceState, at_s: float, brokers: dict[str, BrokerLoad]
) -> RebalanceState:
    """The state with the present total, without entries too old to matter."""
    total = sum(broker.connections for broker in brokers.values())
    return replace(
        state,
        sent=tuple(entry for entry in state.sent if at_s - entry[0] < rules.flight_s),
        totals=(*(entry for entry in state.totals if at_s - entry[0] < rules.flight_s), (at_s, total)),
    )


def _expected_connections(state: RebalanceState, name: str, reported: int) -> int:
    """A broker's connections once the devices it disconnects are gone."""
    return max(reported - sum(devices for _, broker, devices in state.sent if broker == name), 0)


def _maybe_start(
    rules: RebalanceRules, state: RebalanceState, at_s: float, here: dict[str, int], mean: float, ratio: float
) -> RebalanceState:
    if ratio < rules.start or at_s < state.rest_until_s:
        return replace(state, uneven_since_s=None)
    since_s = at_s if state.uneven_since_s is None else state.uneven_since_s
    if at_s - since_s < rules.for_s:
        return replace(state, uneven_since_s=since_s)
    excess = sum(max(n - mean, 0.0) for n in here.values())
    return replace(state, uneven_since_s=since_s, budget=math.ceil(BUDGET_FACTOR * excess))


def _kicks(
    rules: RebalanceRules, here: dict[str, int], mean: float, period_s: float, budget: int
) -> dict[str, int]:
    """The excess of each broker above the mean, at the allowed pace, fullest first."""
    kicks: dict[str, int] = {}
    for name in sorted(here, key=lambda name: (-here[name], name)):
        excess = math.floor(here[name] - mean)
        pace = max(math.floor(rules.share_per_s * here[name] * period_s), 1)
        devices = min(excess, pace, budget - sum(kicks.values()))
        if devices > 0:
            kicks[name] = devices
    return kicks
