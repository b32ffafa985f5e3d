"""Reads the log, the events and the history without the code of the product.

Streams are read with nats-py instead of `messaging`, payloads are decoded with Python's `json` instead of
msgspec, and the history is read from its Parquet files. So a bug of the product's readers can't hide itself.
"""

from __future__ import annotations

import json
import math
import secrets
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from headcount.messages.topics import FIX_STREAM, KINDS

#: Larger payloads of fixes are malformed.
MAX_FIX_BYTES = 16_384
FETCH = 2_000
FETCH_S = 10.0


class LoggedFix(NamedTuple):
    """The fields of a fix; None if it is malformed."""

    t: Any = None
    lat: Any = None
    lon: Any = None
    acc: Any = None


class LogEntry(NamedTuple):
    """A message of the log that isn't a tick; `received` in Unix seconds."""

    received: float
    partition: int
    seq: int
    kind: str
    device: str
    status: str | None
    fix: LoggedFix
    number: int  # assigned by the load; 0 = none
    forget: dict[int, str] | None = None  # of an erasure marker: day → pseudonym
    site: str = ""  # none for a marker, which is of all sites


class PartitionLog(NamedTuple):
    """The log of one partition: its fixes, statuses and markers, and when the first message was received."""

    began: float
    rows: list[LogEntry]
    ticks: int


async def read_log(client: Client, partitions: int) -> list[PartitionLog]:
    """Read the logs of all partitions."""
    found = []
    for number in range(partitions):
        messages = await read_stream(client, FIX_STREAM.format(partition=number))
        messages = [message for message in messages if not _is_early(message)]
        # the machine's clock may be set back; the time of the log is monotonic
        received = list(accumulate(map(_received, messages), max))
        rows = [row for row in map(_row, repeat(number), messages, received) if row is not None]
        began = received[0] if received else math.inf
        found.append(PartitionLog(began, rows, len(messages) - len(rows)))
    return found


async def read_stream(client: Client, stream: str) -> list[Msg]:
    """Read all messages of a stream in order."""
    jetstream = client.jetstream()
    config = ConsumerConfig(
        name=f"chaos-{secrets.token_hex(4)}",
        ack_policy=AckPolicy.NONE,
        deliver_policy=DeliverPolicy.ALL,
        mem_storage=True,
        inactive_threshold=30,
    )
    consumer = await jetstream.add_consumer(stream, config)
    subscription = await jetstream.pull_subscribe_bind(consumer.name, stream)
    found: list[Msg] = []
    wanted = consumer.num_pending or 0
    while len(found) < wanted:
        found += await subscription.fetch(min(FETCH, wanted - len(found)), timeout=FETCH_S)
    await subscription.unsubscribe()
    await jetstream.delete_consumer(stream, consumer.name)
    return found


def _received(message: Msg) -> float:
    """The time of receipt: the eighth token of `$JS.ACK.<stream>.<consumer>.<deliveries>.<seq>.<seq>.<ns>.<pending>`.

    A float64 can't hold nanoseconds since 1970, so seconds and their fraction are converted separately.
    """
    ns = _received_ns(message)
    return ns // 10**9 + ns % 10**9 / 1e9


def _received_ns(message: Msg) -> int:
    return int(message.reply.split(".")[7])


def _is_early(message: Msg) -> bool:
    """Whether it is the first of the two copies of a QoS 1 message: the one under `$MQTT.msgs.` is counted."""
    qos = (message.headers or {}).get("Nmqtt-Pub", "0")
    return qos in {"1", "2"} and message.subject.startswith("fix.")


def _row(partition: int, message: Msg, received: float) -> LogEntry | None:
    words = message.subject.removeprefix("$MQTT.msgs.").split(".")
    seq = int(message.reply.split(".")[5])
    if len(words) == 3 and words[2] == "forget":
        marker = json.loads(message.data)
        pseudonyms = {int(day): pseudonym for day, pseudonym in marker["pseudonyms"].items()}
        return LogEntry(received, partition, seq, marker["kind"], "", None, LoggedFix(), 0, pseudonyms)
    if len(words) < 5:
        return None
    site, kind, device = words[2:5]
    if len(words) == 6 and message.data in (b"online", b"offline"):
        return LogEntry(
            received, partition, seq, kind, device, message.data.decode(), LoggedFix(), 0, None, site
        )
    fix, number = decode_fix(message.data)
    return LogEntry(received, partition, seq, kind, device, None, fix, number, None, site)


