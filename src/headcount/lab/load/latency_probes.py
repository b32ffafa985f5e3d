"""Publish → count, measured: devices that appear in a zone where nobody else is, one after the other.

A probe is there exactly from its fix until its hold has passed, so the count of that zone says how
many probes of a partition are counted: `entered = count + those whose hold has passed`. The k-th
probe of a partition is counted when the first report with `entered >= k` is heard. Each partition's
probes come over one connection, so they arrive in their order.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np

from headcount.lab.chaos.observer import Observations, ObservedCounts
from headcount.lab.load.device_connection import BrokerAddress, ConnectionCounters, DeviceConnection
from headcount.lab.load.population import FixMessage
from headcount.messages.counts import PartitionCounts
from headcount.messages.fixes import encode_fix
from headcount.messages.topics import FIX_TOPIC, partition_of
from headcount.messaging.connection import Connection
from headcount.messaging.connection import Message as Received

#: Connections of probes; each has some partitions.
CONNECTIONS = 8
EVERY_S = 0.05  # a probe this often, by one connection after the other
#: A probe that isn't counted after this long never will be, as far as the figures go.
LOST_S = 60.0


@dataclass(slots=True)
class ProbeTimes:
    """The probes of one partition: when each was said, and when it was heard to be counted."""

    said_s: list[float] = field(default_factory=list)
    heard_s: list[float] = field(default_factory=list)

    def hear(self, heard_s: float, at_s: float, count: int, hold_s: float) -> None:
        """A report says that so many are in the zone at an instant."""
        gone = bisect_left(self.said_s, at_s - hold_s)
        entered = min(count + gone, len(self.said_s))
        while len(self.heard_s) < entered:
            self.heard_s.append(heard_s)


class LatencyProbes:
    """Probes on their way; open with `run`, and ask for the delays afterwards."""

    def __init__(
        self,
        broker: BrokerAddress,
        site: str,
        place: tuple[float, float],
        zone: int,
        partitions: int,
        hold_s: float,
        seed: int,
        note: Callable[[FixMessage], None],
    ) -> None:
        """Prepare them.

        Args:
            broker: where probes connect to.
            site: its id.
            place: latitude and longitude of the zone for probes.
            zone: its index.
            partitions: of the log.
            hold_s: of the zone, for people.
            seed: of the waits of connections that broke.
            note: is called with each acknowledged probe.
        """
        self.tally = ConnectionCounters()
        self.heard = Observations()
        self._site, self._place, self._zone, self._hold_s = site, place, zone, hold_s
        self._partitions = partitions
        self._of = [ProbeTimes() for _ in range(partitions)]
        rng = random.Random(f"probes {seed}")
        self.links = [
            DeviceConnection(broker, f"bench-probe-{index}", self.tally, note, rng)
            for index in range(min(CONNECTIONS, partitions))
        ]
        self._names = [self._named(partition) for partition in range(partitions)]

    def _named(self, partition: int) -> itertools.filterfalse[str]:
        return itertools.filterfalse(
            lambda name: partition_of(self._site, name, self._partitions) != partition,
            (f"probe-{number}" for number in itertools.count()),
        )

    async def listen(self, connection: Connection) -> None:
        """Hear all counts from now on."""
        decode = msgspec.msgpack.Decoder(PartitionCounts).decode

        async def hear(message: Received) -> None:
            told = decode(message.data)
            now_s = time.time()
            self.heard.reports.append(
                ObservedCounts(now_s, told.partition, told.epoch, told.seq, told.at, told.values)
            )
            self.heard.newest[told.partition] = max(told.at, self.heard.newest.get(told.partition, 0.0))
            count = int(np.frombuffer(told.values, "<i4", 1, 32 * self._zone)[0])
            self._of[told.partition].hear(now_s, told.at, count, self._hold_s)

        await connection.subscribe("count.*", hear)
        await connection.flush()

    async def run(self, start_s: float, until_s: float) -> None:
        """Connect now, send probes from then until then (Unix seconds), and stay until all is acknowledged."""
        for link in self.links:
            link.open()
        await asyncio.sleep(max(0.0, start_s - time.time()))
        partitions = itertools.cycle(range(self._partitions))
        next_s = time.time()
        while (now_s := time.time()) < until_s:
            for link in self.links:
                link.look(time.monotonic())
            self._send(next(partitions), now_s)
            next_s = max(next_s + EVERY_S, now_s)
            await asyncio.sleep(max(0.0, next_s - time.time()))
        for link in self.links:
            link.close()
        while any(link.owes for link in self.links) and time.time() < until_s + LOST_S:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    def _send(self, partition: int, now_s: float) -> None:
        probed, name = self._of[partition], next(self._names[partition])
        t_ms = int(now_s * 1000)
        topic = FIX_TOPIC.format(site=self._site, kind="person", device=name).encode()
        payload = encode_fix(t_ms / 1000, *self._place, acc=3)
        probed.said_s.append(t_ms / 1000)
        self.links[partition % len(self.links)].put(FixMessage(topic, payload, 1, "person", name, t_ms))

    def delays(self) -> list[tuple[float, float]]:
        """When a probe was said (Unix seconds), and how many seconds later its count was heard."""
        pairs = [
            (said, heard - said)
            for probed in self._of
            for said, heard in zip(probed.said_s, probed.heard_s, strict=False)
        ]
        return sorted(pairs)

    def uncounted(self) -> int:
        """How many probes were never counted."""
        return sum(len(probed.said_s) - len(probed.heard_s) for probed in self._of)
