"""Gaps in which a partition publishes no fresh counts, and the recovery time after each fault. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from headcount.lab.chaos.fault_schedule import Fault
from headcount.lab.chaos.observer import ObservedCounts

#: Counts older than this when received aren't fresh.
FRESH_S = 1.0
#: Time without fresh counts after which a partition has a gap.
GAP_S = 1.0
#: A gap is attributed to a fault if it starts within this time after the fault, or slightly before it.
WITHIN_S = 6.0
#: Maximum time between the newest count before a kill and the kill.
BEFORE_S = 0.3


class Gap(NamedTuple):
    """A time in which a partition publishes no fresh counts (Unix seconds)."""

    partition: int
    from_s: float
    to_s: float


def gaps(reports: Iterable[ObservedCounts], partitions: int, from_s: float, to_s: float) -> list[Gap]:
    """All gaps of all partitions between two times."""
    received: list[list[float]] = [[from_s] for _ in range(partitions)]
    for report in reports:
        if report.received_s - report.at <= FRESH_S and from_s <= report.received_s <= to_s:
            received[report.partition].append(report.received_s)
    found = []
    for number, moments in enumerate(received):
        moments.append(to_s)
        found += [Gap(number, a, b) for a, b in itertools.pairwise(moments) if b - a > GAP_S]
    return sorted(found, key=lambda gap: gap.from_s)


def recovery_s(fault: Fault, applied_s: float, next_s: float, found: Sequence[Gap]) -> float:
    """The time from a fault until all partitions publish fresh counts again; 0 if none stopped.

    Args:
        fault: the fault.
        applied_s: its time.
        next_s: time of the next fault, to which later gaps are attributed.
        found: all gaps.
    """
    until_s = min(next_s - BEFORE_S, applied_s + WITHIN_S + fault.lasts_s)
    ours = [gap for gap in found if applied_s - BEFORE_S <= gap.from_s < until_s]
    return max((gap.to_s for gap in ours), default=applied_s) - applied_s
