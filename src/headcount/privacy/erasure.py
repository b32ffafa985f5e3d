"""The loop that erases people from everything, and takes those out of the counts who have paused.

Who is to be erased stands in the registry with the status `erasing`; that entry is the only memory of how far
this is, and goes last. Every step can be done again, so whoever is killed in between begins anew:

    cut       the device's connection is gone, and no adapter speaks for it any more
    forget    a mark in the log: from here on the counts know nothing of it
    counted   its partition's worker has counted past the mark, and what it saved is newer, too
    erase     overwritten: its messages in the log, the marks, older saved states, its events
    history   the role `history` takes its rows out of the stream and the segments
    last      commands, links, last seen, bans; aliases and the registry's entry

What may still name it: the audit log, by pseudonyms of days whose keys are destroyed within a day.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from headcount.access.audit_log import AuditLog
from headcount.devices.commands import CommandStore
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.devices.registry import Registry
from headcount.errors import DeviceError, LogError, NoRespondersError
from headcount.history.row_erasure import Answer, Request
from headcount.messages.counts import Event
from headcount.messages.fixes import Forget
from headcount.messages.records import DEVICE_KEY, Device, Seen
from headcount.messages.topics import (
    EVENT_STREAM,
    EVENT_SUBJECT,
    FIX_STREAM,
    FORGET_SUBJECT,
    HISTORY_ERASE_SUBJECT,
    partition_of,
)
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import append, read
from headcount.messaging.kv import KvBucket
from headcount.messaging.kv_watch import watch
from headcount.messaging.qos1 import STORED
from headcount.messaging.secure_delete import erase
from headcount.messaging.streams import (
    BAN_BUCKET,
    COMMAND_BUCKET,
    DEVICE_BUCKET,
    SEEN_BUCKET,
    SNAPSHOT_BUCKET,
)

_log = logging.getLogger(__name__)

#: Between looks at who is to be erased, and attempts at one who can't be erased yet.
POLL_INTERVAL_S, RETRY_INTERVAL_S = 0.25, 5.0
#: From the change of status until nobody speaks for the device any more: its connection is cut within 2 s.
DISCONNECT_S = 2.0
#: A connection that is said to last longer than this is one of a broker unit that is gone.
MAX_DISCONNECT_S = 30.0
#: Until its worker has counted and saved: a worker that was killed is replaced within this.
COUNTED_TIMEOUT_S = 60.0
HISTORY_TIMEOUT_S = 70.0
ACTOR = "headcount"

SavedSeq = Callable[[int], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """What was there of somebody."""

    messages: int  # in the log
    events: int
    rows: int  # of the history


@dataclass(slots=True)
class _InactiveDevices:
    """Devices that aren't active, as the registry was last heard to say."""

    devices: dict[str, Device] = field(default_factory=dict)

    def all(self, values: Mapping[str, bytes]) -> None:
        self.devices.clear()
        for key, value in values.items():
            self.one(key, value)

    def one(self, key: str, value: bytes | None) -> None:
        id_ = key.rpartition(".")[2]
        try:
            device = None if value is None else msgspec.json.decode(value, type=Device)
        except msgspec.MsgspecError:
            _log.warning("what was written to the registry is no device")
            return
        if device is not None and device.status in {"erasing", "paused"}:
            self.devices[id_] = device
        else:
            self.devices.pop(id_, None)


