"""The live counts: totals as they come in, the last five minutes of them, and who waits for news."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import cached_property

import msgspec
import numpy as np

from headcount.counting.fix_batch import I4
from headcount.counting.site import Site
from headcount.counting.totals import Total, Totals
from headcount.messages.counts import NUMBERS, PartitionCounts
from headcount.messages.times import HISTORY_TICK_S

#: How much of the past is kept in memory, and how finely.
MEMORY_S = 300.0
MEMORY_STEP_S = 1.0
#: How often it is looked whether partitions are overdue.
CHECK_S = 0.25
#: A report from further ahead than this comes from a wrong clock.
MAX_AHEAD_S = 60.0
#: When the newest total is further ahead than this, the clock was set back, and counting starts anew.
SET_BACK_S = 5.0

_log = logging.getLogger(__name__)
_decoder = msgspec.msgpack.Decoder(PartitionCounts)


class CountsSnapshot:
    """A total with its number: the n-th since the start. Its JSON is made once for all readers."""

    def __init__(self, number: int, total: Total, zones: tuple[str, ...]) -> None:
        """Number a total; `zones` are the ids in the order of its rows."""
        self.number = number
        self.total = total
        self._zones = zones

    @cached_property
    def fragments(self) -> list[msgspec.Raw]:
        """Each zone's numbers as JSON, in the order of the site."""
        return fragments(self._zones, self.total.values)


def fragments(zones: tuple[str, ...], values: I4) -> list[msgspec.Raw]:
    """`{"zone":…,"person":{…},"vehicle":{…}}` of each zone; `values` is int32 [Z, 2, 4]."""
    return [
        msgspec.Raw(
            msgspec.json.encode(
                {
                    "zone": zone,
                    "person": dict(zip(NUMBERS, person, strict=True)),
                    "vehicle": dict(zip(NUMBERS, vehicle, strict=True)),
                }
            )
        )
        for zone, (person, vehicle) in zip(zones, values.tolist(), strict=True)
    ]


class CountsFeed:
    """The newest snapshot, and who waits for the next. A reader never has a queue."""

    def __init__(self, site: Site, partitions: int) -> None:
        """Start without a snapshot."""
        self.site = site
        self.partitions = partitions
        self.zones = tuple(zone.id for zone in site.zones)
        self.index = {zone: i for i, zone in enumerate(self.zones)}
        self.snapshot: CountsSnapshot | None = None
        self.closed = asyncio.Event()
        self._number = 0
        self._changed = asyncio.Event()

    async def newer(self, number: int, timeout_s: float) -> None:
        """Return when there is a snapshot after `number`, when closed, or after `timeout_s`."""
        changed = self._changed
        if self.closed.is_set() or (self.snapshot is not None and self.snapshot.number > number):
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), timeout_s)

    async def pause(self, timeout_s: float) -> None:
        """Return after `timeout_s`, or at once when closed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.closed.wait(), timeout_s)

    def close(self) -> None:
        """Wake and end all readers."""
        self.closed.set()
        self._changed.set()

    def _show(self, snapshot: CountsSnapshot) -> None:
        self.snapshot = snapshot
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _same(a: Total, b: Total) -> bool:
    return (a.at, a.partitions_fresh) == (b.at, b.partitions_fresh) and np.array_equal(a.values, b.values)


class LiveCounts(CountsFeed):
    """Keeps the newest total and those of the last `MEMORY_S` seconds, and wakes who waits.

    It holds no connection: `take` gets what the broker delivers, so that without a broker the last
    numbers stay, and get older. `on_total` hears each total that is exact.
    """

    def __init__(
        self,
        site: Site,
        partitions: int,
        clock: Callable[[], float] = time.time,
        on_total: Callable[[Total], None] = lambda _: None,
    ) -> None:
        """Start without numbers; `clock` gives Unix seconds."""
        super().__init__(site, partitions)
        self.refused = 0  # reports of another site or layout, or undecodable
        self._clock = clock
        self._on_total = on_total
        self._totals = Totals(partitions, len(self.zones))
        self._memory: deque[Total] = deque(maxlen=round(MEMORY_S / MEMORY_STEP_S))

    def take(self, payload: bytes) -> None:
        """Take a `PartitionCounts` message; what can't be used is counted in `refused` and logged."""
        try:
            counts = _decoder.decode(payload)
            values = self._values(counts)
            self._start_anew_if_clock_was_set_back()
            totals = self._totals.add(counts.partition, counts.epoch, counts.at, values)
        except (msgspec.DecodeError, ValueError) as error:
            self.refused += 1
            if self.refused == 1:
                _log.warning("counts that don't belong to site %s are ignored: %s", self.site.id, error)
            return
        for total in totals:
            self._publish(total)
            self._remember(total)
            self._on_total(total)

    def check_overdue(self) -> None:
        """Publish what is known when partitions are overdue; to be called every `CHECK_S`."""
        total = self._totals.overdue(self._clock())
        if total is None:
            return
        if self.snapshot is None or not _same(self.snapshot.total, total):
            self._publish(total)

    def silent(self) -> list[int]:
        """The partitions without a fresh report."""
        return self._totals.silent(self._clock())

    def age_s(self) -> float | None:
        """How old the newest total is."""
        return None if self.snapshot is None else max(0.0, self._clock() - self.snapshot.total.at)

    def remembered(self, at: float) -> Total | None:
        """The newest total that is at most `at`, if memory reaches back to it without a gap."""
        for total in reversed(self._memory):
            if total.at <= at:
                return total if at - total.at <= HISTORY_TICK_S else None
        return None

    def _values(self, counts: PartitionCounts) -> I4:
        if counts.site != self.site.id or counts.partitions != self.partitions:
            raise ValueError(f"site {counts.site!r} with {counts.partitions} partitions")
        if counts.at > self._clock() + MAX_AHEAD_S:
            raise ValueError(f"partition {counts.partition} is {counts.at - self._clock():.0f} s ahead")
        return np.frombuffer(counts.values, np.dtype("<i4")).reshape(counts.zones, 2, len(NUMBERS))

    def _start_anew_if_clock_was_set_back(self) -> None:
        if self.snapshot is None or self.snapshot.total.at <= self._clock() + SET_BACK_S:
            return
        _log.warning("the clock was set back: totals start anew")
        self._totals = Totals(self.partitions, len(self.zones))
        self._memory.clear()
        self.snapshot = None

    def _remember(self, total: Total) -> None:
        """Keep a total for questions about the past: only exact ones, of one instant in all partitions."""
        if not self._memory or total.at - self._memory[-1].at >= MEMORY_STEP_S - 0.001:
            self._memory.append(total)

    def _publish(self, total: Total) -> None:
        self._number += 1
        self._show(CountsSnapshot(self._number, total, self.zones))
