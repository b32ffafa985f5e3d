"""Which worker counts which partition."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from headcount.worker.assignment import assign

WORKERS = st.sets(st.text("abcdef0123", min_size=1, max_size=8), min_size=1, max_size=20)
PARTITIONS = st.sampled_from([1, 2, 16, 64, 100])


@given(PARTITIONS, WORKERS, st.randoms(use_true_random=False))
def test_everything_has_an_owner_and_loads_differ_by_one(
    partitions: int, workers: set[str], rng: random.Random
) -> None:
    """From no owners, or from any, every partition gets a present worker, and the loads are even."""
    owners = {p: rng.choice([*sorted(workers), "gone"]) for p in range(partitions) if rng.random() < 0.5}
    for before in ({}, owners):
        wanted = assign(partitions, workers, before)
        assert set(wanted) == set(range(partitions))
        loads = [list(wanted.values()).count(worker) for worker in workers]
        assert max(loads) - min(loads) <= 1
        assert assign(partitions, sorted(workers, reverse=True), before) == wanted
        assert assign(partitions, workers, wanted) == wanted


@given(PARTITIONS, WORKERS)
def test_who_joins_takes_its_share_and_nothing_else_moves(partitions: int, workers: set[str]) -> None:
    """A new worker gets at most the rounded-up share, and every partition that moves goes to it."""
    before = assign(partitions, workers, {})
    after = assign(partitions, {*workers, "new!"}, before)
    moved = {partition for partition in range(partitions) if after[partition] != before[partition]}
    assert {after[partition] for partition in moved} <= {"new!"}
    assert len(moved) <= math.ceil(partitions / (len(workers) + 1))
    assert len(moved) >= partitions // (len(workers) + 1)


@given(PARTITIONS, WORKERS)
def test_of_who_leaves_only_its_own_move(partitions: int, workers: set[str]) -> None:
    """Partitions of the workers that stay keep their owners, while shares allow; no worker exceeds its share."""
    before = assign(partitions, workers, {})
    leaver = min(workers)
    rest = workers - {leaver}
    after = assign(partitions, rest, before)
    if not rest:
        assert after == {}
        return
    moved = {partition for partition in range(partitions) if after[partition] != before[partition]}
    assert moved == {partition for partition, worker in before.items() if worker == leaver}
