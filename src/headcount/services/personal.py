"""A person's own data: overview, export, pause, resume, erase."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.devices.trace import MAX_LIMIT
from headcount.history import queries
from headcount.history.reader import HistoryView
from headcount.messages.records import Device, LastSeen
from headcount.messages.times import iso
from headcount.messages.topics import partition_of
from headcount.messaging.device_messages import messages_of
from headcount.services.actors import DEVICE_OWNER
from headcount.services.commands import command_as_json
from headcount.services.container import Services
from headcount.services.devices import seen_as_json
from headcount.services.history import HistoryQueries
from headcount.services.stays import StayService
from headcount.services.traces import TraceService

#: Payloads that are not JSON are returned as text, cut to this many bytes.
MAX_PAYLOAD_BYTES = 16_384
_STATUS = b".status"
#: The fields of the registry that a device's owner sees.
_KNOWN = ("site", "kind", "status", "label", "groups", "aliases", "created", "resume")


class PersonalDataService:
    """Operations of a device's owner on their own data; every method raises LogError without the core."""

    def __init__(
        self,
        services: Services,
        traces: TraceService,
        history: HistoryQueries,
        stays: StayService,
        *,
        partitions: int,
    ) -> None:
        """Read the log over the connection of `services`, and the history."""
        self._stays = stays
        self._client = services.client
        self._registry = services.registry
        self._commands = services.command_store
        self._audit = services.audit
        self._traces = traces
        self._history = history
        self._partitions = partitions

    async def overview(self, device: Device) -> dict[str, Any]:
        """Return what is known about a device now, for JSON."""
        pseudonyms = await self._pseudonyms(device)
        live = (await self._traces.own(device, limit=1)).live or {}
        seen = await self._seen(device)
        registered = _registered(device)
        known = {name: registered[name] for name in _KNOWN}
        return {
            "device": device.id,
            **known,
            "connected": None if seen is None else seen.connected,
            # the worker learns of a pause a moment later
            "zones": live.get("zones", []) if device.status == "active" else [],
            "last": _last(live),
            "commands": await self._commands_of(device),
            "looks": await self._accesses(pseudonyms.values()),
        }

    async def export(self, device: Device) -> dict[str, Any]:
        """Return everything stored about a device, for JSON; rows under pseudonyms of days whose keys still exist.

        Raises:
            TooManyQueriesError, DataFolderError: the history cannot be queried now.
        """
        pseudonyms = await self._pseudonyms(device)
        trace = await self._traces.own(device, limit=MAX_LIMIT)
        history = await self._history.run(lambda view: _stored_fixes(view, device, list(pseudonyms.values())))
        log_since_s, log = await self._messages(device)
        found = {
            "exported": iso(time.time()),
            "registry": _registered(device),
            "seen": seen_as_json(await self._seen(device)),
            "names": {str(day): name for day, name in pseudonyms.items()},
            "log": {"since": iso(log_since_s), "messages": log},
            "recent_fixes": [
                {"t": line.t, "lat": line.lat, "lon": line.lon, "acc": line.acc, "verdict": line.verdict}
                for line in trace.lines
                if line.what == "fix"
            ],
            "memberships": [change for line in trace.lines for change in line.changes] + trace.left,
            "history": history,
            "stays": await self._stays.own(device),
            "now": trace.live,
            "commands": await self._commands_of(device),
            "looks": await self._accesses(pseudonyms.values()),
        }
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

    async def _accesses(self, pseudonyms: Iterable[str]) -> list[dict[str, Any]]:
        """Return the accesses to positions under these pseudonyms, newest first."""
        found = [entry for name in set(pseudonyms) for entry in await self._audit.log.position_reads(name)]
        return [
            {
                "at": entry.at,
                "actor": entry.actor,
                "action": entry.action,
                "reason": entry.detail.get("reason"),
            }
            for entry in sorted(found, key=lambda entry: entry.n, reverse=True)
        ]

    async def _pseudonyms(self, device: Device) -> dict[int, str]:
        keys = PseudonymKeys(self._client)
        return await keys.pseudonyms_of(device.site, device.kind, device.id)

    async def _commands_of(self, device: Device) -> list[dict[str, Any]]:
        return [command_as_json(command) for command in await self._commands.of(device.id)]

    async def _seen(self, device: Device) -> LastSeen | None:
        return (await self._registry.seen()).get(device.id)

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


def _stored_fixes(view: HistoryView, device: Device, pseudonyms: list[str]) -> list[dict[str, Any]]:
    stored = queries.fixes(
        view,
        site=device.site,
        devices=pseudonyms,
        kinds=[device.kind],
        limit=queries.MAX_ROWS,
    )
    return [
        {"t": iso(fix.t), "lat": fix.lat, "lon": fix.lon, "acc": fix.acc or None, "verdict": fix.verdict}
        for fix in stored
    ]


def _registered(device: Device) -> dict[str, Any]:
    """The registry's entry without hashes of secrets and the key of its messages."""
    entry: dict[str, Any] = msgspec.to_builtins(device)
    del entry["secret"], entry["ingest_key"], entry["payload_key"]
    for name in ("created", "changed", "valid_from", "resume"):
        entry[name] = iso(entry[name]) if entry[name] else None
    return entry


def _last(live: dict[str, Any]) -> dict[str, Any] | None:
    """The last position that was used, and the last verdict; None: unknown."""
    if not live:
        return None
    position = {name: live.get(name) for name in ("lat", "lon", "acc", "offline")}
    return {"t": live.get("last_t"), "verdict": live.get("last_verdict"), **position}


def _payload(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload[: MAX_PAYLOAD_BYTES + 1])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return payload[:MAX_PAYLOAD_BYTES].decode(errors="replace")
