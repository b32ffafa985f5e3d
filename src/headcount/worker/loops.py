"""The counting worker and its loops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from headcount.counting.disclosure import Disclosure
from headcount.counting.site import Site
from headcount.counting.site_versions import SiteVersions
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.devices.pseudonyms import Pseudonyms
from headcount.errors import LogError, SnapshotConflictError
from headcount.messages.history import RowsStored
from headcount.messages.reports import WORKER_REPORT_SUBJECT
from headcount.messages.topics import HISTORY_STORE_SUBJECT, WAKE_SUBJECT
from headcount.messaging.connection import Connection, Endpoint, Message
from headcount.messaging.log_reader import open_reader
from headcount.messaging.mqtt_address import MqttAddress
from headcount.messaging.site_versions import SiteFollower, deployment_sites
from headcount.messaging.streams import opened_log
from headcount.runtime.retry import repeat, retry
from headcount.runtime.tasks import cancel_all, unless_stopped
from headcount.worker.counter import Counter
from headcount.worker.counting_loop import CountingLoop
from headcount.worker.ownership import POLL_INTERVAL_S, OwnedPartition, Ownership
from headcount.worker.partition import Partition
from headcount.worker.publisher import Publisher
from headcount.worker.retained_counts import RetainedCounts, remove_other_sites
from headcount.worker.site_counter import CountingOutput
from headcount.worker.snapshots import Snapshots
from headcount.worker.stats import WorkerStats

_log = logging.getLogger(__name__)

STORE_INTERVAL_S = 1.0
#: Rows of the history wait longer: each message of them is overwritten on the disk later, one by one.
ROWS_INTERVAL_S = 5.0
#: When queries ask for them, at most this often.
MIN_ROWS_INTERVAL_S = 0.4
REPORT_INTERVAL_S = 1.0
#: Much shorter than SITE_DELAY_S: counting never waits for it.
SITE_INTERVAL_S = 1.0
#: Rows for the history that wait in one partition before they are stored immediately.
HISTORY_ROWS = 10_000
#: Events and messages of rows that may wait to be stored.
MAX_UNSTORED = 20_000
#: Between two messages by which a worker with fixes has the others count as often.
WAKE_INTERVAL_S = 0.25


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of a counting worker."""

    site: Site  # the first site of a new deployment
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
        self._counter = Counter(sites, self._pseudonyms, settings.partitions)
        self._counting = CountingLoop(self._counter, self.ownership, connection, self._prepare, self._publish)

    @property
    def _owned(self) -> dict[int, OwnedPartition]:
        return self.ownership.owned

    async def _create(self, number: int, epoch: int) -> Partition:
        await self._keys.load()  # by which restored devices are recognised
        await self._sites.refresh()  # a snapshot may be of the newest version
        return self._counter.partition(number, epoch)

    # --- reading and counting ------------------------------------------------------------------
    async def _run_reader(self) -> None:
        """Read and count; a lost connection is re-established, and reading continues where it stopped."""

        async def read() -> None:
            async with open_reader(self._settings.log, self._connection) as reader:
                await self._counting.run(reader)

        await repeat(read, (LogError,), "reading the log", level=logging.WARNING)

    async def _prepare(self, partitions: Sequence[Partition]) -> None:
        """Provide what counting these partitions needs."""
        for days in {partition.days for partition in partitions}:
            await self._keys.ensure(days)
        if not all(partition.is_site_known for partition in partitions):
            await self._sites.refresh()

    async def _publish(self, output: CountingOutput, owned: Sequence[OwnedPartition]) -> None:
        self._publisher.add_events(output.events, output.epochs)
        await self._publisher.publish_counts(output.counts)
        self._stats.add(output.verdicts, output.received_s, time.time())
        # what can't be stored must not pile up: nothing more is read until it is
        too_many = any(each.partition.history_rows >= HISTORY_ROWS for each in owned)
        if too_many or self._publisher.unstored > MAX_UNSTORED:
            await self._store()

    async def _run_waking(self) -> None:
        """Have the workers count at the same pace: a total needs the counts of all of them."""

        async def wake(_: Message) -> None:
            self._counting.pace.wake(time.time())

        await self._connection.subscribe(WAKE_SUBJECT, wake)
        while True:
            await asyncio.sleep(WAKE_INTERVAL_S)
            if self._counting.pace.had_fixes() and len(self._owned) < self._settings.partitions:
                await self._connection.publish(WAKE_SUBJECT)

    # --- storing -----------------------------------------------------------------------------------
    async def _run_rows_requests(self) -> None:
        """Store the rows when a query asks for them."""
        stored_s = 0.0

        async def store(message: Message) -> None:
            nonlocal stored_s
            if time.monotonic() - stored_s >= MIN_ROWS_INTERVAL_S:
                try:
                    await self._store()
                except LogError as error:  # the query answers without them
                    _log.warning("cannot store the rows that a query asks for: %s", error)
                    return
                stored_s = time.monotonic()
            await message.respond(msgspec.json.encode(RowsStored(sorted(self._owned))))

        await self._connection.subscribe(HISTORY_STORE_SUBJECT, store)
        await asyncio.Event().wait()

    async def _run_storing(self) -> None:
        """Store events every second, history rows less often, and the states that are due."""
        rows_s = time.monotonic()
        while True:
            await asyncio.sleep(STORE_INTERVAL_S)
            try:
                with_rows = time.monotonic() - rows_s > ROWS_INTERVAL_S
                rows_s = time.monotonic() if with_rows else rows_s
                await self._store(with_rows=with_rows)
                for owned in list(self._owned.values()):
                    if self.ownership.owns(owned) and owned.is_save_due:
                        await self._save(owned)
            except LogError as error:
                _log.warning("%s; trying again", error)

    async def _store(self, *, with_rows: bool = True) -> None:
        async with self._storing:
            for owned in self._owned.values() if with_rows else ():
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
        seq, sites, state = partition.done_seq, partition.sites, partition.save()
        self._publisher.add_rows(partition.history())
        await self._store(with_rows=False)  # more than the state led to may be stored, but not less
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
        owned.saved_seq, owned.saved_sites, owned.saved_s = seq, sites, time.monotonic()

    # --- publishing --------------------------------------------------------------------------------
    async def _run_retained_counts(self) -> None:
        """Publish the retained counts of each site while this worker owns partition 0: that needs no election."""
        tasks: dict[str, asyncio.Task[None]] = {}
        others_than: set[str] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                tasks = {key: task for key, task in tasks.items() if not task.done()}
                sites = self._sites.current(time.time()) if 0 in self._owned else []
                if (ids := {site.site_id for site in sites}) != others_than:
                    with contextlib.suppress(LogError):
                        if ids:
                            await remove_other_sites(self._connection, ids)
                        others_than = ids
                for site in sites:
                    if site.key not in tasks:
                        tasks[site.key] = group.create_task(
                            self._retained_counts(site).run(), name=f"retained counts of {site.key}"
                        )
                await asyncio.sleep(POLL_INTERVAL_S)

    def _retained_counts(self, site: SiteVersions) -> RetainedCounts:
        settings = self._settings
        disclose = None
        if settings.smallest_shown > 1:
            disclose = partial(Disclosure, smallest=settings.smallest_shown, key=settings.public_key)
        return RetainedCounts(
            self._connection, settings.mqtt, site, settings.partitions, self._publishes_retained, disclose
        )

    def _publishes_retained(self) -> bool:
        return 0 in self._owned and self.ownership.is_entitled()

    async def _run_sites(self) -> None:
        """Learn new sites and versions, and prepare their zones before they take effect."""
        while True:
            with contextlib.suppress(LogError):
                if await self._sites.refresh():
                    await asyncio.to_thread(lambda: [site.newest.zones for site in self._sites.all])
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
            "waking": self._run_waking(),
            "storing": self._run_storing(),
            "rows requests": self._run_rows_requests(),
            "retained counts": self._run_retained_counts(),
            "pseudonym keys": self._keys.refresh(),
            "sites": self._run_sites(),
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
        reading = partial(deployment_sites, connection, settings.site, settings.speed)
        sites = await unless_stopped(retry(reading, (LogError,), "reading the sites"), stop)
        await Worker(settings, connection, sites).run(stop)
