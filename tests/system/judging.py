"""The counts that the system must have published, by the oracle over its log; and those it has published.

The log (streams FIX_<p>) is read with nats-py, not with our own reader; payloads are decode_fix with
Python's own JSON; the rules are those of `headcount.lab.chaos.oracle`. Only names and shapes on the wire and
the pseudonyms come from headcount.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import nats
import numpy as np
import pyarrow.parquet as pq
from nats.aio.client import Client
from nats.aio.msg import Msg

from headcount.lab.chaos.expected_counts import pseudonym_of
from headcount.lab.chaos.independent_reader import PublishedEvent, decode_fix, read_day_keys, read_stream
from headcount.lab.chaos.independent_reader import read_events as every_event
from headcount.lab.chaos.oracle import Oracle, OracleCount
from headcount.lab.chaos.oracle_replay import TraceRow
from headcount.messages.counts import PartitionCounts, decode_counts
from headcount.messages.topics import KINDS, partition_of
from system.running import Up
from waiting import LIMIT_S

#: Before the subject of what a PUBACK has waited for.
STORED = "$MQTT.msgs."
Counts = dict[str, dict[str, OracleCount]]


class LogRow(NamedTuple):
    """A message of the log; `received` is exactly what the engine sees."""

    received: float
    partition: int
    seq: int
    subject: str
    payload: bytes


# --- reading -----------------------------------------------------------------------------------
async def connect(up: Up) -> Client:
    """A client with all rights that comes back after every break."""
    return await nats.connect(
        f"nats://127.0.0.1:{up.ports['nats']}",
        user="headcount",
        password=up.password,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,
        error_cb=_ignore,
    )


async def _ignore(_: Exception) -> None:
    """The broker is killed on purpose."""


def read_log(up: Up) -> list[LogRow]:
    """All messages of all partitions but the ticks, in the order in which they were received."""

    async def read() -> list[LogRow]:
        client = await connect(up)
        try:
            rows: list[LogRow] = []
            for partition in range(up.partitions):
                stream = f"FIX_{partition}"
                config = (await client.jetstream().stream_info(stream)).config
                has_stored = any(subject.startswith(STORED) for subject in config.subjects or ())
                for message in await read_stream(client, stream):
                    fields, subject = message.reply.split("."), message.subject.removeprefix(STORED)
                    # with QoS 1 the second of two counts: the one that the PUBACK waits for
                    waits = has_stored and (message.headers or {}).get("Nmqtt-Pub", "0") != "0"
                    is_early = waits and subject == message.subject
                    if is_early or subject == f"fix.{partition}.tick":
                        continue
                    ns = int(fields[7])
                    received = ns // 10**9 + ns % 10**9 / 1e9
                    rows.append(LogRow(received, partition, int(fields[5]), subject, message.data))
            return sorted(rows, key=lambda row: row[:3])
        finally:
            await client.close()

    return asyncio.run(read())


def read_events(up: Up) -> list[PublishedEvent]:
    """Everything in the stream of events."""

    async def read() -> list[PublishedEvent]:
        client = await connect(up)
        try:
            return await every_event(client)
        finally:
            await client.close()

    return asyncio.run(read())


def day_keys(up: Up) -> dict[int, bytes]:
    """The keys of the days' pseudonyms."""

    async def read() -> dict[int, bytes]:
        client = await connect(up)
        try:
            return await read_day_keys(client)
        finally:
            await client.close()

    return asyncio.run(read())


def read_history(data: Path, kind: str) -> list[dict[str, Any]]:
    """All rows of the history's segments, `fixes` or `counts`."""
    files = sorted((data / "history" / kind).glob("hour=*/*.parquet"))
    rows: list[dict[str, Any]] = []
    for file in files:
        with pq.ParquetFile(file) as parquet:
            rows += parquet.read().to_pylist()
    return rows


