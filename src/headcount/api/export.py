"""Everything that is kept of one device, gathered for whom it is about."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from headcount.api.routes.commands import told
from headcount.api.services import Parts
from headcount.devices.registry import Registry
from headcount.devices.trace import MAX_LIMIT
from headcount.history import queries
from headcount.messages.records import Device
from headcount.messages.times import iso
from headcount.messages.topics import partition_of
from headcount.messaging.device_messages import messages_of

#: Payloads that are no JSON are told as text, at most so long.
MOST_PAYLOAD = 16_384
_STATUS = b".status"


async def export(parts: Parts, device: Device) -> dict[str, Any]:
    """All of it; what carries pseudonyms is found by those of the days that are still known.

    Raises:
        LogError: the log doesn't answer.
        ProblemError: the history can't be asked now.
    """
    names = await parts.day_keys.pseudonyms_of(device.kind, device.id)
    trace = await parts.tracer.trace(parts.nats, device.kind, device.id, limit=MAX_LIMIT, names=names)
    stored = await parts.queries.run(
        lambda: queries.fixes(
            parts.sources.data, devices=list(names.values()), kinds=[device.kind], limit=queries.MAX_ROWS
        )
    )
    return {
        "exported": iso(time.time()),
        "registry": entry(device),
        "seen": await seen(parts.registry, device),
        "names": {str(day): name for day, name in names.items()},
        "log": await _log(parts, device),
        "memberships": [change for line in trace.lines for change in line.changes] + trace.left,
        "history": [
            {"t": iso(fix.t), "lat": fix.lat, "lon": fix.lon, "acc": fix.acc or None, "verdict": fix.verdict}
            for fix in stored
        ],
        "now": trace.live,
        "commands": [told(command) for command in await parts.commands.of(device.id)],
        "looks": await parts.looks.at(parts.audit, names.values(), within_s=0.0),
    }


def entry(device: Device) -> dict[str, Any]:
    """The registry's entry without what proves who somebody is."""
    told_: dict[str, Any] = msgspec.to_builtins(device)
    told_.pop("secret")
    for name in ("created", "changed", "valid_from", "resume"):
        told_[name] = iso(told_[name]) if told_[name] else None
    return told_


async def seen(registry: Registry, device: Device) -> dict[str, Any] | None:
    """When it was last connected, as far as that is known since the broker's start."""
    found = (await registry.seen()).get(device.id)
    return None if found is None else {"at": iso(found.at), "connected": found.connected}


async def _log(parts: Parts, device: Device) -> dict[str, Any]:
    site = parts.sources.site.id
    partition = partition_of(site, device.id, parts.sources.partitions)
    read = await messages_of(parts.nats, partition, site, device.kind, device.id, time.time())
    own = f"fix.{partition}.{site}.{device.kind}.{device.id}".encode()
    messages = [
        {
            "received": iso(received_ns / 1e9),
            "what": "status" if subject.endswith(_STATUS) else "fix",
            "payload": _payload(payload),
        }
        for subject, payload, received_ns in zip(read.subjects, read.payloads, read.received_ns, strict=True)
        if subject.startswith(own)
    ]
    return {"since": iso(read.since_s), "messages": messages}


def _payload(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload[: MOST_PAYLOAD + 1])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return payload[:MOST_PAYLOAD].decode(errors="replace")
