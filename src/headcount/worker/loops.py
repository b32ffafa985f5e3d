"""The counting worker: its loops, and how it takes, keeps and gives back partitions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from headcount.counting.disclosure import Disclosure
from headcount.counting.site import EARTH_RADIUS_M, Site
from headcount.counting.zone_lookup import ZoneLookup
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.devices.pseudonyms import Pseudonyms
from headcount.errors import LogError, SnapshotConflictError, SnapshotError
from headcount.messages.device_state import DeviceState, DeviceStateRequest
from headcount.messages.fixes import VERDICTS
from headcount.messages.reports import WORKER_REPORT_SUBJECT
from headcount.messages.times import TICK_S
from headcount.messages.topics import DEVICE_STATE_SUBJECT, TICK_SUBJECT
from headcount.messaging.connection import Connection, Endpoint, Message, Subscription
from headcount.messaging.log_reader import LogReader, open_reader
from headcount.messaging.mqtt_address import MqttAddress
from headcount.messaging.streams import opened_log
from headcount.runtime.retry import repeat
from headcount.runtime.tasks import cancel_all
from headcount.worker.assignment import assign
from headcount.worker.leases import HEARTBEAT_INTERVAL_S, LEASE_TTL_S, UNOWNED, Lease, Leases
from headcount.worker.partition import BATCH_ROWS, Partition
from headcount.worker.publisher import Publisher, RetainedCounts
from headcount.worker.snapshots import Snapshots
from headcount.worker.stats import WorkerStats

_log = logging.getLogger(__name__)

FLUSH_S = 1.0
SNAPSHOT_S = 5.0
#: How often a worker looks who lives and has what; more often while it waits for a partition.
POLL_INTERVAL_S = 0.5
FAST_POLL_INTERVAL_S = 0.1
#: With more than this still to come a partition is catching up: counts are told once in TELL_S.
BEHIND = 2_000
CATCH_UP_PUBLISH_S = 0.5
#: Rows for the history that wait in one partition before they are stored at once.
HISTORY_ROWS = 10_000
#: How long a worker that stops may take to give back what it has.
STOP_S = 0.8
RETIRE_S = 0.2
#: So many events and messages of rows may wait to be stored.
MAX_UNSTORED = 20_000
#: The log ticks ten times a second; a reader that hears nothing of a partition for so long is not connected.
TICK_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a counting worker needs to know."""

    site: Site
    log: Endpoint
    mqtt: Sequence[MqttAddress]  # of the core's nodes, any of which will do
    partitions: int
    smallest_shown: int = 1  # the public is told no count below it; 1 = it is told all
    public_key: bytes = field(default=b"", repr=False)  # see counting/disclosure.py


@dataclass(slots=True)
class _OwnedPartition:
    """A partition that we count."""

    partition: Partition
    lease: Lease
    asked: Subscription
    revision: int  # of its newest snapshot
    saved_seq: int = -1
    told_s: float = -math.inf
    heard_s: float = math.inf  # monotonic: when the reader last had something of it


