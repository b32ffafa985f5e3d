"""The rebalance plan, with brokers behind a simulated load balancer."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

import pytest

from headcount.scaling.rebalance import REST_S, BrokerLoad, RebalanceRules, RebalanceState, plan_kicks

PERIOD_S = 2.0
RULES = RebalanceRules()


@dataclass
class Site:
    """Brokers with connections; disconnected devices come back after a jitter, through the load balancer."""

    seed: int
    connections: dict[str, int]
    assign: Literal["leastconn", "random"] = "leastconn"
    report_s: float = 1.0
    kicked: int = 0
    drained: set[str] = field(default_factory=set)
    highest: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start at time 0."""
        self._random = random.Random(self.seed)
        self._flying: list[float] = []
        self._to_send: list[tuple[float, str]] = []
        self._reported: list[tuple[float, dict[str, int]]] = []
        self.state = RebalanceState()
        self.reasons: list[str] = []
        self.now_s = 0.0

    def run(self, seconds: float) -> None:
        """Simulate some seconds, in steps of a tenth of a second."""
        for _ in range(int(seconds * 10)):
            self.now_s = round(self.now_s + 0.1, 1)
            self._move()
            if round(self.now_s % self.report_s, 1) in (0.0, self.report_s):
                self._reported.append((self.now_s, dict(self.connections)))
            if round(self.now_s % PERIOD_S, 1) in (0.0, PERIOD_S) and self._reported:
                self._step()

    def _move(self) -> None:
        due = [name for at_s, name in self._to_send if at_s <= self.now_s]
        self._to_send = [pair for pair in self._to_send if pair[0] > self.now_s]
        for name in due:
            if self.connections[name]:
                self.connections[name] -= 1
                self._flying.append(self.now_s + self._random.uniform(0.0, 3.0))
        landing = sum(at_s <= self.now_s for at_s in self._flying)
        self._flying = [at_s for at_s in self._flying if at_s > self.now_s]
        for _ in range(landing):
            self.connections[self._target()] += 1

    def _target(self) -> str:
        open_ = [name for name in self.connections if name not in self.drained]
        if self.assign == "random":
            return self._random.choice(open_)
        return min(open_, key=lambda name: (self.connections[name], self._random.random()))

    def _step(self) -> None:
        _, reported = self._reported[-1]
        brokers = {name: BrokerLoad(n, name in self.drained) for name, n in reported.items()}
        kicks, self.state = plan_kicks(RULES, self.state, self.now_s, brokers, PERIOD_S)
        self.reasons.append(kicks.reason)
        for name, devices in kicks.by_broker.items():
            self.kicked += devices
            pace = devices / max(self.connections[name], 1) / PERIOD_S
            self.highest.append(pace)
            self._to_send += [(self.now_s + PERIOD_S * n / devices, name) for n in range(devices)]

    @property
    def spread(self) -> float:
        """The connections of the fullest broker, as a multiple of the mean."""
        values = list(self.connections.values())
        return max(values) * len(values) / sum(values)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "connections",
    [
        {"a": 3000, "b": 0},
        {"a": 1000, "b": 1000, "c": 0},
        {"a": 5000, "b": 900, "c": 100},
        {"a": 400, "b": 390, "c": 410, "d": 0, "e": 0},
        {"a": 60, "b": 0},
    ],
)
def test_new_brokers_get_their_share(seed: int, connections: dict[str, int]) -> None:
    """Within four minutes the spread is at most 1.15, no broker falls far below the mean, and few devices move twice."""
    print("seed", seed)
    site = Site(seed, dict(connections))
    mean = sum(connections.values()) / len(connections)
    excess = sum(max(n - mean, 0) for n in connections.values())
    site.run(240)
    assert site.spread <= 1.15
    assert min(site.connections.values()) >= 0.75 * mean  # no overshoot
    assert site.kicked <= 1.2 * excess + len(connections)
    assert max(site.highest) <= max(RULES.share_per_s * 1.1, 1 / PERIOD_S / (0.5 * mean))
    kicked = site.kicked
    site.run(300)
    assert site.kicked == kicked  # it has ended and does not start again
    assert sum(site.connections.values()) == sum(connections.values())


def test_a_short_unevenness_is_left_alone() -> None:
    """No device is disconnected before ten seconds of unevenness, nor below 1.3 times the mean."""
    state = RebalanceState()
    for at_s in range(0, 10, 2):
        kicks, state = plan_kicks(RULES, state, at_s, {"a": BrokerLoad(800), "b": BrokerLoad(200)}, PERIOD_S)
        assert not kicks.by_broker
    kicks, state = plan_kicks(RULES, state, 10, {"a": BrokerLoad(600), "b": BrokerLoad(400)}, PERIOD_S)
    assert not kicks.by_broker
    kicks, state = plan_kicks(RULES, state, 12, {"a": BrokerLoad(800), "b": BrokerLoad(200)}, PERIOD_S)
    assert not kicks.by_broker
    for at_s in range(100, 200, 2):
        kicks, state = plan_kicks(RULES, state, at_s, {"a": BrokerLoad(640), "b": BrokerLoad(360)}, PERIOD_S)
        assert not kicks.by_broker


def test_nothing_while_a_broker_drains() -> None:
    """While a broker drains no rebalance starts, and a running one ends."""
    site = Site(1, {"a": 1000, "b": 0})
    site.run(16)
    assert site.state.active
    site.connections["c"] = 0
    site.drained = {"c"}
    site.run(PERIOD_S)
    kicked = site.kicked
    site.run(60)
    assert site.kicked == kicked
    assert not site.state.active
    assert site.reasons[-1] == "a broker drains"
    site.drained, site.connections = set(), {k: v for k, v in site.connections.items() if k != "c"}
    site.run(200)
    assert site.spread <= 1.2


def test_few_connections_are_left_alone() -> None:
    """Fewer than 20 connections a broker, a single broker, or none start no rebalance."""
    for brokers in ({"a": BrokerLoad(30), "b": BrokerLoad(0)}, {"a": BrokerLoad(900)}, {}):
        state = RebalanceState()
        for at_s in range(0, 100, 2):
            kicks, state = plan_kicks(RULES, state, at_s, brokers, PERIOD_S)
            assert not kicks.by_broker


@pytest.mark.parametrize("seed", range(2))
def test_a_balancer_that_does_not_help_is_given_up(seed: int) -> None:
    """When disconnected devices come back to the same broker, their number is bounded and the reason explains it."""
    print("seed", seed)
    state, kicked, reasons = RebalanceState(), 0, []
    brokers = {"a": BrokerLoad(1000), "b": BrokerLoad(100)}
    for at_s in range(0, int(REST_S), 2):
        kicks, state = plan_kicks(RULES, state, at_s, brokers, PERIOD_S)
        kicked += sum(kicks.by_broker.values())
        reasons.append(kicks.reason)
    assert kicked <= 1.5 * 450 + 1
    assert any("has not helped" in reason for reason in reasons)


def test_a_random_balancer_converges_too() -> None:
    """With a random load balancer it takes longer and disconnects more devices, but ends."""
    site = Site(2, {"a": 2000, "b": 0, "c": 0}, assign="random")
    site.run(600)
    assert site.spread <= 1.2
    assert site.kicked <= 1.5 * 1334 * 2
