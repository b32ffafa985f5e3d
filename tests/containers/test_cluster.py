"""The cluster of deploy/compose.yaml as real containers: whichever breaks, nothing acknowledged is lost."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import SystemRandom
from typing import Any

import numpy as np
import pytest
from docker.errors import NotFound

from containers.drills import Done, Drill, api_answers, costs, counts, drill, scaling
from containers.stack import Stack, engine, until
from containers.watch import Watch, judge
from headcount.lab.chaos.observer import ObservedCounts
from headcount.lab.chaos.short_holds import short_hold_scenario
from headcount.lab.chaos.traffic import traffic
from headcount.messages.counts import COUNT_FIELDS
from headcount.messages.times import iso
from headcount.messages.topics import KINDS

PARTITIONS = 8
#: The drills take about as long.
LOAD_S = 100.0
#: Longer than a worker's lease and than a unit's sign of life.
LONG_S = 6.0
DRILLS = (
    *(Drill("broker", 1, "kill"), Drill("count", 1, "kill"), Drill("core", 1, "kill")),
    *(Drill("proxy", 1, "kill"), Drill("api", 1, "kill"), Drill("history", 1, "kill")),
    *(Drill("broker", 2, "pause", LONG_S), Drill("count", 2, "pause", LONG_S), Drill("core", 1, "pause", 3)),
    *(Drill("proxy", 1, "pause", 2), Drill("api", 1, "pause", 2), Drill("history", 1, "pause", 2)),
    *(Drill("broker", 3, "cut off", LONG_S), Drill("count", 3, "cut off", LONG_S)),
    *(Drill("core", 1, "cut off", 3), Drill("proxy", 1, "cut off", 3)),
    *(Drill("api", 1, "cut off", 2), Drill("history", 1, "cut off", 2)),
    *(Drill("broker", 1, "stop"), Drill("count", 1, "stop"), Drill("adapters", 1, "kill")),
)


@pytest.mark.docker
@pytest.mark.slow
def test_whichever_container_breaks(tmp_path: Path) -> None:
    """Each kind of container is killed, paused and cut off under load: what was acknowledged is counted, and right."""
    run = Run(tmp_path, LOAD_S)
    with run.stack(scale={"broker": 3, "count": 3}) as stack, run.watch(stack) as watch:
        run.begin(stack, watch)
        done = []
        for one in DRILLS:
            done.append(drill(stack, stack.one(one.service, one.number), one))
            time.sleep(1)
        run.judge(stack, watch, done)


@pytest.mark.docker
@pytest.mark.slow
def test_the_scaler_mends_its_fleet(tmp_path: Path) -> None:
    """The scaler's own containers, and the scaler, break under load: it has the fleet whole again, exact all the time."""
    run = Run(tmp_path, 40)
    limits = {"MIN_BROKERS": "2", "MAX_BROKERS": "3", "MIN_WORKERS": "2", "MAX_WORKERS": "3"}
    with (
        run.stack(scale={"broker": 0, "count": 0}, profiles=["elastic"], **limits) as stack,
        run.watch(stack) as watch,
    ):
        until(lambda: is_whole(stack), "the fleet", 180)
        run.begin(stack, watch)
        done = []
        for role, what in (("broker", "kill"), ("count", "kill"), ("scale", "kill"), ("count", "cut off")):
            victim = (stack.scaled(role) or stack.all(role))[0]
            one = Drill(role, 1, what, LONG_S if what == "cut off" else 0)
            done.append(drill(stack, victim, one, lambda: is_whole(stack)))
        state = scaling(stack)
        print(f"decisions: {[decision['reason'] for decision in state['decisions']]}")
        run.judge(stack, watch, done)
    assert state["driver"] == "docker"
    assert {target["role"] for target in state["targets"]} == {"broker", "count"}


def is_whole(stack: Stack) -> bool:
    """Whether the scaler has as many brokers and workers as there must be, all of them well, and no more."""
    try:
        fleet = {role: stack.scaled(role) for role in ("broker", "count")}
        return all(2 <= len(units) <= 3 and all(map(stack.is_well, units)) for units in fleet.values())
    except NotFound:  # one went while we looked
        return False


class Run:
    """A campus, the messages of its devices, and the judgement."""

    def __init__(self, folder: Path, load_s: float) -> None:
        """Draw all from a random seed; `load_s` seconds of load."""
        seed = SystemRandom().randrange(10**6)
        print(f"seed {seed}")
        self._folder = folder
        self._geojson = short_hold_scenario(seed).geojson
        self._says = traffic(seed, short_hold_scenario(seed), load_s, [])
        self._site_id = self._geojson["features"][0]["properties"]["id"]
        self._site = folder / "site.geojson"
        self._site.write_text(json.dumps(self._geojson))
        self._site.chmod(0o644)

    def stack(self, **options: Any) -> Stack:
        """The cluster that counts it."""
        return Stack(engine(), self._site, partitions=PARTITIONS, **options)

    def watch(self, stack: Stack) -> Watch:
        """Devices and an ear."""
        return Watch(stack, self._says)

    def begin(self, stack: Stack, watch: Watch) -> None:
        """Wait for the cluster, and start the devices."""
        counting_s = until(lambda: watch.oldest(PARTITIONS) > 0, "the first counts", 90)
        ready_s = until(lambda: api_answers(stack), "the API through the proxy", 180)
        print(f"counts after {counting_s:.1f} s more, the API through the proxy after {ready_s:.1f} s more")
        watch.begin()
        time.sleep(2)

    def judge(self, stack: Stack, watch: Watch, done: list[Done]) -> None:
        """Everything that was acknowledged is there, and everything that was published is right."""
        watch.finish(120)
        until(lambda: api_answers(stack), "the API answers at the end", 180)
        end_s = time.time()
        said = counts(stack, self._site_id)
        comparison = judge(stack, watch, self._geojson, PARTITIONS, self._folder)
        print(*costs(done, watch, PARTITIONS, end_s), sep="\n")
        sent = watch.sent
        print(
            f"{sent.messages} messages sent, {len(sent.acknowledged)} fixes acknowledged, {sent.resent} sent again, "
            f"{sent.dropped} of QoS 0 dropped by the sender; {sent.disconnects} connections broke"
        )
        print(
            f"{comparison.fixes} fixes in the log, {comparison.counts} counts, {comparison.totals} totals, "
            f"{comparison.events} events, {comparison.rows} rows and {comparison.recorded} counts in the history"
        )
        assert comparison.lost == []
        assert comparison.differences == []
        assert comparison.acknowledged > len(self._says) / 10
        assert comparison.totals > 50
        assert numbers(said) == published_sum(watch.reports, said["at"]), said["at"]


def numbers(said: dict[str, Any]) -> list[list[int]]:
    """The counts of an answer of the API: one list a zone and kind."""
    return [[zone[kind][name] for name in COUNT_FIELDS] for zone in said["zones"] for kind in KINDS]


def published_sum(reports: list[ObservedCounts], at: str) -> list[list[int]]:
    """The sum of the partitions' counts at an instant, in the form of `numbers`."""
    values = {one.partition: one.values for one in reports if iso(one.at) == at}
    assert len(values) == PARTITIONS
    total = np.sum([np.frombuffer(one, "<i4") for one in values.values()], axis=0)
    found: list[list[int]] = total.reshape(-1, len(COUNT_FIELDS)).tolist()
    return found
