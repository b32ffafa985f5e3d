"""The live counts: totals as they arrive, those of the last five minutes, and the readers that wait for new ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from headcount.counting.fix_columns import I4
from headcount.counting.site import Zone
from headcount.counting.site_versions import SiteVersion, SiteVersions
from headcount.counting.totals import Total, Totals
from headcount.messages.counts import COUNT_FIELDS, PartitionCounts, decode_counts
from headcount.messages.times import HISTORY_TICK_S
from headcount.messages.topics import KINDS

#: The length of the memory, and the distance of the totals in it.
MEMORY_S = 300.0
MEMORY_STEP_S = 1.0
#: The interval at which overdue partitions are checked.
CHECK_INTERVAL_S = 0.25
#: A report from further ahead comes from a wrong clock.
MAX_REPORT_AHEAD_S = 60.0
#: When the newest total is further ahead, the clock was set back, and totals start again.
SET_BACK_S = 5.0

_log = logging.getLogger(__name__)


class CountsSnapshot:
    """A total and its number since the start. Its JSON is made once for all readers."""

    def __init__(self, number: int, total: Total, zones: tuple[Zone, ...]) -> None:
        """`zones` are those of the total's rows."""
        self.number = number
        self.total = total
        self._zones = zones

    @cached_property
    def fragments(self) -> list[msgspec.Raw]:
        """Each zone's counts as JSON, in the order of the site."""
        return [
            fragment(zone, [dict(zip(COUNT_FIELDS, numbers, strict=True)) for numbers in kinds])
            for zone, kinds in zip(self._zones, self.total.values.tolist(), strict=True)
        ]


def fragment(zone: Zone, kinds: Sequence[dict[str, Any]]) -> msgspec.Raw:
    """Return `{"zone":…,"person":{…},"vehicle":{…}}`; capacity and share are added where the site has a capacity.

    `kinds` are the counts of people and of vehicles.
    """
    found: dict[str, Any] = {"zone": zone.id}
    for kind, numbers, capacity in zip(KINDS, kinds, zone.capacity, strict=True):
        found[kind] = numbers
        if capacity is not None:
            known = isinstance(numbers["count"], int) and capacity > 0
            share = round(numbers["count"] / capacity, 3) if known else None
            found[kind] = numbers | {"capacity": capacity, "share": share}
    return msgspec.Raw(msgspec.json.encode(found))


