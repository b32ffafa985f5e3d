"""Read the log and count, at instants that the load calls for.

While fixes arrive, the messages of all partitions are read and counted together soon after each instant, and
only partitions that have received nothing since get a tick. While nothing arrives, a slow heartbeat is left.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence

from headcount.errors import LogError
from headcount.messages.times import TICK_S
from headcount.messaging.connection import Connection
from headcount.messaging.log_reader import LogReader
from headcount.worker.counter import Counter
from headcount.worker.ownership import OwnedPartition, Ownership
from headcount.worker.partition import Partition
from headcount.worker.site_counter import BATCH_ROWS, CountingOutput
from headcount.worker.site_partition import OVER_NS, TICK_NS

#: A partition with more pending messages is catching up: its counts are published less often.
CATCHING_UP = 2_000
CATCH_UP_PUBLISH_S = 0.5
#: A reader without a message of a partition for this long is disconnected: each gets a tick more often.
TICK_TIMEOUT_S = 5.0
#: How long a tick may take before an instant is counted without the partition.
TICK_ANSWER_S = 0.1
#: Without a fix for this long, the heartbeat's pace suffices.
QUIET_S = 1.0
#: Ticks of the grid from instant to instant, while nothing arrives and up to each number of fixes per second.
QUIET_STEP = round(0.5 / TICK_S)
STEPS = ((500, round(0.1 / TICK_S)), (5_000, round(0.05 / TICK_S)), (math.inf, 1))
#: An instant is counted this long after it, at most; most partitions have received a message by then.
MAX_DELAY_S = 0.01
#: The rate of fixes is an average over about this time.
RATE_S = 1.0


class Pace:
    """The instants at which a worker counts. They are multiples of its step, so those of all workers coincide."""

    def __init__(self) -> None:
        self._rate = 0.0  # fixes per second
        self._awake_s = self._fix_s = -math.inf  # Unix seconds: when it was last woken, and read a fix
        self._fixes = 0
        self._measured_s = -math.inf

    def is_quiet(self, now_s: float) -> bool:
        """Whether only the heartbeat is needed."""
        return now_s - self._awake_s > QUIET_S

    def wake(self, now_s: float, fixes: int = 0) -> None:
        """Count more often from now on, and note fixes that were read."""
        self._awake_s = now_s
        if fixes:
            self._fix_s = now_s
            self._fixes += fixes

    def had_fixes(self) -> bool:
        """Whether a fix was read lately."""
        return time.time() - self._fix_s < QUIET_S

    def step(self, now_s: float) -> int:
        """Ticks from instant to instant."""
        past_s = now_s - self._measured_s
        if past_s < 0 or past_s > RATE_S / 4:  # or the clock was set back
            past_s = abs(past_s)
            self._rate += (self._fixes / past_s - self._rate) * min(1.0, past_s / RATE_S)
            self._fixes, self._measured_s = 0, now_s
        if self.is_quiet(now_s):
            return QUIET_STEP
        return next(step for rate, step in STEPS if self._rate < rate)


class CountingLoop:
    """Reads the owned partitions and counts them."""

    def __init__(
        self,
        counter: Counter,
        ownership: Ownership,
        connection: Connection,
        prepare: Callable[[Sequence[Partition]], Awaitable[None]],
        publish: Callable[[CountingOutput, Sequence[OwnedPartition]], Awaitable[None]],
    ) -> None:
        """Count nothing yet.

        Args:
            counter: of the partitions.
            ownership: of them.
            connection: to the core, which the log's reader uses too.
            prepare: provides what counting partitions needs.
            publish: publishes and stores the output of partitions.
        """
        self.pace = Pace()
        self._counter = counter
        self._ownership = ownership
        self._connection = connection
        self._prepare = prepare
        self._publish = publish
        self._following: dict[int, OwnedPartition] = {}

    async def run(self, reader: LogReader) -> None:
        """Count until the reader fails. Only this loop follows and leaves, so the reader is where each partition is."""
        self._following = {}
        while True:
            await self._follow(reader)
            self._check_ticks()
            lagging = [owned for owned in self._following.values() if owned.partition.pending > CATCHING_UP]
            now_s = time.time()
            step = self.pace.step(now_s)
            step_s = step * TICK_S
            delay_s = min(MAX_DELAY_S, step_s / 5)
            at_s = ((now_s - delay_s) // step_s + 1) * step_s
            if lagging:
                await self._read(reader, at_s + delay_s - now_s)
                for owned in lagging:
                    await self._catch_up(owned)
            elif self.pace.is_quiet(now_s):
                # the first fix ends the wait
                await self._read(reader, at_s + delay_s - now_s)
            else:
                # meanwhile messages collect in the socket, which is cheaper than to read each as it comes
                await asyncio.sleep(at_s + delay_s - now_s)
            if time.time() >= at_s + delay_s:
                await self._count_instant(reader, round(at_s / TICK_S), step)
            # available data is read without a pause: let the other loops run
            await asyncio.sleep(0)

    async def _follow(self, reader: LogReader) -> None:
        following, ownership = self._following, self._ownership
        for number, owned in list(following.items()):
            if not ownership.owns(owned):
                del following[number]
                await reader.leave(number)
        for number, owned in list(ownership.owned.items()):
            if number not in following:
                following[number] = owned
                owned.partition.seq = await reader.follow(number, owned.partition.seq)
                owned.received_s = time.monotonic()
                self.pace.wake(time.time())  # its counts are waited for

    def _check_ticks(self) -> None:
        """The log's ticks prove that the reader is connected."""
        oldest_s = min((owned.received_s for owned in self._following.values()), default=math.inf)
        if time.monotonic() - oldest_s > TICK_TIMEOUT_S and self._connection.is_connected:
            raise LogError(f"no message of a partition within {TICK_TIMEOUT_S:g} s")

    async def _read(self, reader: LogReader, within_s: float) -> bool:
        """Read what arrives within a time; returns whether there was anything."""
        batches = await reader.read(within_s)
        for batch in batches:
            owned = self._following[batch.partition]
            owned.received_s = time.monotonic()
            owned.partition.take(batch)
            if fixes := len(batch) - batch.payloads.count(b""):
                self.pace.wake(time.time(), fixes)
        return bool(batches)

    async def _catch_up(self, owned: OwnedPartition) -> None:
        """Count one partition in large steps, whose counts are published less often."""
        partition = owned.partition
        publish = time.monotonic() - owned.published_s > CATCH_UP_PUBLISH_S
        if partition.waiting_rows >= BATCH_ROWS or (partition.due and publish):
            await self._count([owned], publish=publish)

    async def _count_instant(self, reader: LogReader, tick: int, step: int) -> None:
        """Count all partitions that aren't catching up at an instant."""
        while await self._read(reader, 0.0):
            if self._waiting_rows() > BATCH_ROWS:
                break
        live = [owned for owned in self._following.values() if owned.partition.pending <= CATCHING_UP]
        over_ns, sent_s = tick * TICK_NS + OVER_NS, time.monotonic()
        missing = [owned for owned in live if owned.partition.reached_ns < over_ns]
        if missing and self._connection.is_connected:
            await reader.tick([owned.partition.number for owned in missing])
            while missing and (left_s := sent_s + TICK_ANSWER_S - time.monotonic()) > 0:
                await self._read(reader, left_s)
                # where the server's clock is behind this one, a tick may be received before the instant
                missing = [owned for owned in missing if owned.received_s < sent_s]
        await self._count(live, until_tick=tick, step=step)

    def _waiting_rows(self) -> int:
        return sum(owned.partition.waiting_rows for owned in self._following.values())

    async def _count(
        self,
        owned: Sequence[OwnedPartition],
        *,
        until_tick: int | None = None,
        step: int = 1,
        publish: bool = True,
    ) -> None:
        """Count partitions that are still owned, and publish."""
        if not owned:
            return
        await self._prepare([each.partition for each in owned])
        owned = [each for each in owned if self._ownership.owns(each)]
        partitions = [each.partition for each in owned]
        output = self._counter.work(partitions, until_tick=until_tick, step=step, publish=publish)
        if output.counts:
            published_s = time.monotonic()
            for each in owned:
                each.published_s = published_s
        await self._publish(output, owned)
