"""The faults of a run and their times: a pure function of the seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal, NamedTuple

from headcount.messaging.units import UNIT_TIMEOUT_S

Kind = Literal[
    "join",
    "leave",
    "kill",
    "pause",
    "broker kill",
    "core restart",
    "history kill",
    "history pause",
    "duplicates",
    "old hours",
    "full disk",
    "site change",
    "site added",
    "site removed",
]
#: Description of each fault.
DESCRIPTIONS: dict[Kind, str] = {
    "join": "a worker joins",
    "leave": "a worker is stopped (SIGTERM)",
    "kill": "a worker is killed (SIGKILL)",
    "pause": "a worker is suspended for longer than its lease (SIGSTOP) and continues (SIGCONT)",
    "broker kill": "the NATS server is killed (SIGKILL)",
    "core restart": "the role core is stopped and started again",
    "history kill": "a history writer is killed (SIGKILL)",
    "history pause": "a history writer is suspended until the other one has its partitions, and continues",
    "duplicates": "devices repeat their latest messages within seconds",
    "old hours": "the history contains an hour older than a day, and a younger one",
    "full disk": "the disk of the data folder is full for seconds",
    "site change": "a new version of the site is submitted",
    "site added": "a second site is added",
    "site removed": "the second site is removed",
}
#: Time without faults at the start, and at the end for recovery.
FIRST_S, LAST_S = 6.0, 8.0
#: Recovery time by kind: no such fault starts later than this before the end.
NEEDS_S: dict[Kind, float] = {
    "full disk": 30.0,
    "broker kill": 10.0,
    "core restart": 10.0,
    "pause": 14.0,
    "history pause": 14.0,
}
#: Pauses exceed the time to live of a lease by this.
PAUSE_S = (0.5, 3.0)
HISTORY_PAUSE_S = (UNIT_TIMEOUT_S + 1.0, UNIT_TIMEOUT_S + 3.0)
MAX_WORKERS = 4
HISTORY_WRITERS = 2
#: The faults of a round.
_ROUND: tuple[Kind, ...] = (
    "join",
    "leave",
    "kill",
    "kill",
    "pause",
    "pause",
    "broker kill",
    "core restart",
    "history kill",
    "history kill",
    "history pause",
    "duplicates",
    "full disk",
    "site change",
    "site change",
)


class Fault(NamedTuple):
    """A fault `at_s` seconds after the start of the load."""

    at_s: float
    kind: Kind
    worker: int = 0  # that joins, leaves, is killed or paused; 0 = none
    lasts_s: float = 0.0
    writer: int = 0  # of the history that is killed or paused; 0 = none


def describe(fault: Fault) -> str:
    """The fault's description with its worker."""
    text = DESCRIPTIONS[fault.kind]
    if fault.writer:
        return text.replace("a history writer", f"history writer {fault.writer}", 1)
    return text.replace("a worker", f"worker {fault.worker}", 1) if fault.worker else text


def schedule(seed: int, seconds: float, workers: int, lease_s: float) -> list[Fault]:
    """The faults of a run, in order of time.

    Args:
        seed: determines the faults.
        seconds: duration of the load.
        workers: number of workers at the start, which are numbered from 1.
        lease_s: time without renewal after which a worker loses its partitions.

    Returns:
        Faults between FIRST_S and `seconds - LAST_S`. At least one worker runs and is not paused, except for up
        to 3 s.
    """
    rng = Random(f"faults {seed}")
    fleet = _ExpectedWorkers(list(range(1, workers + 1)), workers + 1)
    faults = [Fault(round(rng.uniform(1, 4), 1), "old hours")]
    second = Random(f"second site {seed}")
    faults.append(Fault(round(second.uniform(0, 0.1) * seconds, 1), "site added"))
    faults.append(Fault(round(second.uniform(0.5, 0.7) * seconds, 1), "site removed"))
    pending: list[Kind] = []
    now = FIRST_S + rng.uniform(0, 2)
    while now < seconds - LAST_S:
        pending = pending or rng.sample(_ROUND, len(_ROUND))
        fits = [kind for kind in pending if now + NEEDS_S.get(kind, LAST_S) <= seconds]
        if not fits:
            break
        kind = fits[0]
        pending.remove(kind)
        found = _faults(rng, kind, round(now, 1), fleet, lease_s)
        faults += found
        now = max(now, max((f.at_s for f in found), default=now)) + _pause_after(rng, found)
    return sorted(faults)


class _ExpectedWorkers:
    """The workers that run at a time, as scheduled."""

    def __init__(self, running: list[int], following: int) -> None:
        self.running = running
        self.following = following
        self.paused_until_s: dict[int, float] = {}

    def active(self, at_s: float) -> list[int]:
        return [worker for worker in self.running if self.paused_until_s.get(worker, 0.0) < at_s]

    def join(self) -> int:
        self.running.append(self.following)
        self.following += 1
        return self.running[-1]


def _faults(rng: Random, kind: Kind, at_s: float, fleet: _ExpectedWorkers, lease_s: float) -> list[Fault]:
    if kind == "full disk":
        return [Fault(at_s, kind, lasts_s=round(rng.uniform(2, 5), 1))]
    if kind in {"history kill", "history pause"}:
        lasts_s = round(rng.uniform(*HISTORY_PAUSE_S), 1) if kind == "history pause" else 0.0
        return [Fault(at_s, kind, lasts_s=lasts_s, writer=rng.randint(1, HISTORY_WRITERS))]
    if kind not in {"join", "leave", "kill", "pause"}:
        return [Fault(at_s, kind)]
    if kind == "join" and len(fleet.running) >= MAX_WORKERS:
        kind = "leave"
    if kind == "join":
        return [Fault(at_s, kind, fleet.join())]
    active = fleet.active(at_s)
    worker = rng.choice(active or fleet.running)
    lasts_s = 0.0
    if kind == "pause":
        lasts_s = round(lease_s + rng.uniform(*PAUSE_S), 1)
        fleet.paused_until_s[worker] = at_s + lasts_s
    else:
        fleet.running.remove(worker)
    faults = [Fault(at_s, kind, worker, lasts_s)]
    if len(active) <= 1:
        faults.append(Fault(round(at_s + rng.uniform(0.2, 3), 1), "join", fleet.join()))
    return faults


def _pause_after(rng: Random, faults: Sequence[Fault]) -> float:
    """Usually time to recover; sometimes the next fault starts during the recovery."""
    if any(fault.kind == "full disk" for fault in faults):
        return 18.0
    if rng.random() < 0.25:
        return rng.uniform(0.2, 2.0)
    return rng.uniform(4.0, 8.0)
