"""The counting worker: its loops, and how it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec
import nats
import numpy as np
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from headcount.counting.engine import Engine
from headcount.counting.fixes import F8, I8
from headcount.counting.site import EARTH_RADIUS_M, Site
from headcount.counting.zones import Zones
from headcount.devices.pseudonyms import Pseudonyms
from headcount.errors import LogError, SnapshotError
from headcount.fixlog.reader import Endpoint, LogReader, open_reader
from headcount.wire import KINDS, TICK_S, TICK_SUBJECT, VERDICTS
from headcount.worker.partition import BATCH_ROWS, Partition
from headcount.worker.publish import MqttAddress, Publisher, RetainedCounts
from headcount.worker.snapshots import Snapshots, open_snapshots

_log = logging.getLogger(__name__)

FLUSH_S = 1.0
SNAPSHOT_S = 5.0
RETRY_S = 0.5
#: With more than this still to come a partition is catching up: counts are told once in TELL_S.
BEHIND = 2_000
TELL_S = 0.5
#: Rows for the history that wait in one partition before they are stored at once.
HISTORY_ROWS = 10_000
#: Upper bounds in seconds of the histogram of received → counted.
LATENCY_LE = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a counting worker needs to know."""

    site: Site
    log: Endpoint
    mqtt: MqttAddress
    partitions: int
    secret: bytes


@dataclass(slots=True)
class _Numbers:
    """What the worker tells about itself."""

    verdicts: I8 = field(default_factory=lambda: np.zeros((3, len(VERDICTS)), dtype=np.int64))
    latency: I8 = field(default_factory=lambda: np.zeros(len(LATENCY_LE) + 1, dtype=np.int64))
    latency_sum_s: float = 0.0
    told_fixes: int = 0

    def counted(self, verdicts: I8, received_s: list[F8], now_s: float) -> None:
        self.verdicts += verdicts
        for part in received_s:
            age_s = now_s - part
            self.latency += np.bincount(np.searchsorted(LATENCY_LE, age_s), minlength=len(LATENCY_LE) + 1)
            self.latency_sum_s += float(age_s.sum())


