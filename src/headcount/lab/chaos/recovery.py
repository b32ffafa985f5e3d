"""How long some partition told nothing fresh, and what each fault cost. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from headcount.lab.chaos.fault_schedule import Fault
from headcount.lab.chaos.observer import ObservedCounts

#: A count that is older than this when we hear it isn't fresh.
FRESH_S = 1.0
#: A partition that tells nothing fresh for longer than this has a gap.
GAP_S = 1.0
#: A gap that begins so long after a fault, or a little before it, is the fault's.
WITHIN_S = 6.0
#: The newest count before a kill was told so long before it, at most.
BEFORE_S = 0.3


class Gap(NamedTuple):
    """A partition told nothing fresh from then to then (Unix seconds)."""

    partition: int
    from_s: float
    to_s: float


def gaps(reports: Iterable[ObservedCounts], partitions: int, from_s: float, to_s: float) -> list[Gap]:
    """All gaps of all partitions between two moments."""
    heard: list[list[float]] = [[from_s] for _ in range(partitions)]
    for report in reports:
        if report.heard_s - report.at <= FRESH_S and from_s <= report.heard_s <= to_s:
            heard[report.partition].append(report.heard_s)
    found = []
    for number, moments in enumerate(heard):
        moments.append(to_s)
        found += [Gap(number, a, b) for a, b in itertools.pairwise(moments) if b - a > GAP_S]
    return sorted(found, key=lambda gap: gap.from_s)


def recovery_s(fault: Fault, applied_s: float, next_s: float, found: Sequence[Gap]) -> float:
    """How long after a fault all partitions told fresh counts again; 0 where none ever stopped.

    Args:
        fault: what happened.
        applied_s: when.
        next_s: when the next fault came: what begins after it isn't ours.
        found: all gaps.
    """
    until_s = min(next_s - BEFORE_S, applied_s + WITHIN_S + fault.lasts_s)
    ours = [gap for gap in found if applied_s - BEFORE_S <= gap.from_s < until_s]
    return max((gap.to_s for gap in ours), default=applied_s) - applied_s
