"""Ownership of partitions: heartbeats, acquire, release, and rejoin after missed heartbeats."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import msgspec

from headcount.errors import LogError, SnapshotError
from headcount.messages.device_state import DeviceStateRequest
from headcount.messages.topics import DEVICE_STATE_SUBJECT
from headcount.messaging.connection import Connection, Message, Subscription
from headcount.worker.assignment import assign
from headcount.worker.leases import HEARTBEAT_INTERVAL_S, LEASE_TTL_S, UNOWNED, Lease, Leases
from headcount.worker.partition import Partition
from headcount.worker.snapshots import Snapshots

_log = logging.getLogger(__name__)

#: Between polls of members and leases; shorter while a partition is to be acquired that another worker still owns.
POLL_INTERVAL_S = 0.5
FAST_POLL_INTERVAL_S = 0.1
#: The time from one saved state to the next with fixes and without, and the number of messages that shortens it.
SNAPSHOT_INTERVAL_S, IDLE_SNAPSHOT_INTERVAL_S, SNAPSHOT_MESSAGES = 20.0, 300.0, 20_000
#: How long a worker that stops may take to release its partitions.
STOP_S = 0.8
REMOVE_S = 0.2


@dataclass(slots=True)
class OwnedPartition:
    """A partition that this worker counts."""

    partition: Partition
    lease: Lease
    requests: Subscription  # for the state of its devices
    revision: int  # of its newest snapshot
    saved_s: float  # monotonic
    saved_seq: int
    saved_sites: frozenset[str] = frozenset()
    published_s: float = -math.inf  # monotonic
    received_s: float = math.inf  # monotonic: when the reader last received a message of it

    @property
    def is_save_due(self) -> bool:
        """Whether its state should be saved: that costs more than counting it does."""
        partition, past_s = self.partition, time.monotonic() - self.saved_s
        if partition.done_seq == self.saved_seq:
            return False
        # no older state of an erased device or a removed site may stay for long
        if partition.marker_seq > self.saved_seq or partition.sites != self.saved_sites:
            return True
        has_fixes = partition.fix_seq > self.saved_seq
        interval_s = SNAPSHOT_INTERVAL_S if has_fixes else IDLE_SNAPSHOT_INTERVAL_S
        return past_s > interval_s or partition.done_seq - self.saved_seq > SNAPSHOT_MESSAGES


class Ownership:
    """The partitions that a worker owns.

    The leases alone decide what the worker may do. A worker without a heartbeat for LEASE_TTL_S, since
    it was paused or cut off, drops everything that isn't stored and rejoins under another name: other workers
    own its partitions by then, and its counts, events and rows either carried an older epoch or were the same
    as theirs.
    """

    def __init__(
        self,
        connection: Connection,
        snapshots: Snapshots,
        partitions: int,
        *,
        create: Callable[[int, int], Awaitable[Partition]],
        save: Callable[[OwnedPartition], Awaitable[None]],
        on_rejoin: Callable[[], None],
    ) -> None:
        """Own nothing yet.

        Args:
            connection: to the core.
            snapshots: the partitions' saved states.
            partitions: P.
            create: makes a partition of a number and an epoch, without a state.
            save: saves the state of a partition that is about to be released.
            on_rejoin: called when all partitions are lost; what isn't stored is to be discarded.
        """
        self.owned: dict[int, OwnedPartition] = {}
        self.process = f"w{secrets.token_hex(4)}"
        self.name = self.process
        self._connection = connection
        self._snapshots = snapshots
        self._leases = Leases(connection)
        self._partitions = partitions
        self._create = create
        self._save = save
        self._on_rejoin = on_rejoin
        self._former_names: list[str] = []  # for which no other worker should wait
        self._heartbeat_s = -math.inf  # monotonic: just before the last heartbeat was sent

    def owns(self, owned: OwnedPartition) -> bool:
        """Whether this is still the partition's current owner's entry."""
        return self.owned.get(owned.partition.number) is owned

    def is_entitled(self) -> bool:
        """Whether the last heartbeat is recent enough for the leases to hold."""
        return time.monotonic() - self._heartbeat_s <= LEASE_TTL_S

    # --- heartbeats ------------------------------------------------------------------------------------
    async def run_heartbeats(self) -> None:
        """Send a heartbeat every second; rejoin when too many were missed."""
        while True:
            await self.heartbeat()
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    async def heartbeat(self) -> None:
        """Send a heartbeat, under a new name if the lease has expired."""
        sent_s = time.monotonic()
        if self.owned and not self.is_entitled():
            missed_s = sent_s - self._heartbeat_s
            _log.warning("%s: no heartbeat for %.1f s, the lease expired; rejoining", self.name, missed_s)
            await self.rejoin()
        try:
            await self._leases.heartbeat(self.name)
            self._heartbeat_s = sent_s
            # heartbeats under a former name may have waited for the connection and arrived just now
            while self._former_names:
                await self._leases.remove_member(self._former_names[-1])
                self._former_names.pop()
        except LogError as error:
            _log.warning("%s; trying again", error)

    async def rejoin(self) -> None:
        """Lose all partitions and continue under a new name."""
        self._former_names.append(self.name)
        self.name = f"{self.process}-{secrets.token_hex(2)}"
        for number in list(self.owned):
            await self.drop(number)
        self._on_rejoin()

    # --- acquire and release -----------------------------------------------------------------------------
    async def run_assignment(self) -> None:
        """Acquire and release partitions until every worker owns its share."""
        while True:
            waiting = False
            try:
                waiting = await self._apply_assignment()
            except (LogError, SnapshotError) as error:
                _log.warning("%s; trying again", error)
            await asyncio.sleep(FAST_POLL_INTERVAL_S if waiting else POLL_INTERVAL_S)

    async def _apply_assignment(self) -> bool:
        """Poll the table once; True if another worker still owns a partition that this one is to acquire."""
        table = await self._leases.table()
        now_s = table.members.get(self.name)  # its own heartbeat is the worker's notion of the server's time
        if now_s is None:
            return True
        alive = table.alive(now_s) | {self.name}
        owners = {number: lease.owner for number, lease in table.leases.items() if lease.owner in alive}
        wanted = assign(self._partitions, alive, owners)
        waiting = False
        for number in range(self._partitions):
            owned, lease = self.owned.get(number), table.leases.get(number, UNOWNED)
            if owned is not None and owned.lease.epoch < lease.epoch:
                _log.warning("partition %d is owned by %s now", number, lease.owner)
                await self.drop(number)
            elif owned is not None and wanted[number] != self.name:
                await self._release(owned)
            elif owned is None and wanted[number] == self.name:
                waiting |= lease.owner in alive and lease.owner != self.name
                if lease.owner not in alive or lease.owner == self.name:
                    await self._acquire(number, lease)
        return waiting

    async def _acquire(self, number: int, before: Lease) -> None:
        """Acquire a partition and continue from its snapshot."""
        name = self.name
        saved = await self._snapshots.load(number)
        lease = await self._leases.acquire(number, name, before, max(saved.epoch, before.epoch) + 1)
        if lease is None:
            return  # another worker was faster
        # the former owner may have saved once more before it lost the lease
        saved = await self._snapshots.load(number)
        partition = await self._create(number, lease.epoch)
        if saved.state is not None:
            try:
                partition.restore(saved.state)
            except SnapshotError as error:
                _log.warning("%s; counting the partition from the start of the log", error)
        # from here on the former owner's compare-and-set fails
        revision = await self._snapshots.save(number, lease.epoch, partition.save(), saved.revision)
        if self.name != name:
            partition.close()
            return
        requests = await self._connection.subscribe(
            DEVICE_STATE_SUBJECT.format(partition=number), partial(_reply_state, partition)
        )
        # the partitions are saved one after the other
        early_s = number / self._partitions * SNAPSHOT_INTERVAL_S
        self.owned[number] = OwnedPartition(
            partition, lease, requests, revision, time.monotonic() - early_s, partition.done_seq
        )
        _log.info("%s counts partition %d (epoch %d) after %d", name, number, lease.epoch, partition.seq)

    async def _release(self, owned: OwnedPartition) -> None:
        """Hand a partition over cleanly: stop counting, save, release."""
        number = owned.partition.number
        await self._stop_counting(number)
        await self._save(owned)
        owned.partition.close()
        await self._leases.release(number, owned.lease)
        _log.info("%s released partition %d", self.name, number)

    async def drop(self, number: int) -> None:
        """Stop counting a partition, and free its state."""
        if number in self.owned:
            self.owned[number].partition.close()
        await self._stop_counting(number)

    async def _stop_counting(self, number: int) -> None:
        """Stop counting a partition; the reading loop leaves it when it sees that."""
        owned = self.owned.pop(number, None)
        if owned is not None:
            await owned.requests.unsubscribe()

    async def close(self) -> None:
        """Release all partitions and leave; what can't be released, its next owner counts from the last snapshot."""
        with contextlib.suppress(LogError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                await asyncio.gather(*map(self._release, list(self.owned.values())))
        with contextlib.suppress(LogError, TimeoutError):
            async with asyncio.timeout(REMOVE_S):
                await self._leases.remove_member(self.name)


async def _reply_state(partition: Partition, message: Message) -> None:
    request = msgspec.json.decode(message.data, type=DeviceStateRequest)
    await message.respond(msgspec.json.encode(partition.device_state(request)))
