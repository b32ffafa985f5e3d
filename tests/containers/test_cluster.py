"""The cluster of deploy/compose.yaml as real containers: whichever breaks, nothing acknowledged is lost."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import SystemRandom
from typing import Any

import numpy as np
import pytest

from containers.drills import Done, Drill, api_answers, costs, counts, drill
from containers.stack import Stack, engine, until
from containers.watch import Watch, judge
from headcount.prove.campus import campus
from headcount.prove.hearing import Report
from headcount.prove.load import load
from headcount.wire import KINDS, NUMBERS, iso

PARTITIONS = 8
#: The drills take about as long.
LOAD_S = 110.0
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
@pytest.mark.timeout(600)
def test_whichever_container_breaks(tmp_path: Path) -> None:
    """Containers of every kind are killed, paused and cut off under load: all acknowledged is counted, as by the rules."""
    seed = SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    scene = campus(seed)
    site = tmp_path / "site.geojson"
    site.write_text(json.dumps(scene.geojson))
    site.chmod(0o644)
    site_id = scene.geojson["features"][0]["properties"]["id"]
    says = load(seed, scene, LOAD_S, [])
    with (
        Stack(engine(), site, partitions=PARTITIONS, scale={"broker": 3, "count": 3}) as stack,
        Watch(stack, says, site_id) as watch,
    ):
        print(
            f"counts after {until(lambda: watch.oldest(PARTITIONS) > 0, 'the first counts', 60):.1f} s more"
        )
        print(f"ready after {until(lambda: api_answers(stack), 'the API through the proxy', 60):.1f} s more")
        watch.begin()
        time.sleep(2)
        done: list[Done] = []
        for one in DRILLS:
            done.append(drill(stack, one))
            time.sleep(1)
        watch.finish(120)
        until(lambda: api_answers(stack), "the API answers at the end", 30)
        end_s = time.time()
        said = counts(stack, site_id)
        comparison = judge(stack, watch, scene.geojson, PARTITIONS, tmp_path)
        reports = watch.reports
    sent = watch.sent
    print(*costs(done, watch, PARTITIONS, end_s), sep="\n")
    print(
        f"{sent.messages} messages sent, {len(sent.acknowledged)} fixes acknowledged, {sent.again} sent again, "
        f"{sent.dropped} of QoS 0 dropped by the sender; {sent.broken} connections broke"
    )
    print(
        f"{comparison.fixes} fixes in the log, {comparison.counts} counts, {comparison.totals} totals, "
        f"{comparison.events} events, {comparison.rows} rows and {comparison.recorded} counts in the history"
    )
    assert comparison.lost == []
    assert comparison.differences == []
    assert comparison.acknowledged > len(says) / 10
    assert comparison.totals > 100
    assert numbers(said) == told(reports, said["at"]), said["at"]


def numbers(said: dict[str, Any]) -> list[list[int]]:
    """The counts of an answer of the API: one list a zone and kind."""
    return [[zone[kind][name] for name in NUMBERS] for zone in said["zones"] for kind in KINDS]


def told(reports: list[Report], at: str) -> list[list[int]]:
    """The sum of what the partitions told of an instant, as `numbers` has it."""
    values = {one.partition: one.values for one in reports if iso(one.at) == at}
    assert len(values) == PARTITIONS
    total = np.sum([np.frombuffer(one, "<i4") for one in values.values()], axis=0)
    found: list[list[int]] = total.reshape(-1, len(NUMBERS)).tolist()
    return found
