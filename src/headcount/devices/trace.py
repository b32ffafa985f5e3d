"""Device trace: the messages of the last hour, judged again and explained, show why a device is (not) counted.

Nothing is stored for a trace. The device's messages are read from the log and passed to a separate engine,
which does not know anything from before the oldest message. The trace also has the counting worker's state.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from headcount.counting.explain import ExplainedMessage, Explainer, MembershipChange
from headcount.counting.explained_rules import SITE_CHANGE, TracedMessage
from headcount.counting.fix_columns import FIX, FORGET, OFFLINE, Removal
from headcount.counting.site_versions import SiteVersions
from headcount.errors import LogError, NoAnswerError, NoRespondersError
from headcount.messages.device_state import DeviceState, DeviceStateRequest
from headcount.messages.records import RefusalAction, RefusalReason, Refusals
from headcount.messages.times import iso, iso_or_none, tick_s
from headcount.messages.topics import DEVICE_STATE_SUBJECT, KINDS, Kind, partition_of
from headcount.messaging.connection import Connection
from headcount.messaging.device_messages import LOG_S, messages_of
from headcount.messaging.fix_json import fix_problem
from headcount.messaging.kv import KvBucket
from headcount.messaging.payloads import decode
from headcount.messaging.raw_batch import RawBatch
from headcount.messaging.streams import REFUSED_BUCKET

DEFAULT_LIMIT, MAX_LIMIT = 20, 500
_REPLY_TIMEOUT_S = 1.0
#: Concurrent computations: each takes up to a second of a core.
_MAX_CONCURRENT = 1


class TraceEntry(msgspec.Struct, kw_only=True):
    """One message of the device; times are RFC 3339 in UTC."""

    received: str
    what: str  # fix, online, offline, forgotten, site
    t: str | None
    lat: float | None
    lon: float | None
    acc: float | None
    verdict: str | None
    rule: str
    why: str
    checks: list[dict[str, Any]]
    edges: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    zones: list[str]


class RefusedEntry(msgspec.Struct, kw_only=True):
    """A refusal of the broker; `at` is RFC 3339 in UTC."""

    at: str
    action: RefusalAction
    reason: RefusalReason
    topic: str


class DeviceTrace(msgspec.Struct, kw_only=True):
    """The messages of a device with their effects, oldest first, and its present state."""

    site: str
    kind: Kind
    device: str
    since: str  # start of the replay, without earlier state
    truncated: bool = False  # the log has older messages of the hour that were not read
    messages: int = 0
    lines: list[TraceEntry] = []
    left: list[dict[str, Any]] = []  # changes since the last message, by expired holds
    zones: list[str] = []  # at the end of the replay
    live: dict[str, Any] | None = None  # the counting worker's state; None = no answer
    agrees: bool | None = None  # whether replay and worker have the same zones
    refused: list[RefusedEntry] = []  # the last refusals of the broker within an hour


class DeviceTracer:
    """Traces devices; a trace prepares the zones of each version in effect."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._lock = threading.Lock()
        self._turn = asyncio.Semaphore(_MAX_CONCURRENT)

    async def trace(
        self,
        connection: Connection,
        site: SiteVersions,
        kind: Kind,
        device: str,
        *,
        limit: int = DEFAULT_LIMIT,
        names: Mapping[int, str] | None = None,
    ) -> DeviceTrace:
        """Explain the last `limit` messages of a device.

        Args:
            connection: to the core, with all permissions.
            site: the device's.
            kind: the device's kind.
            device: its id.
            limit: maximum number of lines, the newest.
            names: the device's pseudonyms by day, to recognise markers that removed it.

        Raises:
            LogError: NATS does not answer.
        """
        site_id, now_s = site.site_id, time.time()
        partition = partition_of(site_id, device, self._partitions)
        messages, since_s = await messages_of(connection, partition, site_id, kind, device, now_s)
        try:
            live = await device_state(connection, partition, site_id, kind, device)
        except NoAnswerError:
            live = None
        stored = await KvBucket(connection, REFUSED_BUCKET).get(device)
        refused = Refusals() if stored is None else msgspec.json.decode(stored.value, type=Refusals)
        async with self._turn:
            count, lines, left, zones = await asyncio.to_thread(
                self._explained, site, messages, kind, device, limit, dict(names or {}), now_s
            )
        return DeviceTrace(
            site=site_id,
            kind=kind,
            device=device,
            since=iso(since_s),
            truncated=since_s > now_s - LOG_S,
            messages=count,
            lines=lines,
            left=left,
            zones=zones,
            live=live,
            agrees=None if live is None else sorted(live.get("zones", [])) == sorted(zones),
            refused=[
                RefusedEntry(at=iso(each.at), action=each.action, reason=each.reason, topic=each.topic)
                for each in refused.last
            ],
        )

    def _explained(
        self,
        site: SiteVersions,
        messages: RawBatch,
        kind: Kind,
        device: str,
        limit: int,
        names: dict[int, str],
        now_s: float,
    ) -> tuple[int, list[TraceEntry], list[dict[str, Any]], list[str]]:
        with self._lock:
            end_s = min(now_s, tick_s(site.ends_tick))
            found = [
                message
                for message in messages_for_explainer(messages, site.site_id, kind, names)
                if tick_s(site.begins_tick) <= message.received_s <= end_s
            ]
            first = site.at(found[0].received_s if found else now_s)
            later = site.between(first.number, site.at(now_s).from_tick)
            versions = [(version.from_s, version.zones) for version in later]
            explainer = Explainer(first.zones, kind, device)
            explaining = explainer.explain(found, last=limit, versions=versions, until_s=end_s)
            lines = [_trace_entry(explained) for explained in explaining]
            left = [_zone_change(change) for change in explainer.advance(end_s)]
            return len(found), lines, left, [] if site.is_removed(now_s) else explainer.zones


