"""The counting worker and its loops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from headcount.counting.disclosure import Disclosure
from headcount.counting.site import Site
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.devices.pseudonyms import Pseudonyms
from headcount.errors import LogError, SnapshotConflictError, SnapshotError
from headcount.messages.reports import WORKER_REPORT_SUBJECT
from headcount.messages.times import TICK_S
from headcount.messages.topics import TICK_SUBJECT
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.log_reader import LogReader, open_reader
from headcount.messaging.mqtt_address import MqttAddress
from headcount.messaging.site_versions import SiteFollower, deployment_site
from headcount.messaging.streams import opened_log
from headcount.runtime.retry import repeat, retry
from headcount.runtime.tasks import cancel_all, unless_stopped
from headcount.worker.ownership import FAST_POLL_INTERVAL_S, POLL_INTERVAL_S, OwnedPartition, Ownership
from headcount.worker.partition import BATCH_ROWS, Partition
from headcount.worker.publisher import Publisher
from headcount.worker.retained_counts import RetainedCounts
from headcount.worker.snapshots import Snapshots
from headcount.worker.stats import WorkerStats

_log = logging.getLogger(__name__)

STORE_INTERVAL_S = 1.0
SNAPSHOT_INTERVAL_S = 5.0
REPORT_INTERVAL_S = 1.0
#: Much shorter than SITE_DELAY_S: counting never waits for it.
SITE_INTERVAL_S = 1.0
#: A partition with more pending messages is catching up: its counts are published less often.
CATCHING_UP = 2_000
CATCH_UP_PUBLISH_S = 0.5
#: Rows for the history that wait in one partition before they are stored immediately.
HISTORY_ROWS = 10_000
#: Events and messages of rows that may wait to be stored.
MAX_UNSTORED = 20_000
#: The log ticks ten times a second; a reader without a message of a partition for this long is disconnected.
TICK_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of a counting worker."""

    site: Site  # the first version of a deployment without a site
    log: Endpoint
    mqtt: Sequence[MqttAddress]  # of the core's nodes, any of which will do
    partitions: int
    smallest_shown: int = 1  # the public sees no count below it; 1 = it sees all
    public_key: bytes = field(default=b"", repr=False)  # see counting/disclosure.py
    speed: float = 1.0  # of a time-lapse run


