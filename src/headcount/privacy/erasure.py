"""Erasure of devices from all stores and of removed sites from the history; paused devices leave the counts.

A device to erase has the status `erasing` in the registry; that entry is the only record of the erasure and
is removed last. All steps are idempotent, so an interrupted erasure starts again:

    disconnected   the device's connection is closed, and no adapter publishes for it any more
    marker         a marker in the log removes the device from the counts
    counted        the partition's worker has counted past the marker, and its snapshot is newer
    overwritten    the device's messages in the log, the markers, older snapshots, its events
    history        the role `history` removes the device's rows from the stream and the segments
    the rest       commands, links, last seen, bans; aliases and the registry's entry

The audit log may still contain its pseudonyms, of days whose keys are destroyed within a day.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from headcount.access.audit_log import AuditValue
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.errors import DeviceError, LogError, NoRespondersError
from headcount.messages.counts import Event
from headcount.messages.fixes import ForgetMarker
from headcount.messages.history import EraseReply, EraseRequest
from headcount.messages.records import DEVICE_KEY, Device, LastSeen
from headcount.messages.topics import (
    EVENT_STREAM,
    EVENT_SUBJECT,
    FIX_STREAM,
    FORGET_SUBJECT,
    HISTORY_ERASE_SUBJECT,
    partition_of,
)
from headcount.messaging.connection import Connection
from headcount.messaging.consumers import read
from headcount.messaging.device_messages import partitions_of_log
from headcount.messaging.jetstream import append, get_message, stream_info
from headcount.messaging.kv import KvBucket
from headcount.messaging.kv_watch import watch
from headcount.messaging.qos1 import STORED
from headcount.messaging.secure_delete import erase
from headcount.messaging.streams import BAN_BUCKET, DEVICE_BUCKET, REFUSED_BUCKET, SEEN_BUCKET
from headcount.runtime.tasks import cancel_all, wait_any
from headcount.services.container import Services

_log = logging.getLogger(__name__)

#: Intervals between two polls, and between two attempts to erase a device.
POLL_INTERVAL_S, RETRY_INTERVAL_S = 0.25, 5.0
#: Time from the change of status until the device cannot publish any more: its connection is closed within 2 s.
DISCONNECT_S = 2.0
#: A connection reported for longer than this belongs to a broker unit that no longer exists.
MAX_DISCONNECT_S = 30.0
#: Time for the worker to count and save; a killed worker is replaced within this.
COUNTED_TIMEOUT_S = 60.0
HISTORY_TIMEOUT_S = 70.0
ACTOR = "headcount"


class SavedStates(Protocol):
    """The saved states of the partitions."""

    async def saved_seq(self, partition: int) -> int:
        """The sequence of the log up to which a partition's newest state goes; 0: there is none."""

    async def erase_replaced(self, partition: int) -> None:
        """Overwrite everything that was saved before a partition's newest state."""


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """The number of erased items of a device."""

    messages: int  # in the log
    events: int
    rows: int  # of the history
    held: int = 0  # rows of the history that a legal hold keeps


@dataclass(slots=True)
class _InactiveDevices:
    """Devices that are erasing or paused, from a KV watch of the registry."""

    devices: dict[str, Device] = field(default_factory=dict)

    def replace(self, values: Mapping[str, bytes]) -> None:
        self.devices.clear()
        for key, value in values.items():
            self.update(key, value)

    def update(self, key: str, value: bytes | None) -> None:
        id_ = key.rpartition(".")[2]
        try:
            device = None if value is None else msgspec.json.decode(value, type=Device)
        except msgspec.MsgspecError:
            _log.warning("ignoring an invalid entry in the registry")
            return
        if device is not None and device.status in {"erasing", "paused"}:
            self.devices[id_] = device
        else:
            self.devices.pop(id_, None)