class Worker:
    """Counts partitions of the log until it is stopped."""

    def __init__(
        self, settings: WorkerSettings, nc: Client, js: JetStreamContext, snapshots: Snapshots
    ) -> None:
        """Count over an open connection; see `run`."""
        self._settings = settings
        self._nc = nc
        self._snapshots = snapshots
        self._publisher = Publisher(nc, js)
        self._zones = Zones(settings.site)
        self._pseudonyms = Pseudonyms(settings.secret)
        self._partitions: dict[int, Partition] = {}
        self._saved_seq: dict[int, int] = {}
        self._told_s: dict[int, float] = {}
        self._numbers = _Numbers()
        self._name = f"w{secrets.token_hex(4)}"
        self._storing = asyncio.Lock()

    async def take_all(self) -> None:
        """Take every partition, each where it stopped."""
        for number in range(self._settings.partitions):
            await self._take(number)

    async def _take(self, number: int) -> None:
        state: bytes | None = None
        epoch = 0
        try:
            epoch, state = await self._snapshots.load(number)
        except SnapshotError as error:
            _log.warning("%s; counting the partition from the start of the log", error)
        engine = Engine(self._settings.site, self._zones)
        partition = Partition(number, self._settings.partitions, epoch + 1, engine, self._pseudonyms)
        if state is not None:
            try:
                partition.restore(state)
            except SnapshotError as error:
                _log.warning("%s; counting the partition from the start of the log", error)
        self._partitions[number] = partition
        self._saved_seq[number] = -1
        self._told_s[number] = -math.inf

    async def count(self) -> None:
        """Read and count; a lost connection is made again, from where we are."""
        while True:
            try:
                async with open_reader(self._settings.log, self._nc) as reader:
                    for partition in self._partitions.values():
                        await reader.follow(partition.number, partition.seq)
                    await self._read(reader)
            except LogError as error:
                _log.warning("%s; trying again", error)
                await asyncio.sleep(RETRY_S)

    async def _read(self, reader: LogReader) -> None:
        while True:
            for delivery in await reader.read():
                partition = self._partitions[delivery.partition]
                partition.take(delivery)
                await self._work(partition)
            # data that is there already is read without a pause: let the other loops have a turn
            await asyncio.sleep(0)

    async def _work(self, partition: Partition) -> None:
        """Count what is due; while catching up, in large steps that are told now and then."""
        behind = partition.pending > BEHIND
        tell = not behind or time.monotonic() - self._told_s[partition.number] > TELL_S
        if partition.waiting_rows < BATCH_ROWS and not (partition.due and tell):
            return
        output = partition.work(tell=tell)
        self._publisher.remember(output.events, None)
        if partition.kept_rows >= HISTORY_ROWS:
            await self._store()
        if output.counts:
            self._told_s[partition.number] = time.monotonic()
            await self._publisher.counts(output.counts)
        self._numbers.counted(output.verdicts, output.received_s, time.time())

    async def keep_time(self) -> None:
        """Write the log's clock into each partition that we count."""
        while True:
            await asyncio.sleep(TICK_S - time.time() % TICK_S + 0.001)
            if self._nc.is_connected:
                for number in self._partitions:
                    await self._nc.publish(TICK_SUBJECT.format(partition=number))

    async def keep_stored(self) -> None:
        """Store events and history rows every second, snapshots every few."""
        saved_s = time.monotonic()
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self._store()
                if time.monotonic() - saved_s > SNAPSHOT_S:
                    await self.save()
                    saved_s = time.monotonic()
            except LogError as error:
                _log.warning("%s; trying again", error)

    async def _store(self) -> None:
        async with self._storing:
            for partition in self._partitions.values():
                self._publisher.remember([], partition.history())
            await self._publisher.flush()

    async def save(self) -> None:
        """Save every partition's state, after what it led to is stored."""
        for partition in self._partitions.values():
            if partition.done_seq == self._saved_seq[partition.number]:
                continue
            seq, state = partition.done_seq, partition.save()
            await self._store()  # more than the state led to may be stored, but not less
            await self._snapshots.save(partition.number, partition.epoch, state)
            self._saved_seq[partition.number] = seq

    async def tell_numbers(self) -> None:
        """Publish our metrics every second."""
        before, then = 0, time.monotonic()
        while True:
            await asyncio.sleep(FLUSH_S)
            numbers, now = self._numbers, time.monotonic()
            fixes = int(numbers.verdicts.sum())
            body = {
                "worker": self._name,
                "verdicts": {
                    kind: dict(zip(VERDICTS, numbers.verdicts[row].tolist(), strict=True))
                    for row, kind in enumerate((*KINDS, "unknown"))
                },
                "lag": sum(partition.pending for partition in self._partitions.values()),
                "latency": {
                    "le": list(LATENCY_LE),
                    "counts": np.cumsum(numbers.latency)[:-1].tolist(),
                    "sum": numbers.latency_sum_s,
                    "count": int(numbers.latency.sum()),
                },
                "fixes_per_s": (fixes - before) / (now - then),
            }
            before, then = fixes, now
            if self._nc.is_connected:
                await self._nc.publish(f"metrics.count.{self._name}", msgspec.json.encode(body))

    async def answer(self, message: Msg) -> None:
        """Answer `ask.<p>` {"kind", "device"}: what is known of a device, `{}` if nothing is."""
        number = int(message.subject.rpartition(".")[2])
        question = msgspec.json.decode(message.data, type=dict[str, str])
        key = f"{question.get('kind')}.{question.get('device')}".encode()
        partition = self._partitions.get(number)
        state = partition.engine.find(key) if partition is not None else None
        body: dict[str, object] = {}
        if state is not None:
            lat, lon = _unproject(self._settings.site, state.x_m, state.y_m)
            body = {
                "present": state.present,
                "zones": state.zones,
                "last_t": state.last_t_s,
                "lat": lat,
                "lon": lon,
                "acc": state.acc_m,
                "offline": state.offline,
                "last_verdict": VERDICTS[state.verdict] if state.verdict < len(VERDICTS) else None,
            }
        await message.respond(msgspec.json.encode(body))

    async def run(self, stop: asyncio.Event) -> None:
        """All loops of a worker, until `stop` is set; then everything is stored and saved."""
        settings = self._settings
        await self.take_all()
        retained = RetainedCounts(self._nc, settings.mqtt, settings.site, settings.partitions)
        for number in self._partitions:
            await self._nc.subscribe(f"ask.{number}", cb=self.answer)
        async with asyncio.TaskGroup() as group:
            loops = [
                group.create_task(self.count(), name="count"),
                group.create_task(self.keep_time(), name="tick"),
                group.create_task(self.keep_stored(), name="store"),
                group.create_task(self.tell_numbers(), name="metrics"),
                group.create_task(retained.run(), name="retained"),
            ]
            await stop.wait()
            for loop in loops:
                loop.cancel()
        with contextlib.suppress(LogError):  # the next start counts the end of the log again
            await self.save()


def _unproject(site: Site, x_m: float | None, y_m: float | None) -> tuple[float | None, float | None]:
    """Latitude and longitude in degrees: the inverse of `Site.project`."""
    if x_m is None or y_m is None:
        return None, None
    lat = site.lat0_deg + math.degrees(y_m / EARTH_RADIUS_M)
    return lat, site.lon0_deg + math.degrees(x_m / (EARTH_RADIUS_M * math.cos(math.radians(site.lat0_deg))))


@contextlib.asynccontextmanager
async def connected(log: Endpoint, name: str) -> AsyncIterator[Client]:
    """A connection to the NATS server that is made again whenever it is lost.

    Raises:
        LogError: if the server isn't there at first.
    """
    try:
        nc = await nats.connect(
            f"nats://{log.host}:{log.port}",
            user=log.user,
            password=log.password,
            name=name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RETRY_S,
            connect_timeout=2,
            allow_reconnect=True,
            error_cb=_complain,
        )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise LogError(f"{log}: can't connect: {error!r}") from error
    try:
        yield nc
    finally:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await nc.close()


async def _complain(error: Exception) -> None:
    _log.info("connection to the log: %r", error)


async def run(settings: WorkerSettings, stop: asyncio.Event) -> None:
    """The role `count`: count until `stop` is set.

    Raises:
        LogError: if the log isn't there at the start.
    """
    async with connected(settings.log, "headcount count") as nc:
        js = nc.jetstream(timeout=5)
        worker = Worker(settings, nc, js, await open_snapshots(js))
        await worker.run(stop)
