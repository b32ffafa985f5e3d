"""A run over time, as the report shows it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from headcount.lab.chaos.independent_reader import PartitionLog
from headcount.lab.chaos.observer import ObservedCounts
from headcount.lab.chaos.recovery import GAP_S


class OwnershipSpan(NamedTuple):
    """A time in which a worker publishes a partition's counts (seconds since the start)."""

    partition: int
    worker: int  # 0 = unknown
    from_s: float
    to_s: float


def ownership_spans(
    reports: Iterable[ObservedCounts], owners: Mapping[tuple[int, int], int], start_s: float
) -> list[OwnershipSpan]:
    """The times in which each worker publishes each partition's counts.

    Args:
        reports: in the order of receipt.
        owners: (partition, epoch) → worker.
        start_s: time zero, Unix seconds.
    """
    found: list[OwnershipSpan] = []
    current: dict[int, OwnershipSpan] = {}
    for report in reports:
        at_s = report.received_s - start_s
        worker = owners.get((report.partition, report.epoch), 0)
        bar = current.get(report.partition)
        if bar is None or bar.worker != worker or at_s - bar.to_s > GAP_S:
            found += [bar] if bar else []
            bar = OwnershipSpan(report.partition, worker, at_s, at_s)
        current[report.partition] = bar._replace(to_s=at_s)
    return [bar for bar in (*found, *current.values()) if bar.to_s > 0]


def received_per_second(log: Sequence[PartitionLog], start_s: float, seconds: int) -> list[int]:
    """Number of fixes and statuses that the log received in each second."""
    found = [0] * seconds
    for partition in log:
        for row in partition.rows:
            second = int(row.received - start_s)
            if 0 <= second < seconds:
                found[second] += 1
    return found


def max_ages(reports: Iterable[ObservedCounts], partitions: int, start_s: float, seconds: int) -> list[float]:
    """The maximum age of the newest count within each second, over all partitions."""
    published: list[list[tuple[float, float]]] = [[] for _ in range(partitions)]
    for report in reports:
        published[report.partition].append((report.received_s - start_s, report.at - start_s))
    found = [0.0] * seconds
    for counts in published:
        newest, position = -math.inf, 0
        for second in range(seconds):
            max_age_s = -math.inf
            while position < len(counts) and counts[position][0] < second + 1:
                max_age_s = max(max_age_s, counts[position][0] - newest)
                newest = max(newest, counts[position][1])
                position += 1
            age_s = max(max_age_s, second + 1 - newest)
            found[second] = max(found[second], age_s if math.isfinite(age_s) else 0.0)
    return found
