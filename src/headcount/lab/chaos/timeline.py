"""A run over time, as the picture shows it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from headcount.lab.chaos.independent_reader import PartitionLog
from headcount.lab.chaos.observer import ObservedCounts
from headcount.lab.chaos.recovery import GAP_S


class OwnershipSpan(NamedTuple):
    """A worker told a partition's counts from then to then (seconds since the start)."""

    partition: int
    worker: int  # 0 = unknown
    from_s: float
    to_s: float


def bars(
    reports: Iterable[ObservedCounts], owners: Mapping[tuple[int, int], int], start_s: float
) -> list[OwnershipSpan]:
    """Who told which partition's counts when.

    Args:
        reports: in the order in which they were heard.
        owners: (partition, epoch) → worker.
        start_s: where time begins, Unix seconds.
    """
    found: list[OwnershipSpan] = []
    current: dict[int, OwnershipSpan] = {}
    for report in reports:
        at_s = report.heard_s - start_s
        worker = owners.get((report.partition, report.epoch), 0)
        bar = current.get(report.partition)
        if bar is None or bar.worker != worker or at_s - bar.to_s > GAP_S:
            found += [bar] if bar else []
            bar = OwnershipSpan(report.partition, worker, at_s, at_s)
        current[report.partition] = bar._replace(to_s=at_s)
    return [bar for bar in (*found, *current.values()) if bar.to_s > 0]


def received(log: Sequence[PartitionLog], start_s: float, seconds: int) -> list[int]:
    """Fixes and statuses that the log received in each second."""
    found = [0] * seconds
    for partition in log:
        for row in partition.rows:
            second = int(row.received - start_s)
            if 0 <= second < seconds:
                found[second] += 1
    return found


def ages(reports: Iterable[ObservedCounts], partitions: int, start_s: float, seconds: int) -> list[float]:
    """How old, at most within each second, the newest count of the partition that lagged most was."""
    moments: list[list[tuple[float, float]]] = [[] for _ in range(partitions)]
    for report in reports:
        moments[report.partition].append((report.heard_s - start_s, report.at - start_s))
    found = [0.0] * seconds
    for told in moments:
        newest, position = -math.inf, 0
        for second in range(seconds):
            oldest_in_it = -math.inf
            while position < len(told) and told[position][0] < second + 1:
                oldest_in_it = max(oldest_in_it, told[position][0] - newest)
                newest = max(newest, told[position][1])
                position += 1
            age_s = max(oldest_in_it, second + 1 - newest)
            found[second] = max(found[second], age_s if math.isfinite(age_s) else 0.0)
    return found
