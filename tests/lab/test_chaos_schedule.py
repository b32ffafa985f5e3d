"""Faults and load of a chaos test depend on the seed only, and a worker is always left."""

from __future__ import annotations

from collections import Counter

import pytest

from headcount.lab.chaos.fault_schedule import DESCRIPTIONS, FIRST_S, LAST_S, Fault, schedule
from headcount.lab.chaos.independent_reader import decode_fix
from headcount.lab.chaos.short_holds import short_hold_scenario
from headcount.lab.chaos.traffic import traffic
from headcount.worker.leases import LEASE_TTL_S

SEEDS = range(200)


def _made(seed: int, seconds: float = 120.0, workers: int = 2) -> list[Fault]:
    return schedule(seed, seconds, workers, LEASE_TTL_S)


def test_the_same_seed_gives_the_same_faults() -> None:
    """The same seed gives the same faults, another seed others."""
    assert _made(7) == _made(7)
    assert len({tuple(_made(seed)) for seed in SEEDS}) == len(SEEDS)


def test_faults_stand_in_order_and_leave_time_to_recover() -> None:
    """No fault starts before the system, or too late for its recovery."""
    for seed in SEEDS:
        times = [fault.at_s for fault in _made(seed)]
        assert times == sorted(times)
        kinds = [fault.kind for fault in _made(seed)]
        assert all(
            at_s >= FIRST_S
            for at_s, kind in zip(times, kinds, strict=True)
            if kind not in {"old hours", "site added"}
        )
        assert times[-1] <= 120 - LAST_S + 3
        assert len(times) >= 10


def test_every_kind_of_fault_comes() -> None:
    """A few seeds contain each kind of fault; pauses exceed the lease, and disks stay full for seconds."""
    faults = [fault for seed in range(20) for fault in _made(seed)]
    assert Counter(fault.kind for fault in faults).keys() == DESCRIPTIONS.keys()
    assert all(fault.lasts_s > LEASE_TTL_S for fault in faults if fault.kind == "pause")
    assert all(fault.lasts_s >= 2 for fault in faults if fault.kind == "full disk")


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_there_is_always_a_worker(workers: int) -> None:
    """Only running workers leave, and never are all stopped or paused for more than 3 s."""
    for seed in SEEDS:
        there, paused_until_s, alone_since_s = set(range(1, workers + 1)), dict[int, float](), None
        for fault in _made(seed, 300.0, workers):
            if alone_since_s is not None:
                assert fault.at_s - alone_since_s <= 3.05
            if fault.kind == "join":
                assert fault.worker not in there
                there.add(fault.worker)
            elif fault.worker:
                assert fault.worker in there
                if fault.kind == "pause":
                    paused_until_s[fault.worker] = fault.at_s + fault.lasts_s
                else:
                    there.remove(fault.worker)
            awake = {worker for worker in there if paused_until_s.get(worker, 0.0) <= fault.at_s}
            alone_since_s = (alone_since_s or fault.at_s) if not awake else None
        assert alone_since_s is None


def test_the_same_seed_gives_the_same_load() -> None:
    """The same seed gives the same messages at the same times over the same connections."""
    assert traffic(3, short_hold_scenario(3), 20.0, [5.0]) == traffic(3, short_hold_scenario(3), 20.0, [5.0])
    assert traffic(3, short_hold_scenario(3), 20.0, []) != traffic(4, short_hold_scenario(4), 20.0, [])


def test_a_fix_carries_its_number() -> None:
    """The payload of a fix decodes to its number and its time."""
    says = [say for say in traffic(5, short_hold_scenario(5), 20.0, []) if say.number]
    assert len({say.qos for say in says}) == 2
    for say in says:
        fix, number = decode_fix(say.payload(1_790_000_000))
        assert number == say.number
        assert fix.t == round(1_790_000_000 + say.t_s, 3)
        assert fix.lat == say.body["lat"]


def test_a_flood_repeats_earlier_messages() -> None:
    """A flood repeats many earlier messages within seconds."""
    says = traffic(6, short_hold_scenario(6), 20.0, [10.0])
    early = {say.number for say in says if say.at_s < 10}
    flood = [say for say in says if 10 <= say.at_s < 12 and say.number in early]
    assert len(flood) > 100