async def read_site_versions(client: Client) -> dict[str, list[tuple[float, dict[str, Any] | None]]]:
    """Read each site's versions, each with the instant at which it takes effect; None removes the site.

    That is five seconds after the time stamp of its storage, rounded up to a tenth of a second; the first version
    of a deployment's first site was in effect before everything.
    """
    versions: dict[str, list[tuple[float, dict[str, Any] | None]]] = {}
    for message in await read_stream(client, "KV_SITE"):
        tenths = -(-(_received_ns(message) + 5 * 10**9) // 10**8)
        *_, site, number = message.subject.split(".")
        stored = json.loads(zlib.decompress(message.data))
        at = -math.inf if number == "1" and stored["is_seed"] else tenths * 10**8 / 1e9
        versions.setdefault(site, []).append((at, stored["file"]))
    return versions


async def read_day_keys(client: Client) -> dict[int, bytes]:
    """Read the key of each day's pseudonyms, which are keyed hashes (BLAKE2b, 8 bytes) of `<kind>.<device>`."""
    return {
        int(message.subject.rpartition(".")[2]): message.data
        for message in await read_stream(client, "KV_DAYKEY")
    }


def decode_fix(payload: bytes) -> tuple[LoggedFix, int]:
    """The fields of a payload by rule 1, and its number (0 = none)."""
    if len(payload) > MAX_FIX_BYTES:
        return LoggedFix(), 0
    try:
        body = json.loads(payload.decode("utf-8-sig", errors="replace").rstrip("\0 \t\r\n"))
    except (ValueError, RecursionError):
        return LoggedFix(), 0
    if not isinstance(body, dict):
        return LoggedFix(), 0
    number = body.get("n", 0)
    t = body.get("t") if _is_number(body.get("t")) else body.get("tst")
    if not all(map(_is_number, (t, body.get("lat"), body.get("lon")))):
        return LoggedFix(), number
    acc = body.get("acc") if _is_number(body.get("acc")) else None
    return LoggedFix(t, body["lat"], body["lon"], acc), number


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class PublishedEvent(NamedTuple):
    """A published event."""

    id: str
    zone: str
    type: str
    kind: str
    device: str  # a pseudonym
    t: float
    reason: str
    site: str = ""


async def read_events(client: Client) -> list[PublishedEvent]:
    """Read the stream of events."""
    bodies = [json.loads(message.data) for message in await read_stream(client, "EVENT")]
    return [PublishedEvent(*(body[name] for name in PublishedEvent._fields)) for body in bodies]


def read_stored_events(data: Path) -> list[PublishedEvent]:
    """Read the events of the history."""
    return [
        PublishedEvent(*(r["t"].timestamp() if name == "t" else r[name] for name in PublishedEvent._fields))
        for r in _rows(data, "events")
    ]


class ParquetFix(NamedTuple):
    """A row of fixes in the history."""

    partition: int
    seq: int
    device: str  # a pseudonym
    kind: str
    verdict: str
    lat: float
    lon: float
    acc: float
    site: str = ""


class ParquetCounts(NamedTuple):
    """A row of counts in the history."""

    at: float
    zone: str
    numbers: tuple[tuple[int, ...], ...]  # [2 kinds][4 numbers]
    partitions: int
    partitions_total: int
    site: str = ""


def read_history(data: Path) -> tuple[list[ParquetFix], list[ParquetCounts]]:
    """Read all segments of the history."""
    fixes = [
        ParquetFix(
            r["partition"],
            r["seq"],
            r["device"],
            r["kind"],
            r["verdict"],
            float(r["lat"]),
            float(r["lon"]),
            r["acc"],
            r["site"],
        )
        for r in _rows(data, "fixes")
    ]
    return fixes, _sums(_rows(data, "counts"))


def _sums(rows: Sequence[dict[str, Any]]) -> list[ParquetCounts]:
    """The counts of each instant, site and zone: its rows are sums over some of the partitions."""
    sums: dict[tuple[Any, ...], Counter[str]] = {}
    for r in rows:
        key = (r["at"].timestamp(), r["site"], r["zone"], r["partitions_total"])
        numbers = {name: n for name, n in r.items() if name.startswith(KINDS) or name == "partitions"}
        sums.setdefault(key, Counter()).update(numbers)
    return [
        ParquetCounts(
            at,
            zone,
            tuple(tuple(n[f"{kind}_{name}"] for name in ("count", "low", "high", "stale")) for kind in KINDS),
            n["partitions"],
            total,
            site,
        )
        for (at, site, zone, total), n in sums.items()
    ]


def _rows(data: Path, kind: str) -> Sequence[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    manifest = json.loads((data / "history" / "manifest.json").read_text())
    for segment in manifest.get("segments", []):
        if segment["name"].startswith(f"{kind}/"):
            with pq.ParquetFile(data / "history" / segment["name"]) as parquet:
                rows += parquet.read().to_pylist()
    return rows