# --- what must be --------------------------------------------------------------------------------
class Expected:
    """The oracle over a log; ask for later and later instants only."""

    def __init__(self, geojson: dict[str, Any], log: list[LogRow], site_id: str, partitions: int) -> None:
        """Begin before the first message."""
        self.oracle = Oracle(geojson)
        self.verdicts: dict[tuple[int, int], tuple[str, str]] = {}  # (partition, seq) → kind, verdict
        self.stored: set[tuple[int, int]] = set()  # of those, the fixes that belong in the history
        self._log, self._next = log, 0
        self.site_id, self._partitions = site_id, partitions

    def advance(self, at: float) -> None:
        """Count everything with `received <= at`."""
        while self._next < len(self._log) and self._log[self._next].received <= at:
            self._take(self._log[self._next])
            self._next += 1
        self.oracle.advance(at)

    def counts(self, at: float) -> Counts:
        """All numbers at that instant."""
        self.advance(at)
        return self.oracle.counts(at)

    def _take(self, row: LogRow) -> None:
        name = row.partition, row.seq
        device = device_of(row, self.site_id, self._partitions)
        if device is None:
            self.verdicts[name] = ("unknown", "malformed")
        elif row.payload in (b"online", b"offline") and row.subject.endswith(".status"):
            self.oracle.status(row.received, *device, online=row.payload == b"online")
        else:
            fix = decode_fix(row.payload)[0]
            verdict = self.oracle.fix(row.received, *device, *fix)
            self.verdicts[name] = (device[0], verdict)
            if self.oracle.is_stored(verdict, fix.lat, fix.lon):
                self.stored.add(name)

    def tally(self) -> Counter[tuple[str, str]]:
        """How many fixes of each kind got each verdict."""
        return Counter(self.verdicts.values())


def device_of(row: LogRow, site_id: str, partitions: int) -> tuple[str, str] | None:
    """Kind and id of the sender, None where it can't be a device of the site."""
    words = row.subject.split(".")
    if words[-1] == "status" and len(words) == 6 and row.payload in (b"online", b"offline"):
        words = words[:-1]
    if len(words) != 5 or words[2] != site_id or words[3] not in KINDS:
        return None
    device = words[4]
    allowed = device.isascii() and len(device) <= 64 and device.replace("_", "a").replace("-", "a").isalnum()
    if not allowed or partition_of(site_id, device, partitions) != row.partition:
        return None
    return words[3], device


def replay_rows(log: list[LogRow], site_id: str, partitions: int) -> list[TraceRow]:
    """The readable fixes of a log, as rows of a recording."""
    rows = []
    for row in log:
        device, (fix, _) = device_of(row, site_id, partitions), decode_fix(row.payload)
        t, lat, lon, acc = fix
        if device is not None and t is not None:
            rows.append(TraceRow(t, device[1], device[0], lat, lon, acc, row.received))
    return rows


# --- what was published --------------------------------------------------------------------------
@dataclass
class Reports:
    """Every count of every partition that was published, by instant and partition."""

    partitions: int
    zones: int
    values: dict[float, dict[int, bytes]] = field(default_factory=dict)
    repeated: int = 0
    conflicts: list[str] = field(default_factory=list)
    epochs: set[tuple[int, int]] = field(default_factory=set)

    def take(self, message: bytes) -> None:
        """Note a message; a different one of the same instant is a conflict."""
        for counts in decode_counts(message):
            self._take(counts)

    def _take(self, counts: PartitionCounts) -> None:
        self.epochs.add((counts.partition, counts.epoch))
        known = self.values.setdefault(counts.at, {})
        if counts.partition in known:
            self.repeated += 1
            if known[counts.partition] != counts.values:
                self.conflicts.append(f"partition {counts.partition} at {counts.at}: two different counts")
        known[counts.partition] = counts.values

    def complete(self) -> dict[float, np.ndarray[Any, np.dtype[np.int32]]]:
        """The totals of all instants that all partitions have reported: int32 [zones, kinds, numbers]."""
        return {
            at: sum((self._array(v) for v in known.values()), np.zeros((self.zones, 2, 4), np.int32))
            for at, known in sorted(self.values.items())
            if len(known) == self.partitions
        }

    def _array(self, values: bytes) -> np.ndarray[Any, np.dtype[np.int32]]:
        return np.frombuffer(values, "<i4").reshape(self.zones, 2, 4)


