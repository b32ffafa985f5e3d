"""A person's own data: overview, export, pause, resume, erase."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from headcount.devices.commands import CommandStore
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.devices.registry import Registry
from headcount.devices.trace import MAX_LIMIT, DeviceTrace
from headcount.history import queries
from headcount.messages.records import Device, DeviceCommand, LastSeen
from headcount.messages.times import iso
from headcount.messages.topics import partition_of
from headcount.messaging.connection import Connection
from headcount.messaging.device_messages import messages_of
from headcount.services.access_history import AccessHistory
from headcount.services.actors import DEVICE_OWNER
from headcount.services.audit import AuditTrail
from headcount.services.history import HistoryQueries
from headcount.services.traces import TraceService

#: Payloads that are not JSON are returned as text, cut to this many bytes.
MAX_PAYLOAD_BYTES = 16_384
_STATUS = b".status"


@dataclass(frozen=True, slots=True)
class PersonalOverview:
    """Everything known about a device now."""

    seen: LastSeen | None
    live: dict[str, Any]  # the counting worker's state; empty: unknown
    commands: list[DeviceCommand]
    accesses: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class PersonalExport:
    """Everything that is stored about a device."""

    seen: LastSeen | None
    pseudonyms: dict[int, str]  # by day since 1970
    log_since_s: float
    log: list[dict[str, Any]]
    trace: DeviceTrace
    history: list[dict[str, Any]]
    commands: list[DeviceCommand]
    accesses: list[dict[str, Any]]


class PersonalDataService:
    """Operations of a device's owner on their own data; every method raises LogError without the core."""

    def __init__(
        self,
        client: Connection,
        registry: Registry,
        commands: CommandStore,
        traces: TraceService,
        audit: AuditTrail,
        history: HistoryQueries,
        *,
        data: Path,
        partitions: int,
    ) -> None:
        """Read the log over a connection, the history from a data folder."""
        self._client = client
        self._registry = registry
        self._commands = commands
        self._traces = traces
        self._audit = audit
        self._history = history
        self._data = data
        self._partitions = partitions
        self._accesses = AccessHistory(audit.log)

    async def overview(self, device: Device) -> PersonalOverview:
        """Return what is known about a device now."""
        pseudonyms = await self._pseudonyms(device)
        trace = await self._traces.own(device, limit=1)
        return PersonalOverview(
            seen=await self._seen(device),
            live=trace.live or {},
            commands=await self._commands.of(device.id),
            accesses=await self._accesses.of(pseudonyms.values()),
        )

    async def export(self, device: Device) -> PersonalExport:
        """Return everything stored about a device; rows under pseudonyms of days whose keys still exist.

        Raises:
            TooManyQueriesError, DataFolderError: the history cannot be queried now.
        """
        pseudonyms = await self._pseudonyms(device)
        trace = await self._traces.own(device, limit=MAX_LIMIT)
        history = await self._history.run(lambda: self._stored_fixes(device, list(pseudonyms.values())))
        log_since_s, log = await self._messages(device)
        found = PersonalExport(
            seen=await self._seen(device),
            pseudonyms=pseudonyms,
            log_since_s=log_since_s,
            log=log,
            trace=trace,
            history=history,
            commands=await self._commands.of(device.id),
            accesses=await self._accesses.of(pseudonyms.values(), max_age_s=0.0),
        )
        await self._audit.record_device(DEVICE_OWNER, "person.export", device)
        return found

    async def pause(self, device: Device, until_s: float | None) -> Device:
        """Stop counting a device until a moment (Unix seconds), or until it is resumed."""
        await self._audit.record_device(DEVICE_OWNER, "person.pause", device)
        return await self._registry.pause(device.id, until_s)

    async def resume(self, device: Device) -> Device:
        """End a pause: the device is counted again from its next fix."""
        await self._audit.record_device(DEVICE_OWNER, "person.resume", device)
        return device if device.status == "active" else await self._registry.enable(device.id)

    async def erase(self, device: Device) -> None:
        """Reject a device from now on and have everything about it erased."""
        await self._audit.record_device(DEVICE_OWNER, "person.erase", device)
        await self._registry.remove(device.id)

    async def _pseudonyms(self, device: Device) -> dict[int, str]:
        keys = PseudonymKeys(self._client)
        return await keys.pseudonyms_of(device.kind, device.id)

    async def _seen(self, device: Device) -> LastSeen | None:
        return (await self._registry.seen()).get(device.id)

    def _stored_fixes(self, device: Device, pseudonyms: list[str]) -> list[dict[str, Any]]:
        stored = queries.fixes(self._data, devices=pseudonyms, kinds=[device.kind], limit=queries.MAX_ROWS)
        return [
            {"t": iso(fix.t), "lat": fix.lat, "lon": fix.lon, "acc": fix.acc or None, "verdict": fix.verdict}
            for fix in stored
        ]

    async def _messages(self, device: Device) -> tuple[float, list[dict[str, Any]]]:
        """Return the device's messages of the log's last hour, and since when they are complete."""
        partition = partition_of(device.site, device.id, self._partitions)
        read, since_s = await messages_of(
            self._client, partition, device.site, device.kind, device.id, time.time()
        )
        own = f"fix.{partition}.{device.site}.{device.kind}.{device.id}".encode()
        messages = [
            {
                "received": iso(received_ns / 1e9),
                "what": "status" if subject.endswith(_STATUS) else "fix",
                "payload": _payload(payload),
            }
            for subject, payload, received_ns in zip(
                read.subjects, read.payloads, read.received_ns.tolist(), strict=True
            )
            if subject.startswith(own)
        ]
        return since_s, messages


def _payload(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload[: MAX_PAYLOAD_BYTES + 1])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return payload[:MAX_PAYLOAD_BYTES].decode(errors="replace")
