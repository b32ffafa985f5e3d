"""Records the counts that the system publishes, of all epochs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from headcount.messages.counts import PartitionCounts, decode_counts
from headcount.messages.topics import COUNT_SUBJECTS
from headcount.messaging.connection import Connection, Message


@dataclass(frozen=True, slots=True)
class ObservedCounts:
    """Counts of one partition at one instant, and when they were received (Unix seconds)."""

    received_s: float
    partition: int
    epoch: int
    seq: int
    at: float
    values: bytes  # int32 [Z, 2, 4]
    site_version: int = 1
    site: str = ""


@dataclass(slots=True)
class Observations:
    """Counts in the order of receipt."""

    reports: list[ObservedCounts] = field(default_factory=list)
    #: partition → its newest instant, Unix seconds
    newest: dict[int, float] = field(default_factory=dict)
    site: str = ""  # whose instants `newest` has; "": any

    def add(self, counts: PartitionCounts) -> None:
        """Record counts that were received now."""
        partition, at = counts.partition, counts.at
        self.reports.append(
            ObservedCounts(
                time.time(),
                partition,
                counts.epoch,
                counts.seq,
                at,
                counts.values,
                counts.site_version,
                counts.site,
            )
        )
        if self.site in {"", counts.site}:
            self.newest[partition] = max(at, self.newest.get(partition, 0.0))

    def oldest(self, partitions: int) -> float:
        """The instant up to which all partitions have published their counts."""
        return min((self.newest.get(number, 0.0) for number in range(partitions)), default=0.0)


async def observe(connection: Connection, site: str = "") -> Observations:
    """Record all counts until the connection is closed; those published while it is lost are missed.

    With `site`, its instants are the newest ones.
    """
    observed = Observations(site=site)

    async def counts(message: Message) -> None:
        for each in decode_counts(message.data):
            observed.add(each)

    await connection.subscribe(COUNT_SUBJECTS, counts)
    await connection.flush()
    return observed