class Listener:
    """Receives all counts over NATS in a thread of its own, as a context manager; comes back after breaks."""

    def __init__(self, up: Up, zones: int) -> None:
        """Listen to a running system."""
        self.reports = Reports(up.partitions, zones)
        self._up = up
        self._ready, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), name="listener")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(LIMIT_S), "no connection to NATS"
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    async def _listen(self) -> None:
        client = await connect(self._up)

        async def note(message: Msg) -> None:
            self.reports.take(message.data)

        await client.subscribe("count.*.*", cb=note)
        await client.flush()
        self._ready.set()
        await asyncio.to_thread(self._end.wait)
        await client.close()


# --- comparing -----------------------------------------------------------------------------------
def compare_totals(expected: Expected, reports: Reports, extra: Iterable[float] = ()) -> dict[float, Counts]:
    """Every complete total must be what the oracle counts at that instant; what it counts at `extra` ones."""
    assert not reports.conflicts, reports.conflicts[:5]
    totals = reports.complete()
    found: dict[float, Counts] = {}
    wanted = set(extra)
    for at in sorted(totals.keys() | wanted):
        counts = expected.counts(at)
        if at in totals:
            rows = list(counts.items())
            want = np.array([[kinds[kind] for kind in KINDS] for _, kinds in rows], np.int32)
            if not np.array_equal(totals[at], want):
                zone, kind, _ = np.argwhere(totals[at] != want)[0].tolist()
                got = totals[at][zone, kind].tolist()
                message = (
                    f"at {at} {rows[zone][0]} {KINDS[kind]}: {got}, by the rules {want[zone, kind].tolist()}"
                )
                raise AssertionError(message)
        if at in wanted:
            found[at] = counts
    return found


def compare_events(expected: Expected, events: list[PublishedEvent], keys: dict[int, bytes]) -> None:
    """Each event of the oracle must have been published exactly once, and no other."""
    want: Counter[tuple[object, ...]] = Counter(
        (e.zone, e.type, e.kind, pseudonym_of(expected.site_id, e.kind, e.device, keys[e.day]), e.t, e.reason)
        for e in expected.oracle.events
    )
    got: Counter[tuple[object, ...]] = Counter(
        (e.zone, e.type, e.kind, e.device, e.t, e.reason) for e in events
    )
    ids = Counter(e.id for e in events)
    missing, unexpected = want - got, got - want
    assert missing == unexpected == Counter(), (
        f"of {want.total()} events {missing.total()} are missing, such as {sorted(missing)[:3]}; "
        f"{unexpected.total()} are not expected, such as {sorted(unexpected)[:3]}"
    )
    assert max(ids.values(), default=1) == 1, f"ids used twice: {ids.most_common(3)}"


def missing_rows(expected: Expected, data: Path) -> int:
    """How many fixes the history still lacks; none may be there twice, or otherwise than by the rules."""
    want = {name: expected.verdicts[name] for name in expected.stored}
    rows = read_history(data, "fixes")
    got = Counter((row["partition"], row["seq"]) for row in rows)
    twice = [name for name, times in got.items() if times > 1]
    assert not twice, f"{len(twice)} rows are in the history twice, such as {twice[:3]}"
    for row in rows:
        name = row["partition"], row["seq"]
        assert want.get(name) == (row["kind"], row["verdict"]), f"{row}: by the rules {want.get(name)}"
    return len(want) - len(got)


def recorded_counts(data: Path) -> dict[float, Counts]:
    """The complete counts of the history by instant."""
    found: dict[float, Counts] = {}
    for row in read_history(data, "counts"):
        if row["partitions"] == row["partitions_total"]:
            at = found.setdefault(row["at"].timestamp(), {})
            assert row["zone"] not in at, f"{row['zone']} at {row['at']} is in the history twice"
            at[row["zone"]] = {kind: _four(row, kind) for kind in KINDS}
    return found


def _four(row: dict[str, Any], kind: str) -> OracleCount:
    count, low, high, stale = (row[f"{kind}_{name}"] for name in ("count", "low", "high", "stale"))
    return count, low, high, stale


def numbers_of(answer: dict[str, Any]) -> Counts:
    """The zones of an answer over HTTP."""
    return {
        zone["zone"]: {
            kind: tuple(zone[kind][name] for name in ("count", "low", "high", "stale")) for kind in KINDS
        }
        for zone in answer["zones"]
    }


Condition = Callable[[], bool]