class Erasure:
    """Erases and pauses devices over one connection."""

    def __init__(self, services: Services, partitions: int, states: SavedStates) -> None:
        """Erase devices whose messages are counted into `partitions` states."""
        self._services = services
        self._connection = services.client
        self._partitions = partitions
        self._states = states
        self._keys = PseudonymKeys(services.client)
        self._seen = KvBucket(services.client, SEEN_BUCKET)
        self._refused = KvBucket(services.client, REFUSED_BUCKET)
        self._bans = KvBucket(services.client, BAN_BUCKET)
        self._paused: dict[str, float] = {}  # by id: the change for which a marker was published

    async def run(self, stop: asyncio.Event) -> None:
        """Erase and pause devices until `stop` is set."""
        inactive = _InactiveDevices()
        watching = asyncio.create_task(
            watch(
                self._connection,
                DEVICE_BUCKET,
                DEVICE_KEY.format(id="*"),
                on_all=inactive.replace,
                on_change=inactive.update,
            ),
            name="erasure: registry",
        )
        retry_at_s: dict[str, float] = {}
        try:
            while not stop.is_set() and not watching.done():
                for device in list(inactive.devices.values()):
                    if retry_at_s.get(device.id, 0.0) > time.monotonic() or stop.is_set():
                        continue
                    if await self._process(device):
                        retry_at_s.pop(device.id, None)
                        if device.status == "erasing":
                            inactive.devices.pop(device.id, None)
                    else:
                        retry_at_s[device.id] = time.monotonic() + RETRY_INTERVAL_S
                await wait_any(stop, timeout_s=POLL_INTERVAL_S)
        finally:
            await cancel_all({watching})
        if not stop.is_set():
            watching.result()

    async def _process(self, device: Device) -> bool:
        """Erase, pause or resume a device as due; returns whether that succeeded."""
        try:
            if device.status == "erasing":
                await self.erase(device)
            elif device.resume is not None and device.resume <= time.time():
                await self._resume(device)
            elif self._paused.get(device.id) != device.changed:
                await self._publish_marker(device)
                self._paused[device.id] = device.changed
        except LogError as error:
            _log.warning("cannot process a device that is %s: %s; trying again", device.status, error)
            return False
        return True

    async def _resume(self, device: Device) -> None:
        with contextlib.suppress(DeviceError):  # it is being changed, or was removed
            await self._services.registry.enable(device.id)
            self._paused.pop(device.id, None)

    # --- one erasure ---------------------------------------------------------------------------------
    async def erase(self, device: Device) -> ErasureResult:
        """Erase a device with the status `erasing` from all stores.

        Raises:
            LogError: a step failed or timed out; call again to continue.
        """
        await self._until_disconnected(device)
        names = list((await self._keys.pseudonyms_of(device.site, device.kind, device.id)).values())
        messages, latest, marker = 0, 1, 0
        while latest > marker:  # again if a message arrived after the marker
            marker = await self._publish_marker(device)
            await _until_counted(self._states, self._partition(device), marker)
            erased, latest = await self._erase_messages(device)
            messages += erased
        await self._erase_markers(device, names)
        events = await self._erase_events(device, names)
        history = await _erase_rows(self._connection, EraseRequest(names))
        await self._erase_rest(device)
        found = ErasureResult(messages, events, history.rows, history.held)
        detail: dict[str, AuditValue] = {"site": device.site, "kind": device.kind}
        if found.held:
            detail["held"] = found.held
            _log.warning("%d rows of an erased device stay under a legal hold", found.held)
        await self._services.audit_log.record("device.erased", ACTOR, detail=detail)
        await self._services.registry.forget(device.id)
        _log.info("erased a device: %d messages, %d events, %d rows", messages, events, found.rows)
        return found

    async def _until_disconnected(self, device: Device) -> None:
        while True:
            since_s = time.time() - device.changed
            entry = await self._seen.get(device.id)
            connected = entry is not None and msgspec.json.decode(entry.value, type=LastSeen).connected
            if since_s >= MAX_DISCONNECT_S or (since_s >= DISCONNECT_S and not connected):
                return
            await asyncio.sleep(POLL_INTERVAL_S)

    def _partition(self, device: Device) -> int:
        return partition_of(device.site, device.id, self._partitions)

    async def _publish_marker(self, device: Device) -> int:
        """Publish the marker that removes a device from the counts; returns its sequence."""
        names = await self._keys.pseudonyms_of(device.site, device.kind, device.id)
        marker = ForgetMarker(device.kind, {str(day): name for day, name in names.items()})
        subject = FORGET_SUBJECT.format(partition=self._partition(device))
        return await append(self._connection, subject, msgspec.json.encode(marker))

    async def _erase_messages(self, device: Device) -> tuple[int, int]:
        """Overwrite the device's messages; returns their number and the sequence of the last one."""
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

    async def _erase_markers(self, device: Device, names: list[str]) -> None:
        """Overwrite the markers, and older snapshots."""
        partition = self._partition(device)
        stream, subject = FIX_STREAM.format(partition=partition), FORGET_SUBJECT.format(partition=partition)
        wanted = [name.encode() for name in names]
        theirs = [
            marker.sequence
            async for marker in read(self._connection, stream, [subject])
            if any(name in marker.data for name in wanted)
        ]
        await erase(self._connection, stream, theirs)
        await self._states.erase_replaced(partition)

    async def _erase_events(self, device: Device, names: list[str]) -> int:
        subject = EVENT_SUBJECT.format(site=device.site, zone="*")
        wanted = [name.encode() for name in names]
        theirs = [
            event.sequence
            async for event in read(self._connection, EVENT_STREAM, [subject])
            if any(name in event.data for name in wanted) and _pseudonym_of_event(event.data) in names
        ]
        return await erase(self._connection, EVENT_STREAM, theirs)

    async def _erase_rest(self, device: Device) -> None:
        await self._services.command_store.erase_all(device.id)
        await self._services.registry.revoke_links(device.id)
        in_memory = (self._seen, device.id), (self._refused, device.id), (self._bans, f"device.{device.id}")
        for bucket, key in in_memory:
            if await bucket.newest(key):
                await bucket.delete(key, ttl_s=60)


