"""Which broker should send how many devices away, so that all carry about the same: pure.

Established MQTT connections never move by themselves: a new broker stays empty until devices
reconnect. So where the fullest broker has `start` times the mean for `for_s`, brokers above the mean send
devices away, slowly; each comes back through the balancer, which puts it where there are the fewest.
It ends at `stop` times the mean. What is on its way counts: devices sent away within the last
`flight_s` are taken off what their broker reports, and the mean is that of the highest total seen
within that time.

There is one rebalance at a time, none while a broker drains, and none below `least` connections a broker. A balancer
that doesn't put devices where there are the fewest would make it go on for ever: a rebalance may send
away `BUDGET` times what was too much at its start, then it ends and rests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

#: How much more may be sent away in one rebalance than was above the mean at its start.
BUDGET = 1.5
#: How long after one that hasn't helped the next may begin.
REST_S = 300.0


@dataclass(frozen=True, slots=True)
class Rules:
    """When a rebalance begins and ends, and how fast it goes."""

    start: float = 1.3  # the fullest broker has so many times the mean
    stop: float = 1.1
    for_s: float = 10.0
    share_per_s: float = 0.02  # of a broker's connections, at most
    least: int = 20  # connections a broker, in the mean: fewer aren't worth it
    flight_s: float = 4.0  # from the request until both brokers' reports have it


@dataclass(frozen=True, slots=True)
class Carrier:
    """A broker as it last reported."""

    connections: int
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Balance:
    """What is remembered from one look to the next."""

    uneven_since_s: float | None = None
    budget: int | None = None  # what may still be sent away; None = no rebalance is going on
    rest_until_s: float = -math.inf
    sent: tuple[tuple[float, str, int], ...] = ()  # (at, broker, devices)
    totals: tuple[tuple[float, int], ...] = ()  # (at, connections of all)

    @property
    def active(self) -> bool:
        """Whether a rebalance is going on."""
        return self.budget is not None


@dataclass(frozen=True, slots=True)
class Kicks:
    """How many devices each broker should send away until the next look; empty mostly."""

    by_broker: dict[str, int]
    reason: str


def plan(
    rules: Rules, balance: Balance, at_s: float, carriers: dict[str, Carrier], period_s: float
) -> tuple[Kicks, Balance]:
    """What to send away within the next `period_s`, and what to remember."""
    balance = _noted(rules, balance, at_s, carriers)
    if any(carrier.draining for carrier in carriers.values()):
        return Kicks({}, "a broker drains"), replace(balance, uneven_since_s=None, budget=None)
    here = {name: _here(balance, name, carrier.connections) for name, carrier in carriers.items()}
    total = max((total for _, total in balance.totals), default=0)
    mean = total / len(here) if here else 0.0
    if len(here) < 2 or mean < rules.least:
        return Kicks({}, "too few to be uneven"), replace(balance, uneven_since_s=None, budget=None)
    fullest = max(here, key=lambda name: (here[name], name))
    ratio = here[fullest] / mean
    spread = f"{fullest} has {here[fullest]} connections, {ratio:.2f} times the mean of {mean:.0f}"
    if not balance.active:
        balance = _perhaps_begun(rules, balance, at_s, here, mean, ratio)
        if not balance.active:
            return Kicks({}, spread), balance
    if ratio <= rules.stop and balance.sent:
        # some of those on their way are in the reports already, so it may look better than it is
        return Kicks({}, f"waiting for those on their way: {spread}"), balance
    if ratio <= rules.stop:
        return Kicks({}, f"even again: {spread}"), replace(balance, uneven_since_s=None, budget=None)
    budget = balance.budget or 0
    if budget <= 0:
        reason = f"given up for {REST_S:.0f} s, sending devices away hasn't helped: {spread}"
        rested = replace(balance, uneven_since_s=None, budget=None, rest_until_s=at_s + REST_S)
        return Kicks({}, reason), rested
    kicks = _kicks(rules, here, mean, period_s, budget)
    sent = tuple((at_s, name, devices) for name, devices in kicks.items())
    balance = replace(balance, budget=budget - sum(kicks.values()), sent=balance.sent + sent)
    return Kicks(kicks, spread), balance


def _noted(rules: Rules, balance: Balance, at_s: float, carriers: dict[str, Carrier]) -> Balance:
    """The memory without what is too old, and with the present total."""
    total = sum(carrier.connections for carrier in carriers.values())
    return replace(
        balance,
        sent=tuple(entry for entry in balance.sent if at_s - entry[0] < rules.flight_s),
        totals=(*(entry for entry in balance.totals if at_s - entry[0] < rules.flight_s), (at_s, total)),
    )


def _here(balance: Balance, name: str, reported: int) -> int:
    """What a broker will have when those that were sent away are gone."""
    return max(reported - sum(devices for _, broker, devices in balance.sent if broker == name), 0)


def _perhaps_begun(
    rules: Rules, balance: Balance, at_s: float, here: dict[str, int], mean: float, ratio: float
) -> Balance:
    if ratio < rules.start or at_s < balance.rest_until_s:
        return replace(balance, uneven_since_s=None)
    since_s = at_s if balance.uneven_since_s is None else balance.uneven_since_s
    if at_s - since_s < rules.for_s:
        return replace(balance, uneven_since_s=since_s)
    excess = sum(max(n - mean, 0.0) for n in here.values())
    return replace(balance, uneven_since_s=since_s, budget=math.ceil(BUDGET * excess))


def _kicks(rules: Rules, here: dict[str, int], mean: float, period_s: float, budget: int) -> dict[str, int]:
    """From each broker above the mean its excess, at the pace that is allowed, fullest first."""
    kicks: dict[str, int] = {}
    for name in sorted(here, key=lambda name: (-here[name], name)):
        excess = math.floor(here[name] - mean)
        pace = max(math.floor(rules.share_per_s * here[name] * period_s), 1)
        devices = min(excess, pace, budget - sum(kicks.values()))
        if devices > 0:
            kicks[name] = devices
    return kicks