async def kinds_in_log(connection: Connection, site: str, device: str, partitions: int) -> list[Kind]:
    """The kinds under which the log has messages of this id, the most frequent first."""
    partition, now_s = partition_of(site, device, partitions), time.time()
    found = {kind: (await messages_of(connection, partition, site, kind, device, now_s))[0] for kind in KINDS}
    own = f"fix.{partition}.{site}.".encode()
    count = {kind: sum(subject.startswith(own) for subject in each.subjects) for kind, each in found.items()}
    return sorted((kind for kind in KINDS if count[kind]), key=lambda kind: -count[kind])


def messages_for_explainer(
    messages: RawBatch, site: str, kind: Kind, names: Mapping[int, str]
) -> list[TracedMessage]:
    """The messages for the explainer, without markers of other devices."""
    fixes = decode(site.encode(), messages)
    columns = (fixes.received_s, fixes.what, fixes.t_s, fixes.lat_deg, fixes.lon_deg, fixes.acc_m)
    problems = [
        _problem(subject, payload) if what == FIX else ""
        for what, subject, payload in zip(
            fixes.what.tolist(), messages.subjects, messages.payloads, strict=True
        )
    ]
    rows = zip(fixes.seq.tolist(), *(column.tolist() for column in columns), problems, strict=True)
    return [
        TracedMessage(*row)
        for seq, *row in rows
        if row[1] != FORGET or _removes(fixes.removals.get(seq), kind, names)
    ]


def _problem(subject: bytes, payload: bytes) -> str:
    """Why a message is neither a fix nor a status; empty if it is one."""
    if subject.endswith(b".status"):
        return f"its status is {payload[:40].decode(errors='replace')!r}, neither online nor offline"
    return fix_problem(payload)


def _removes(removal: Removal | None, kind: Kind, names: Mapping[int, str]) -> bool:
    if removal is None or KINDS[removal.kind] != kind:
        return False
    own = {day: int.from_bytes(bytes.fromhex(name), sys.byteorder) for day, name in names.items()}
    return any(own.get(day) == pseudonym for day, pseudonym in removal.pseudonyms.items())


async def device_state(
    connection: Connection, partition: int, site: str, kind: Kind, device: str
) -> dict[str, Any]:
    """Return what the counting worker of a partition knows about a device; {} if it knows nothing.

    Raises:
        NoAnswerError: the worker does not answer.
    """
    if not connection.is_connected:
        raise NoAnswerError("there is no connection to the core")
    request = msgspec.json.encode(DeviceStateRequest(site, kind, device))
    try:
        subject = DEVICE_STATE_SUBJECT.format(partition=partition)
        answer = await connection.request(subject, request, timeout_s=_REPLY_TIMEOUT_S)
    except NoRespondersError:
        raise NoAnswerError(f"no worker owns partition {partition}") from None
    except LogError as error:
        reason = f"the worker of partition {partition} did not answer within {_REPLY_TIMEOUT_S:g} s"
        raise NoAnswerError(reason) from error
    state = msgspec.json.decode(answer, type=DeviceState | None)
    return {} if state is None else {**msgspec.structs.asdict(state), "last_t": iso_or_none(state.last_t)}


def _trace_entry(explained: ExplainedMessage) -> TraceEntry:
    message = explained.message
    what = {FIX: "fix", OFFLINE: "offline", FORGET: "forgotten", SITE_CHANGE: "site"}.get(
        message.what, "online"
    )
    return TraceEntry(
        received=iso(message.received_s),
        what=what,
        t=_iso_or_none(message.t_s),
        lat=_finite_or_none(message.lat_deg),
        lon=_finite_or_none(message.lon_deg),
        acc=_finite_or_none(message.acc_m) or None,
        verdict=explained.verdict,
        rule=explained.rule,
        why=explained.why,
        checks=[msgspec.to_builtins(check) for check in explained.checks],
        edges=[msgspec.to_builtins(edge) for edge in explained.edges],
        changes=[_zone_change(change) for change in explained.changes],
        zones=explained.zones,
    )


def _zone_change(change: MembershipChange) -> dict[str, Any]:
    kind = "enter" if change.enter else "exit"
    return {"zone": change.zone, "type": kind, "t": _iso_or_none(change.t_s), "reason": change.reason}


def _iso_or_none(t_s: float) -> str | None:
    try:
        return iso(t_s)
    except (ValueError, OverflowError, OSError):  # not a number, or outside the calendar
        return None


def _finite_or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def is_unknown(trace: DeviceTrace) -> bool:
    """Whether neither the log nor the worker knows the device."""
    return not trace.messages and not trace.live and not trace.refused