async def erase_site(connection: Connection, site: str, removed_s: float, states: SavedStates) -> EraseReply:
    """Erase all rows of a removed site from the history when its last ones are stored.

    Args:
        connection: to the core.
        site: its id; it was not added again.
        removed_s: when its removal takes effect, Unix seconds.
        states: the saved states of the partitions.

    Raises:
        LogError: a step failed or timed out; call again to continue.
    """
    for partition in range(await partitions_of_log(connection)):
        await _until_stored_after(connection, FIX_STREAM.format(partition=partition), removed_s)
        # a marker without pseudonyms erases no device, and has the worker save the partition's state soon
        marker = msgspec.json.encode(ForgetMarker("person", {}))
        seq = await append(connection, FORGET_SUBJECT.format(partition=partition), marker)
        await _until_counted(states, partition, seq)
    return await _erase_rows(connection, EraseRequest(site=site))


async def _until_stored_after(connection: Connection, stream: str, at_s: float) -> None:
    """Wait until a message was stored after `at_s`; idle partitions get ticks."""
    try:
        async with asyncio.timeout(COUNTED_TIMEOUT_S):
            while True:
                seq = (await stream_info(connection, stream)).state.last_seq
                message = await get_message(connection, stream, {"seq": seq}) if seq else None
                if message is not None and message.stored_s > at_s:
                    return
                await asyncio.sleep(POLL_INTERVAL_S)
    except TimeoutError as error:
        raise LogError(f"the stream {stream} has no new message; check that a worker runs") from error


async def _until_counted(states: SavedStates, partition: int, seq: int) -> None:
    """Wait until a partition's saved state is newer than `seq`: all earlier messages are counted and stored."""
    try:
        async with asyncio.timeout(COUNTED_TIMEOUT_S):
            while await states.saved_seq(partition) < seq:  # noqa: ASYNC110 - another process
                await asyncio.sleep(POLL_INTERVAL_S)
    except TimeoutError as error:
        raise LogError(f"partition {partition} is not counted; check that a worker runs") from error


async def _erase_rows(connection: Connection, wanted: EraseRequest) -> EraseReply:
    body = msgspec.json.encode(wanted)
    try:
        reply = await connection.request(HISTORY_ERASE_SUBJECT, body, timeout_s=HISTORY_TIMEOUT_S)
    except NoRespondersError as error:
        raise LogError("the history is not written; check that the role `history` runs") from error
    answer = msgspec.json.decode(reply, type=EraseReply)
    if answer.error:
        raise LogError(f"history: {answer.error}")
    return answer


def _pseudonym_of_event(data: bytes) -> str:
    try:
        return msgspec.json.decode(data, type=Event).device
    except msgspec.DecodeError:
        return ""