class Worker:
    """Counts its share of the partitions of the log until it is stopped."""

    def __init__(self, settings: WorkerSettings, connection: Connection, sites: SiteFollower) -> None:
        self._settings = settings
        self._sites = sites
        self._connection = connection
        self._snapshots = Snapshots(connection)
        self._publisher = Publisher(connection)
        self._keys = PseudonymKeys(connection)
        self._pseudonyms = Pseudonyms(self._keys.keys)
        self._stats = WorkerStats()
        self._storing = asyncio.Lock()
        self.ownership = Ownership(
            connection,
            self._snapshots,
            settings.partitions,
            create=self._create,
            save=self._save,
            on_rejoin=self._publisher.discard,
        )

    @property
    def _owned(self) -> dict[int, OwnedPartition]:
        return self.ownership.owned

    async def _create(self, number: int, epoch: int) -> Partition:
        await self._keys.load()  # by which restored devices are recognised
        settings = self._settings
        await self._sites.refresh()  # a snapshot may be of the newest version
        return Partition(number, settings.partitions, epoch, self._sites, self._pseudonyms)

    # --- reading and counting ------------------------------------------------------------------
    async def _run_reader(self) -> None:
        """Read and count; a lost connection is re-established, and reading continues where it stopped."""

        async def read() -> None:
            async with open_reader(self._settings.log, self._connection) as reader:
                await self._read(reader)

        await repeat(read, (LogError,), "reading the log", level=logging.WARNING)

    async def _read(self, reader: LogReader) -> None:
        """Read owned partitions. Only this loop follows and leaves, so the reader is where each partition is."""
        following: dict[int, OwnedPartition] = {}
        while True:
            for number, owned in list(following.items()):
                if not self.ownership.owns(owned):
                    del following[number]
                    await reader.leave(number)
            for number, owned in list(self._owned.items()):
                if number not in following:
                    following[number] = owned
                    owned.partition.seq = await reader.follow(number, owned.partition.seq)
                    owned.received_s = time.monotonic()
            for batch in await reader.read(FAST_POLL_INTERVAL_S):
                owned = following[batch.partition]
                owned.received_s = time.monotonic()
                owned.partition.take(batch)
                if self.ownership.owns(owned):
                    await self._count(owned)
            self._check_ticks(following)
            # available data is read without a pause: let the other loops run
            await asyncio.sleep(0)

    def _check_ticks(self, following: dict[int, OwnedPartition]) -> None:
        """The log's ticks prove that the reader is connected."""
        oldest_s = min((owned.received_s for owned in following.values()), default=math.inf)
        if time.monotonic() - oldest_s > TICK_TIMEOUT_S and self._connection.is_connected:
            raise LogError(f"no message of a partition within {TICK_TIMEOUT_S:g} s")

    async def _count(self, owned: OwnedPartition) -> None:
        """Count what is due; while catching up, in large steps whose counts are published less often."""
        partition = owned.partition
        catching_up = partition.pending > CATCHING_UP
        publish = not catching_up or time.monotonic() - owned.published_s > CATCH_UP_PUBLISH_S
        if partition.waiting_rows < BATCH_ROWS and not (partition.due and publish):
            return
        await self._keys.ensure(partition.days)
        if not partition.is_site_known:
            await self._sites.refresh()
        if not self.ownership.owns(owned):
            return
        output = partition.work(publish=publish)
        self._publisher.add_events(output.events, partition.epoch)
        if output.counts:
            owned.published_s = time.monotonic()
            await self._publisher.publish_counts(output.counts)
        self._stats.add(output.verdicts, output.received_s, time.time())
        # what can't be stored must not pile up: nothing more is read until it is
        if partition.history_rows >= HISTORY_ROWS or self._publisher.unstored > MAX_UNSTORED:
            await self._store()

    async def _run_ticks(self) -> None:
        """Write the log's clock into each owned partition."""
        while True:
            await asyncio.sleep(TICK_S - time.time() % TICK_S + 0.001)
            if self._connection.is_connected:
                for number in list(self._owned):
                    await self._connection.publish(TICK_SUBJECT.format(partition=number))

    # --- storing -----------------------------------------------------------------------------------
    async def _run_storing(self) -> None:
        """Store events and history rows every second, snapshots every five."""
        saved_s = time.monotonic()
        while True:
            await asyncio.sleep(STORE_INTERVAL_S)
            try:
                await self._store()
                if time.monotonic() - saved_s > SNAPSHOT_INTERVAL_S:
                    saved_s = time.monotonic()
                    for owned in list(self._owned.values()):
                        await self._save(owned)
            except LogError as error:
                _log.warning("%s; trying again", error)

    async def _store(self) -> None:
        async with self._storing:
            for owned in self._owned.values():
                self._publisher.add_rows(owned.partition.history())
            await self._publisher.store()

    def _was_discarded(self, owned: OwnedPartition) -> bool:
        """Whether the worker has rejoined since it acquired a partition, so that its output may not be stored."""
        return owned.lease.owner != self.ownership.name

    async def _save(self, owned: OwnedPartition) -> None:
        """Save a partition's state, after everything it led to is stored."""
        partition = owned.partition
        if partition.done_seq == owned.saved_seq or self._was_discarded(owned):
            return
        seq, state = partition.done_seq, partition.save()
        self._publisher.add_rows(partition.history())
        await self._store()  # more than the state led to may be stored, but not less
        if self._was_discarded(owned):
            return
        try:
            owned.revision = await self._snapshots.save(
                partition.number, partition.epoch, state, owned.revision
            )
        except SnapshotConflictError as error:
            newest = await self._snapshots.load(partition.number)
            if newest.epoch == partition.epoch:  # saved by this worker, and the acknowledgement was lost
                owned.revision = newest.revision
                return
            _log.warning("%s; dropping partition %d", error, partition.number)
            await self.ownership.drop(partition.number)
            return
        except SnapshotError as error:
            _log.error("%s; a restart would count the partition from an older state", error)
            return
        owned.saved_seq = seq

    # --- publishing --------------------------------------------------------------------------------
    async def _run_retained_counts(self) -> None:
        """Publish the retained counts while this worker owns partition 0: that needs no election."""
        settings = self._settings
        disclose = None
        if settings.smallest_shown > 1:
            disclose = partial(Disclosure, smallest=settings.smallest_shown, key=settings.public_key)
        retained = (settings.mqtt, self._sites, settings.partitions, self._publishes_retained, disclose)
        while True:
            if 0 in self._owned:
                await RetainedCounts(self._connection, *retained).run()
            await asyncio.sleep(POLL_INTERVAL_S)

    def _publishes_retained(self) -> bool:
        return 0 in self._owned and self.ownership.is_entitled()

    async def _run_site(self) -> None:
        """Learn new versions of the site and prepare their zones before they take effect."""
        while True:
            with contextlib.suppress(LogError):
                if await self._sites.refresh():
                    await asyncio.to_thread(lambda: self._sites.newest.zones)
            await asyncio.sleep(SITE_INTERVAL_S)

    async def _run_reports(self) -> None:
        """Publish the worker's report every second."""
        process = self.ownership.process
        while True:
            await asyncio.sleep(REPORT_INTERVAL_S)
            lag = sum(owned.partition.pending for owned in self._owned.values())
            report = msgspec.json.encode(self._stats.report(process, lag, len(self._owned)))
            if self._connection.is_connected:
                await self._connection.publish(WORKER_REPORT_SUBJECT.format(worker=process), report)

    async def run(self, stop: asyncio.Event) -> None:
        """Run all loops until `stop` is set; then store and save everything, and release all partitions."""
        loops = {
            "heartbeats": self.ownership.run_heartbeats(),
            "assignment": self.ownership.run_assignment(),
            "reader": self._run_reader(),
            "ticks": self._run_ticks(),
            "storing": self._run_storing(),
            "retained counts": self._run_retained_counts(),
            "pseudonym keys": self._keys.refresh(),
            "site": self._run_site(),
            "reports": self._run_reports(),
        }
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop, name=f"worker: {name}") for name, loop in loops.items()]
            await stop.wait()
            await cancel_all(tasks)
        await self.ownership.close()


async def run(settings: WorkerSettings, stop: asyncio.Event) -> None:
    """Connect to the core and count until `stop` is set.

    Raises:
        StopRequestedError: `stop` was set while it waited for the core.
    """
    async with opened_log(settings.log, "headcount count", stop) as connection:
        reading = partial(deployment_site, connection, settings.site, settings.speed)
        sites = await unless_stopped(retry(reading, (LogError,), "reading the site"), stop)
        await Worker(settings, connection, sites).run(stop)