class Erasure:
    """Erasing over one connection; see `run`."""

    def __init__(self, connection: Connection, secret: str, partitions: int, saved_seq: SavedSeq) -> None:
        """Erase from a deployment with this secret and so many partitions.

        Args:
            connection: to the core, with all rights.
            secret: the deployment's.
            partitions: P.
            saved_seq: up to which sequence of a partition's log the newest saved state goes; 0: none is.
        """
        self._connection = connection
        self._partitions = partitions
        self._saved_seq = saved_seq
        self._days = PseudonymKeys(connection)
        self._devices = KvBucket(connection, DEVICE_BUCKET)
        self._seen = KvBucket(connection, SEEN_BUCKET)
        self._bans = KvBucket(connection, BAN_BUCKET)
        self._commands = CommandStore(KvBucket(connection, COMMAND_BUCKET))
        self._registry = Registry(self._devices, secret)
        self._audit = AuditLog(connection, secret)
        self._paused: dict[str, float] = {}  # who has been marked for which change

    async def keep(self, stop: asyncio.Event) -> None:
        """Look after those who are erased or paused until `stop` is set."""
        marked = _InactiveDevices()
        following = asyncio.create_task(
            watch(
                self._connection,
                DEVICE_BUCKET,
                DEVICE_KEY.format(id="*"),
                on_all=marked.all,
                on_change=marked.one,
                until=stop,
            ),
            name="erasing: registry",
        )
        later: dict[str, float] = {}
        try:
            while not stop.is_set() and not following.done():
                for device in list(marked.devices.values()):
                    if later.get(device.id, 0.0) > time.monotonic() or stop.is_set():
                        continue
                    if await self._tend(device):
                        later.pop(device.id, None)
                        if device.status == "erasing":
                            marked.devices.pop(device.id, None)
                    else:
                        later[device.id] = time.monotonic() + RETRY_INTERVAL_S
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), POLL_INTERVAL_S)
        finally:
            following.cancel()
            await asyncio.wait([following])
        if not stop.is_set():
            following.result()

    async def _tend(self, device: Device) -> bool:
        """Do for a device what is due; whether that has worked."""
        try:
            if device.status == "erasing":
                await self.erase(device)
            elif device.resume is not None and device.resume <= time.time():
                await self._resume(device)
            elif self._paused.get(device.id) != device.changed:
                await self._mark(device)
                self._paused[device.id] = device.changed
        except LogError as error:
            _log.warning("a device that is %s: %s; trying again", device.status, error)
            return False
        return True

    async def _resume(self, device: Device) -> None:
        with contextlib.suppress(DeviceError):  # it is being changed by somebody else, or gone
            await self._registry.enable(device.id)
            self._paused.pop(device.id, None)

    # --- erasing one ---------------------------------------------------------------------------------
    async def erase(self, device: Device) -> ErasureResult:
        """Erase a device whose status is `erasing` from everything.

        Raises:
            LogError: something doesn't answer, or isn't as far yet. Asking again goes on.
        """
        await self._until_cut(device)
        names = list((await self._days.pseudonyms_of(device.kind, device.id)).values())
        messages, latest, mark = 0, 1, 0
        while latest > mark:  # again where something has come after the mark all the same
            mark = await self._mark(device)
            await self._until_counted(device, mark)
            erased, latest = await self._erase_messages(device)
            messages += erased
        await self._erase_marks(device, names)
        events = await self._erase_events(device, names)
        rows = await self._erase_history(names)
        await self._erase_rest(device)
        found = ErasureResult(messages, events, rows)
        await self._audit.record("device.erased", ACTOR, "", {"site": device.site, "kind": device.kind})
        await self._registry.forget(device.id)
        _log.info("a device is erased: %d messages, %d events, %d rows", messages, events, rows)
        return found

    async def _until_cut(self, device: Device) -> None:
        while True:
            since_s = time.time() - device.changed
            entry = await self._seen.get(device.id)
            connected = entry is not None and msgspec.json.decode(entry.value, type=Seen).connected
            if since_s >= MAX_DISCONNECT_S or (since_s >= DISCONNECT_S and not connected):
                return
            await asyncio.sleep(POLL_INTERVAL_S)

    def _partition(self, device: Device) -> int:
        return partition_of(device.site, device.id, self._partitions)

    async def _mark(self, device: Device) -> int:
        """Put into the log that a device is to be forgotten; the mark's sequence."""
        names = await self._days.pseudonyms_of(device.kind, device.id)
        mark = Forget(device.kind, {str(day): name for day, name in names.items()})
        subject = FORGET_SUBJECT.format(partition=self._partition(device))
        return await append(self._connection, subject, msgspec.json.encode(mark))

    async def _until_counted(self, device: Device, seq: int) -> None:
        """Wait until what the worker has saved is newer than the mark: all that came before is stored then."""
        partition = self._partition(device)
        try:
            async with asyncio.timeout(COUNTED_TIMEOUT_S):
                while await self._saved_seq(partition) < seq:  # noqa: ASYNC110 - it is elsewhere
                    await asyncio.sleep(POLL_INTERVAL_S)
        except TimeoutError as error:
            raise LogError(f"partition {partition} isn't counted: does a worker run?") from error

    async def _erase_messages(self, device: Device) -> tuple[int, int]:
        """How many there were, and the sequence of the last one."""
        partition = self._partition(device)
        stream = FIX_STREAM.format(partition=partition)
        own = f"fix.{partition}.{device.site}.{device.kind}.{device.id}"
        erased = latest = 0
        for subject in (own, f"{own}.status"):
            for stored in (subject, STORED + subject):
                found = [message.sequence async for message in read(self._connection, stream, [stored])]
                erased += await erase(self._connection, stream, found)
                latest = max([latest, *found])
        return erased, latest

    async def _erase_marks(self, device: Device, names: list[str]) -> None:
        """The marks themselves, and states that were saved before."""
        partition = self._partition(device)
        stream, subject = FIX_STREAM.format(partition=partition), FORGET_SUBJECT.format(partition=partition)
        wanted = [name.encode() for name in names]
        theirs = [
            mark.sequence
            async for mark in read(self._connection, stream, [subject])
            if any(name in mark.data for name in wanted)
        ]
        await erase(self._connection, stream, theirs)
        states, subject = f"KV_{SNAPSHOT_BUCKET}", f"$KV.{SNAPSHOT_BUCKET}.p{partition}"
        saved = [state.sequence async for state in read(self._connection, states, [subject])]
        await erase(self._connection, states, saved[:-1])

    async def _erase_events(self, device: Device, names: list[str]) -> int:
        subject = EVENT_SUBJECT.format(site=device.site, zone="*")
        wanted = [name.encode() for name in names]
        theirs = [
            event.sequence
            async for event in read(self._connection, EVENT_STREAM, [subject])
            if any(name in event.data for name in wanted) and _pseudonym_of_event(event.data) in names
        ]
        return await erase(self._connection, EVENT_STREAM, theirs)

    async def _erase_history(self, names: list[str]) -> int:
        body = msgspec.json.encode(Request(names))
        try:
            reply = await self._connection.request(HISTORY_ERASE_SUBJECT, body, timeout_s=HISTORY_TIMEOUT_S)
        except NoRespondersError as error:
            raise LogError("the history isn't written now: does the role `history` run?") from error
        answer = msgspec.json.decode(reply, type=Answer)
        if answer.error:
            raise LogError(f"history: {answer.error}")
        return answer.rows

    async def _erase_rest(self, device: Device) -> None:
        await self._commands.erase_all(device.id)
        await self._registry.revoke_links(device.id)
        for bucket, key in ((self._seen, device.id), (self._bans, f"device.{device.id}")):
            if await bucket.newest(key):  # both in memory
                await bucket.delete(key, ttl_s=60)


def _pseudonym_of_event(data: bytes) -> str:
    try:
        return msgspec.json.decode(data, type=Event).device
    except msgspec.DecodeError:
        return ""


async def run(
    connection: Connection, secret: str, partitions: int, saved_seq: SavedSeq, stop: asyncio.Event
) -> None:
    """Erase who is to be erased and tell the counts who has paused, until `stop` is set; see `Erasure`."""
    await Erasure(connection, secret, partitions, saved_seq).keep(stop)
