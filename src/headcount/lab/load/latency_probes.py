"""Measures the time from publish to count with devices that appear one by one in a zone of their own.

A probe is present from its fix until its hold has passed, so the count of the zone gives the number of counted
probes of a partition: `entered = count + probes whose hold has passed`. The k-th probe of a partition is counted
when the first counts with `entered >= k` are received. The probes of a partition use one connection, so they
arrive in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from headcount.errors import HeadcountError
from headcount.lab.chaos.observer import Observations
from headcount.lab.load.device_connection import ConnectionCounters, DeviceConnection, LoadTarget
from headcount.lab.load.population import FixMessage
from headcount.lab.waiting import wait_until
from headcount.messages.counts import ZONE_BYTES, decode_counts
from headcount.messages.fixes import encode_fix
from headcount.messages.topics import COUNT_SUBJECTS, FIX_TOPIC, partition_of
from headcount.messaging.connection import Connection
from headcount.messaging.connection import Message as Received

#: Connections of probes; each serves some partitions.
CONNECTIONS = 8
EVERY_S = 0.05  # between two probes, over the connections in turn
#: A probe that isn't counted within this time is reported as uncounted.
LOST_S = 60.0


@dataclass(slots=True)
class ProbeTimes:
    """The probes of one partition: when each was sent, and when its count was received."""

    sent_s: list[float] = field(default_factory=list)
    counted_s: list[float] = field(default_factory=list)

    def receive(self, counted_s: float, at_s: float, count: int, hold_s: float) -> None:
        """Process the zone's count at an instant."""
        gone = bisect_left(self.sent_s, at_s - hold_s)
        entered = min(count + gone, len(self.sent_s))
        while len(self.counted_s) < entered:
            self.counted_s.append(counted_s)


class LatencyProbes:
    """Sends probes with `run`; the delays are available afterwards."""

    def __init__(
        self,
        broker: LoadTarget,
        site: str,
        position: tuple[float, float],
        zone: int,
        partitions: int,
        hold_s: float,
        seed: int,
        on_ack: Callable[[FixMessage], None],
    ) -> None:
        """Prepare probes.

        Args:
            broker: the address to connect to.
            site: id of the site.
            position: latitude and longitude of the probes.
            zone: index of the zone of the probes.
            partitions: of the log.
            hold_s: of the zone, for people.
            seed: of the times between attempts to reconnect.
            on_ack: is called with each acknowledged probe.
        """
        self.counters = ConnectionCounters()
        self.observed = Observations()
        self._site, self._position, self._zone, self._hold_s = site, position, zone, hold_s
        self._partitions = partitions
        self._of = [ProbeTimes() for _ in range(partitions)]
        rng = random.Random(f"probes {seed}")
        self.connections = [
            DeviceConnection(broker, f"bench-probe-{index}", self.counters, on_ack, rng)
            for index in range(min(CONNECTIONS, partitions))
        ]
        self._names = [self._names_of(partition) for partition in range(partitions)]

    def _names_of(self, partition: int) -> itertools.filterfalse[str]:
        return itertools.filterfalse(
            lambda name: partition_of(self._site, name, self._partitions) != partition,
            (f"probe-{number}" for number in itertools.count()),
        )

    async def observe(self, connection: Connection) -> None:
        """Record all counts from now on."""

        async def receive(message: Received) -> None:
            now_s = time.time()
            for counts in decode_counts(message.data):
                self.observed.add(counts)
                count = int(np.frombuffer(counts.values, "<i4", 1, ZONE_BYTES * self._zone)[0])
                self._of[counts.partition].receive(now_s, counts.at, count, self._hold_s)

        await connection.subscribe(COUNT_SUBJECTS, receive)
        await connection.flush()

    async def run(self, start_s: float, until_s: float) -> None:
        """Connect, send probes between two times (Unix seconds), and wait until all are acknowledged."""
        for connection in self.connections:
            connection.open()
        await asyncio.sleep(max(0.0, start_s - time.time()))
        partitions = itertools.cycle(range(self._partitions))
        next_s = time.time()
        while (now_s := time.time()) < until_s:
            for connection in self.connections:
                connection.check(time.monotonic())
            self._send(next(partitions), now_s)
            next_s = max(next_s + EVERY_S, now_s)
            await asyncio.sleep(max(0.0, next_s - time.time()))
        for connection in self.connections:
            connection.close()
        with contextlib.suppress(HeadcountError):  # the uncounted probes are reported
            await wait_until(lambda: not any(c.unacknowledged for c in self.connections), "probes", LOST_S)

    def _send(self, partition: int, now_s: float) -> None:
        probe_times, name = self._of[partition], next(self._names[partition])
        t_ms = int(now_s * 1000)
        topic = FIX_TOPIC.format(site=self._site, kind="person", device=name).encode()
        payload = encode_fix(t_ms / 1000, *self._position, acc=3)
        probe_times.sent_s.append(t_ms / 1000)
        self.connections[partition % len(self.connections)].put(
            FixMessage(topic, payload, 1, "person", name, t_ms)
        )

    def delays(self) -> list[tuple[float, float]]:
        """Time of each probe (Unix seconds), and the seconds until its count was received."""
        pairs = [
            (sent, counted - sent)
            for probe_times in self._of
            for sent, counted in zip(probe_times.sent_s, probe_times.counted_s, strict=False)
        ]
        return sorted(pairs)

    def uncounted(self) -> int:
        """Number of probes that were not counted."""
        return sum(len(probe_times.sent_s) - len(probe_times.counted_s) for probe_times in self._of)