class Worker:
    """Counts its share of the partitions of the log until it is stopped.

    What it may do follows from the leases alone. A worker that couldn't renew its word for TTL_S,
    since it was paused or cut off, drops everything unsaved and joins anew under another name: its
    partitions are with others by then, and its counts, events and rows either carried an older
    epoch or were the same as theirs.
    """

    def __init__(self, settings: WorkerSettings, connection: Connection) -> None:
        """Count over an open connection; see `run`."""
        self._settings = settings
        self._connection = connection
        self._snapshots = Snapshots(connection)
        self._leases = Leases(connection)
        self._publisher = Publisher(connection)
        self._zones = ZoneLookup(settings.site)
        self._days = PseudonymKeys(connection)
        self._pseudonyms = Pseudonyms(self._days.keys)
        self._disclosure = (
            Disclosure(settings.site, settings.smallest_shown, settings.public_key)
            if settings.smallest_shown > 1
            else None
        )
        self._held: dict[int, _OwnedPartition] = {}
        self._figures = WorkerStats()
        self._process = f"w{secrets.token_hex(4)}"
        self._name = self._process
        self._former: list[str] = []  # names that we had and that nobody should wait for
        self._spoken_s = -math.inf  # monotonic: when our last word was certainly not yet said
        self._storing = asyncio.Lock()

    # --- reading and counting ------------------------------------------------------------------
    async def count(self) -> None:
        """Read and count; a lost connection is made again, from where we are."""

        async def read() -> None:
            async with open_reader(self._settings.log, self._connection) as reader:
                await self._read(reader)

        await repeat(read, (LogError,), "reading the log", level=logging.WARNING)

    async def _read(self, reader: LogReader) -> None:
        """Read what we hold. Only this loop follows and leaves, so the reader is where its partition is."""
        following: dict[int, _OwnedPartition] = {}
        while True:
            for number, held in list(following.items()):
                if self._held.get(number) is not held:
                    del following[number]
                    await reader.leave(number)
            for number, held in list(self._held.items()):
                if number not in following:
                    following[number] = held
                    held.partition.seq = await reader.follow(number, held.partition.seq)
                    held.heard_s = time.monotonic()
            for delivery in await reader.read(FAST_POLL_INTERVAL_S):
                held = following[delivery.partition]
                held.heard_s = time.monotonic()
                held.partition.take(delivery)
                if self._held.get(delivery.partition) is held:
                    await self._work(held)
            self._check_heard(following)
            # data that is there already is read without a pause: let the other loops have a turn
            await asyncio.sleep(0)

    def _check_heard(self, following: dict[int, _OwnedPartition]) -> None:
        """The log's ticks are its heartbeat: without them our connection leads nowhere."""
        oldest_s = min((held.heard_s for held in following.values()), default=math.inf)
        if time.monotonic() - oldest_s > TICK_TIMEOUT_S and self._connection.is_connected:
            raise LogError(f"nothing was heard of a partition for {TICK_TIMEOUT_S:g} s")

    async def _work(self, held: _OwnedPartition) -> None:
        """Count what is due; while catching up, in large steps that are told now and then."""
        partition = held.partition
        behind = partition.pending > BEHIND
        tell = not behind or time.monotonic() - held.told_s > CATCH_UP_PUBLISH_S
        if partition.waiting_rows < BATCH_ROWS and not (partition.due and tell):
            return
        await self._days.ensure(partition.days)
        if self._held.get(partition.number) is not held:
            return
        output = partition.work(tell=tell)
        self._publisher.remember(output.events, partition.epoch)
        if output.counts:
            held.told_s = time.monotonic()
            await self._publisher.counts(output.counts)
        self._figures.counted(output.verdicts, output.received_s, time.time())
        # what can't be stored must not pile up: nothing more is read until it is
        if partition.kept_rows >= HISTORY_ROWS or self._publisher.waiting > MAX_UNSTORED:
            await self._store()

    async def keep_time(self) -> None:
        """Write the log's clock into each partition that we count."""
        while True:
            await asyncio.sleep(TICK_S - time.time() % TICK_S + 0.001)
            if self._connection.is_connected:
                for number in list(self._held):
                    await self._connection.publish(TICK_SUBJECT.format(partition=number))

    # --- storing -----------------------------------------------------------------------------------
    async def keep_stored(self) -> None:
        """Store events and history rows every second, snapshots every few."""
        saved_s = time.monotonic()
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self._store()
                if time.monotonic() - saved_s > SNAPSHOT_S:
                    saved_s = time.monotonic()
                    for held in list(self._held.values()):
                        await self._save(held)
            except LogError as error:
                _log.warning("%s; trying again", error)

    async def _store(self) -> None:
        async with self._storing:
            for held in self._held.values():
                self._publisher.record(held.partition.history())
            await self._publisher.flush()

    async def _save(self, held: _OwnedPartition) -> None:
        """Save a partition's state, after what it led to is stored."""
        partition = held.partition
        if partition.done_seq == held.saved_seq:
            return
        seq, state = partition.done_seq, partition.save()
        self._publisher.record(partition.history())
        name = self._name
        await self._store()  # more than the state led to may be stored, but not less
        if self._name != name:
            return  # we began anew meanwhile, and what wasn't stored is forgotten
        try:
            held.revision = await self._snapshots.save(
                partition.number, partition.epoch, state, held.revision
            )
        except SnapshotConflictError as error:
            newest = await self._snapshots.load(partition.number)
            if newest.epoch == partition.epoch:  # our own, whose acknowledgement we missed
                held.revision = newest.revision
                return
            _log.warning("%s; giving up partition %d", error, partition.number)
            await self._drop(partition.number)
            return
        except SnapshotError as error:
            _log.error("%s; a restart would count the partition from an older state", error)
            return
        held.saved_seq = seq

    # --- having partitions ---------------------------------------------------------------------------
    async def keep_alive(self) -> None:
        """Say every second that we live; after a silence that cost us our rights, begin anew."""
        while True:
            await self._speak()
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    async def _speak(self) -> None:
        began_s = time.monotonic()
        if self._held and not self._entitled():
            _log.warning(
                "%s was silent for %.1f s and has lost its partitions; joining anew",
                self._name,
                began_s - self._spoken_s,
            )
            await self._begin_anew()
        try:
            await self._leases.speak(self._name)
            self._spoken_s = began_s
            # words under the old name may have waited for the connection and arrived just now
            while self._former:
                await self._leases.retire(self._former[-1])
                self._former.pop()
        except LogError as error:
            _log.warning("%s; trying again", error)

    def _entitled(self) -> bool:
        """Whether our last word is young enough for what we hold to be ours."""
        return time.monotonic() - self._spoken_s <= LEASE_TTL_S

    async def _begin_anew(self) -> None:
        self._former.append(self._name)
        self._name = f"{self._process}-{secrets.token_hex(2)}"
        for number in list(self._held):
            await self._drop(number)
        self._publisher.forget()

    async def keep_share(self) -> None:
        """Take what should be ours and is free; give back what should be others'."""
        while True:
            soon = False
            try:
                soon = await self._adjust()
            except (LogError, SnapshotError) as error:
                _log.warning("%s; trying again", error)
            await asyncio.sleep(FAST_POLL_INTERVAL_S if soon else POLL_INTERVAL_S)

    async def _adjust(self) -> bool:
        """One look at the table; whether a partition that should be ours isn't yet."""
        table = await self._leases.table()
        spoken_s = table.members.get(self._name)
        if spoken_s is None:  # not heard of yet
            return True
        # our own last word, as the server received it, is our idea of the server's time
        alive = table.alive(spoken_s) | {self._name}
        owners = {number: lease.owner for number, lease in table.leases.items() if lease.owner in alive}
        wanted = assign(self._settings.partitions, alive, owners)
        missing = False
        for number in range(self._settings.partitions):
            held, lease = self._held.get(number), table.leases.get(number, UNOWNED)
            if held is not None and held.lease.epoch < lease.epoch:
                _log.warning("partition %d is with %s now", number, lease.owner)
                await self._drop(number)
            elif held is not None and wanted[number] != self._name:
                await self._give_back(held)
            elif held is None and wanted[number] == self._name:
                missing |= lease.owner in alive and lease.owner != self._name
                if lease.owner not in alive or lease.owner == self._name:
                    await self._take(number, lease)
        return missing

    async def _take(self, number: int, before: Lease) -> None:
        """Take a partition and go on where it stopped."""
        name = self._name
        await self._days.load()  # by which restored devices are recognised
        saved = await self._snapshots.load(number)
        lease = await self._leases.take(number, name, before, max(saved.epoch, before.epoch) + 1)
        if lease is None:
            return  # somebody was faster
        # a former owner may have saved once more before it lost the lease
        saved = await self._snapshots.load(number)
        partition = Partition(
            number,
            self._settings.partitions,
            lease.epoch,
            self._settings.site,
            self._zones,
            self._pseudonyms,
        )
        if saved.state is not None:
            try:
                partition.restore(saved.state)
            except SnapshotError as error:
                _log.warning("%s; counting the partition from the start of the log", error)
        # from here on a former owner's compare-and-set fails
        revision = await self._snapshots.save(number, lease.epoch, partition.save(), saved.revision)
        if self._name != name:
            return
        asked = await self._connection.subscribe(DEVICE_STATE_SUBJECT.format(partition=number), self.answer)
        self._held[number] = _OwnedPartition(partition, lease, asked, revision)
        _log.info("%s counts partition %d (epoch %d) after %d", name, number, lease.epoch, partition.seq)

    async def _give_back(self, held: _OwnedPartition) -> None:
        """Clean hand-over: stop counting, save, free."""
        number = held.partition.number
        await self._drop(number)
        await self._save(held)
        await self._leases.give_back(number, held.lease)
        _log.info("%s gave back partition %d", self._name, number)

    async def _drop(self, number: int) -> None:
        """Hold a partition no longer; the reading loop leaves it when it sees that."""
        held = self._held.pop(number, None)
        if held is not None:
            await held.asked.unsubscribe()

    async def keep_retained(self) -> None:
        """Keep the retained counts while we have partition 0: one worker does, and nobody is elected."""
        settings = self._settings
        while True:
            if 0 in self._held:
                await RetainedCounts(
                    self._connection,
                    settings.mqtt,
                    settings.site,
                    settings.partitions,
                    lambda: 0 in self._held and self._entitled(),
                    self._disclosure,
                ).run()
            await asyncio.sleep(POLL_INTERVAL_S)

    # --- telling -----------------------------------------------------------------------------------
    async def tell_figures(self) -> None:
        """Publish our metrics every second."""
        while True:
            await asyncio.sleep(FLUSH_S)
            lag = sum(held.partition.pending for held in self._held.values())
            report = self._figures.report(self._process, lag, len(self._held))
            if self._connection.is_connected:
                subject = WORKER_REPORT_SUBJECT.format(worker=self._process)
                await self._connection.publish(subject, msgspec.json.encode(report))

    async def answer(self, message: Message) -> None:
        """Reply to a DeviceStateRequest."""
        number = int(message.subject.rpartition(".")[2])
        request = msgspec.json.decode(message.data, type=DeviceStateRequest)
        held = self._held.get(number)
        key = f"{request.kind}.{request.device}".encode()
        found = held.partition.engine.find(key) if held is not None else None
        state = None
        if found is not None:
            lat, lon = _unproject(self._settings.site, found.x_m, found.y_m)
            verdict = VERDICTS[found.verdict] if found.verdict < len(VERDICTS) else None
            state = DeviceState(
                present=found.present,
                zones=found.zones,
                last_t=found.last_t_s,
                lat=lat,
                lon=lon,
                acc=found.acc_m,
                offline=found.offline,
                last_verdict=verdict,
            )
        await message.respond(msgspec.json.encode(state))

    # --- start and stop ------------------------------------------------------------------------------
    async def run(self, stop: asyncio.Event) -> None:
        """All loops of a worker, until `stop` is set; then everything is stored, saved and given back."""
        async with asyncio.TaskGroup() as group:
            loops = [
                group.create_task(self.keep_alive(), name="alive"),
                group.create_task(self.keep_share(), name="share"),
                group.create_task(self.count(), name="count"),
                group.create_task(self.keep_time(), name="tick"),
                group.create_task(self.keep_stored(), name="store"),
                group.create_task(self.keep_retained(), name="retained"),
                group.create_task(self._days.refresh(), name="pseudonym keys"),
                group.create_task(self.tell_figures(), name="metrics"),
            ]
            await stop.wait()
            await cancel_all(loops)
        # what can't be given back now is counted again from the last snapshot by the next owner
        with contextlib.suppress(LogError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                await asyncio.gather(*map(self._give_back, list(self._held.values())))
        with contextlib.suppress(LogError, TimeoutError):
            async with asyncio.timeout(RETIRE_S):
                await self._leases.retire(self._name)


def _unproject(site: Site, x_m: float | None, y_m: float | None) -> tuple[float | None, float | None]:
    """Latitude and longitude in degrees: the inverse of `Site.project`."""
    if x_m is None or y_m is None:
        return None, None
    lat = site.lat0_deg + math.degrees(y_m / EARTH_RADIUS_M)
    return lat, site.lon0_deg + math.degrees(x_m / (EARTH_RADIUS_M * math.cos(math.radians(site.lat0_deg))))


async def run(settings: WorkerSettings, stop: asyncio.Event) -> None:
    """The role `count`: count until `stop` is set.

    Raises:
        LogError: if the log has no bucket for snapshots.
    """
    async with opened_log(settings.log, "headcount count", stop) as connection:
        await Worker(settings, connection).run(stop)
