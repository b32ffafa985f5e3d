"""Which fault comes when: a pure function of the seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal, NamedTuple

Kind = Literal[
    "join",
    "leave",
    "kill",
    "pause",
    "broker kill",
    "core restart",
    "history kill",
    "duplicates",
    "old hours",
    "full disk",
]
#: What each fault does, in words.
MEANING: dict[Kind, str] = {
    "join": "a worker joins",
    "leave": "a worker is told to stop (SIGTERM)",
    "kill": "a worker is killed (SIGKILL)",
    "pause": "a worker is stopped for longer than its lease (SIGSTOP) and goes on (SIGCONT)",
    "broker kill": "the NATS server is killed (SIGKILL)",
    "core restart": "the broker role is told to stop and started again",
    "history kill": "the writer of the history is killed (SIGKILL)",
    "duplicates": "devices send again what they have sent already, all at once",
    "old hours": "the history holds an hour that is over a day old, and one that isn't",
    "full disk": "the disk of the data folder is full for some seconds",
}
#: Quiet seconds at the start, and at the end for what is broken then.
FIRST_S, LAST_S = 6.0, 8.0
#: How long the last of a kind needs: no such fault begins later than so long before the end.
NEEDS_S: dict[Kind, float] = {"full disk": 30.0, "broker kill": 10.0, "core restart": 10.0, "pause": 14.0}
#: Pauses last so much longer than the lease's time to live.
PAUSE_S = (0.5, 3.0)
MOST_WORKERS = 4
#: Short runs begin with what workers do; the rest follows as time allows.
_BAG: tuple[Kind, ...] = (
    "join",
    "leave",
    "kill",
    "kill",
    "pause",
    "pause",
    "broker kill",
    "core restart",
    "history kill",
    "duplicates",
    "full disk",
)


class Fault(NamedTuple):
    """Something that happens to the system `at_s` seconds after the load's start."""

    at_s: float
    kind: Kind
    worker: int = 0  # which one joins, leaves, is killed or paused; 0 = none
    lasts_s: float = 0.0


def in_words(fault: Fault) -> str:
    """What happens, and to whom."""
    text = MEANING[fault.kind]
    return text.replace("a worker", f"worker {fault.worker}", 1) if fault.worker else text


def schedule(seed: int, seconds: float, workers: int, lease_s: float) -> list[Fault]:
    """The faults of a run, in order of time.

    Args:
        seed: the same one gives the same faults.
        seconds: how long the load lasts.
        workers: how many count from the start; they are numbered from 1.
        lease_s: after so long a silence a worker has lost its partitions.

    Returns:
        Faults between FIRST_S and `seconds - LAST_S`. At least one worker is there and not paused,
        but for 3 s at most.
    """
    rng = Random(f"faults {seed}")
    crew = _ExpectedWorkers(list(range(1, workers + 1)), workers + 1)
    faults = [Fault(round(rng.uniform(1, 4), 1), "old hours")]
    bag: list[Kind] = []
    now = FIRST_S + rng.uniform(0, 2)
    while now < seconds - LAST_S:
        bag = bag or rng.sample(_BAG, len(_BAG))
        fits = [kind for kind in bag if now + NEEDS_S.get(kind, LAST_S) <= seconds]
        if not fits:
            break
        kind = fits[0]
        bag.remove(kind)
        found = _faults(rng, kind, round(now, 1), crew, lease_s)
        faults += found
        now = max(now, max((f.at_s for f in found), default=now)) + _pause_after(rng, found)
    return sorted(faults)


class _ExpectedWorkers:
    """Who counts, as the schedule sees it."""

    def __init__(self, there: list[int], following: int) -> None:
        self.there = there
        self.following = following
        self.paused_until_s: dict[int, float] = {}

    def awake(self, at_s: float) -> list[int]:
        return [worker for worker in self.there if self.paused_until_s.get(worker, 0.0) < at_s]

    def join(self) -> int:
        self.there.append(self.following)
        self.following += 1
        return self.there[-1]


def _faults(rng: Random, kind: Kind, at_s: float, crew: _ExpectedWorkers, lease_s: float) -> list[Fault]:
    if kind == "full disk":
        return [Fault(at_s, kind, lasts_s=round(rng.uniform(2, 5), 1))]
    if kind not in {"join", "leave", "kill", "pause"}:
        return [Fault(at_s, kind)]
    if kind == "join" and len(crew.there) >= MOST_WORKERS:
        kind = "leave"
    if kind == "join":
        return [Fault(at_s, kind, crew.join())]
    awake = crew.awake(at_s)
    worker = rng.choice(awake or crew.there)
    lasts_s = 0.0
    if kind == "pause":
        lasts_s = round(lease_s + rng.uniform(*PAUSE_S), 1)
        crew.paused_until_s[worker] = at_s + lasts_s
    else:
        crew.there.remove(worker)
    faults = [Fault(at_s, kind, worker, lasts_s)]
    if len(awake) <= 1:
        faults.append(Fault(round(at_s + rng.uniform(0.2, 3), 1), "join", crew.join()))
    return faults


def _pause_after(rng: Random, faults: Sequence[Fault]) -> float:
    """Mostly time to recover; now and then the next fault comes while the last one is felt."""
    if any(fault.kind == "full disk" for fault in faults):
        return 18.0
    if rng.random() < 0.25:
        return rng.uniform(0.2, 2.0)
    return rng.uniform(4.0, 8.0)