class CountsFeed:
    """The newest snapshot, and the readers that wait for the next one. A reader has no queue."""

    def __init__(self, sites: SiteVersions, partitions: int) -> None:
        self.sites = sites
        self.partitions = partitions
        self._use(sites.all[0])
        self.snapshot: CountsSnapshot | None = None
        self.closed = asyncio.Event()
        self._number = 0
        self._changed = asyncio.Event()

    def _use(self, version: SiteVersion) -> None:
        """Serve the zones of this version of the site."""
        self.version, self.site = version, version.site
        self.zones = tuple(zone.id for zone in self.site.zones)
        self.index = {zone: i for i, zone in enumerate(self.zones)}

    async def newer(self, number: int, timeout_s: float) -> None:
        """Return when there is a snapshot after `number`, when closed, or after `timeout_s`."""
        changed = self._changed
        if self.closed.is_set() or (self.snapshot is not None and self.snapshot.number > number):
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), timeout_s)

    async def pause(self, timeout_s: float) -> None:
        """Return after `timeout_s`, or when closed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.closed.wait(), timeout_s)

    def close(self) -> None:
        """Wake and end all readers."""
        self.closed.set()
        self._changed.set()

    def _set_snapshot(self, snapshot: CountsSnapshot) -> None:
        self.snapshot = snapshot
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class LiveCounts(CountsFeed):
    """The newest total and those of the last `MEMORY_S` seconds.

    It has no connection: `take` gets the messages, so that the last counts remain and age without a broker.
    `on_total` is called with each exact total.
    """

    def __init__(
        self,
        sites: SiteVersions,
        partitions: int,
        clock: Callable[[], float] = time.time,
        on_total: Callable[[Total], None] = lambda _: None,
    ) -> None:
        """Start without counts; `clock` returns Unix seconds."""
        super().__init__(sites, partitions)
        self.rejected = 0  # reports of another site or number of partitions, or malformed ones
        self._clock = clock
        self._on_total = on_total
        self._totals = Totals(partitions)
        self._memory: deque[Total] = deque(maxlen=round(MEMORY_S / MEMORY_STEP_S))

    def take(self, payload: bytes) -> None:
        """Take a message of counts; invalid ones are counted in `rejected`, and the first is logged."""
        totals: list[Total] = []
        try:
            for counts in decode_counts(payload):
                values = self._values(counts)
                self._restart_if_clock_was_set_back()
                totals += self._totals.add(
                    counts.partition, counts.epoch, counts.at, values, counts.site_version
                )
        except (msgspec.DecodeError, ValueError) as error:
            self.rejected += 1
            if self.rejected == 1:
                _log.warning("ignoring counts that do not belong to site %s: %s", self.site.id, error)
            return
        for total in totals:
            if self._update(total):
                self._remember(total)
                self._on_total(total)

    def check_overdue(self) -> None:
        """Publish the known counts when partitions are overdue; to be called every `CHECK_INTERVAL_S`."""
        total = self._totals.overdue(self._clock())
        if total is None:
            return
        if self.snapshot is None or not _is_same(self.snapshot.total, total):
            self._update(total)

    def overdue_partitions(self) -> list[int]:
        """Return the partitions without a fresh report."""
        return self._totals.silent(self._clock())

    def age_s(self) -> float | None:
        """Return the age of the newest total."""
        return None if self.snapshot is None else max(0.0, self._clock() - self.snapshot.total.at)

    def remembered(self, at: float) -> Total | None:
        """Return the newest total at or before `at`, if the memory reaches back to it without a gap."""
        for total in reversed(self._memory):
            if total.at <= at:
                return total if at - total.at <= HISTORY_TICK_S else None
        return None

    def _values(self, counts: PartitionCounts) -> I4:
        if counts.site != self.site.id or counts.partitions != self.partitions:
            raise ValueError(f"site {counts.site!r} with {counts.partitions} partitions")
        version = self.sites.numbered(counts.site_version)
        if version is not None and counts.zones != len(version.site.zones):
            raise ValueError(f"{counts.zones} zones in version {version.number} of the site")
        if counts.at > self._clock() + MAX_REPORT_AHEAD_S:
            raise ValueError(f"partition {counts.partition} is {counts.at - self._clock():.0f} s ahead")
        return np.frombuffer(counts.values, np.dtype("<i4")).reshape(counts.zones, 2, len(COUNT_FIELDS))

    def _restart_if_clock_was_set_back(self) -> None:
        if self.snapshot is None or self.snapshot.total.at <= self._clock() + SET_BACK_S:
            return
        _log.warning("the clock was set back; discarding the totals in memory")
        self._totals = Totals(self.partitions)
        self._memory.clear()
        self.snapshot = None

    def _remember(self, total: Total) -> None:
        """Store an exact total, of one instant in all partitions, for queries about the past."""
        if not self._memory or total.at - self._memory[-1].at >= MEMORY_STEP_S - 0.001:
            self._memory.append(total)

    def snapshot_of(self, total: Total) -> CountsSnapshot:
        """Return a snapshot of a total from the memory."""
        version = self.sites.numbered(total.site_version) or self.version
        return CountsSnapshot(0, total, version.site.zones)

    def on_new_site(self) -> None:
        """Serve the version that is in effect, where no total decides it."""
        if self.snapshot is None:
            self._use(self.sites.at(self._clock()))

    def _update(self, total: Total) -> bool:
        """Serve a total; False: its version of the site is not known yet."""
        version = self.sites.numbered(total.site_version)
        if version is None:
            return False
        if version is not self.version:
            self._use(version)
        self._number += 1
        self._set_snapshot(CountsSnapshot(self._number, total, self.site.zones))
        return True


def _is_same(a: Total, b: Total) -> bool:
    return (a.at, a.partitions_fresh) == (b.at, b.partitions_fresh) and np.array_equal(a.values, b.values)
