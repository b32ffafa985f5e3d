"""Hundreds of overlapping zones: exact counts, with memory that follows the sets of zones in use."""

from __future__ import annotations

import math
import subprocess
import sys
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counting.running import CountQuery, by_engine, by_oracle, compare, count_queries
from counting.walks import FIX, START_S, Message, walk
from headcount.counting import membership_sets
from headcount.counting.membership_sets import MembershipSets
from headcount.lab.chaos.scenarios import random_scenario
from headcount.lab.figures.bench_fixes import LAT0, LON0, M_PER_DEGREE, OVERLAPPING_SIDE_M, overlapping

#: Of the process, with the interpreter and its libraries; the sets of zones of all cells took more than 5 GB.
MAX_RSS_MIB = 300


def moves(rng: Random, devices: int, rounds: int) -> list[Message]:
    """Fixes of devices that walk about the whole campus."""
    half_m = OVERLAPPING_SIDE_M / 2
    at = [(rng.uniform(-half_m, half_m), rng.uniform(-half_m, half_m)) for _ in range(devices)]
    messages = []
    for number in range(rounds * devices):
        device, t = number % devices, START_S + number / 8
        moved = (position + rng.gauss(0, 9) for position in at[device])
        x_m, y_m = (min(max(position, -half_m), half_m) for position in moved)
        at[device] = x_m, y_m
        lat, lon = LAT0 + y_m / M_PER_DEGREE, LON0 + x_m / (M_PER_DEGREE * math.cos(math.radians(LAT0)))
        messages.append(Message(t, "person", f"d{device}", FIX, t, lat, lon, rng.uniform(1, 20)))
    return messages


def test_three_hundred_overlapping_zones_equal_the_oracle() -> None:
    """Verdicts, events and all four numbers of 300 zones, of which about 40 cover each point, are the oracle's."""
    geojson = overlapping(300, seed=1).geojson
    messages = moves(Random(2), devices=12, rounds=3)
    queries = [CountQuery(12, messages[11].received), CountQuery(36, messages[-1].received + 1)]
    got = by_engine(geojson, messages, queries)
    compare(by_oracle(geojson, messages, queries), got, messages, queries)


def test_three_hundred_overlapping_zones_need_little_memory() -> None:
    """A process that counts 20 000 devices in 300 overlapping zones stays below 300 MiB."""
    command = [
        sys.executable,
        "-m",
        "headcount.lab.figures.overlap_cost",
        "--devices",
        "20000",
        "--ticks",
        "3",
    ]
    run = subprocess.run([*command, "--zones", "300"], capture_output=True, text=True, check=True)
    peak_mib = float(run.stdout.splitlines()[-1].split()[-2])
    assert 30 < peak_mib < MAX_RSS_MIB, run.stdout


class Holder:
    """A column of set numbers."""

    def __init__(self, n: int) -> None:
        self.zones = np.zeros(n, dtype=np.int32)


def test_unused_sets_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thousands of sets that devices pass through, about as many are stored as devices are in."""
    monkeypatch.setattr(membership_sets, "MIN_COLLECTED", 64)
    sets = MembershipSets(overlapping(120, seed=1))
    sets.pin()
    holder, rng = Holder(50), np.random.default_rng(2)
    sets.track(holder)
    expected = np.zeros((50, sets.words), dtype=np.uint64)
    for _ in range(200):
        moved = np.flatnonzero(rng.random(50) < 0.5)
        expected[moved] = rng.integers(0, 2**56, (len(moved), sets.words), dtype=np.uint64)
        holder.zones[moved] = sets.numbers(expected[moved])
        sets.collect()
        assert (sets.bits[holder.zones] == expected).all()
        assert sets[int(holder.zones[0])] == membership_sets.pairs(expected[:1])[1].tolist()
    assert len(sets) <= 200


@settings(max_examples=10)
@given(st.integers(0, 2**63 - 1))
def test_replaced_sets_change_no_count(seed: int) -> None:
    """When the numbers of sets are reused all the time, verdicts, events and counts remain the oracle's."""
    rng = Random(seed)
    campus = random_scenario(rng, 12)
    messages = walk(rng, campus, devices=4, length=150)
    queries = count_queries(rng, messages, campus.waits_s, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(membership_sets, "MIN_COLLECTED", 0)
        patch.setattr(membership_sets, "GROWTH", 1)
        got = by_engine(campus.geojson, messages, queries, range(1, len(messages), 3), [40, 90])
    compare(by_oracle(campus.geojson, messages, queries), got, messages, queries)
