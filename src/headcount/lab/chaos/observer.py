"""The counts that the system tells while it runs, of all epochs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import msgspec

from headcount.messages.counts import PartitionCounts
from headcount.messaging.connection import Connection, Message


@dataclass(frozen=True, slots=True)
class ObservedCounts:
    """Counts of one partition at one instant, and when we heard of them (Unix seconds)."""

    heard_s: float
    partition: int
    epoch: int
    seq: int
    at: float
    values: bytes  # int32 [Z, 2, 4]


@dataclass(slots=True)
class Observations:
    """Counts in the order in which it came."""

    reports: list[ObservedCounts] = field(default_factory=list)
    #: partition → the newest instant that was told, Unix seconds
    newest: dict[int, float] = field(default_factory=dict)

    def oldest(self, partitions: int) -> float:
        """Up to here all partitions have told their counts."""
        return min((self.newest.get(number, 0.0) for number in range(partitions)), default=0.0)


async def listen(connection: Connection) -> Observations:
    """Listen from now on, for as long as the connection is open; what is said while it is cut off is missed."""
    heard = Observations()

    async def counts(message: Message) -> None:
        told = msgspec.msgpack.decode(message.data, type=PartitionCounts)
        heard.reports.append(
            ObservedCounts(time.time(), told.partition, told.epoch, told.seq, told.at, told.values)
        )
        heard.newest[told.partition] = max(told.at, heard.newest.get(told.partition, 0.0))

    await connection.subscribe("count.*", counts)
    await connection.flush()
    return heard
