"""The age of the oldest row in each store, compared with its limit.

The oldest row itself is read: the first message of a stream, the smallest time in a column of a Parquet file,
the first record in a file of the log. Names of folders and files prove nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from headcount.access.sessions import LIFETIME_S
from headcount.devices.commands import MAX_EXPIRES_S, RETENTION_S
from headcount.devices.pseudonym_keys import KEY_RETENTION_S
from headcount.errors import DataFolderError, ObjectNotFoundError
from headcount.history.catalog import Catalog
from headcount.history.damage import SEGMENT
from headcount.history.manifest import PAUSES, Manifest
from headcount.history.objects import ObjectStore
from headcount.history.reader import CLOCKS
from headcount.history.upkeep import DELETE_AFTER_S, ORPHAN_AGE_S, SWEEP_INTERVAL_S
from headcount.messages.times import DAY_S, iso
from headcount.messages.topics import (
    AUDIT_STREAM,
    EVENT_STREAM,
    FIX_STREAM,
    FOREIGN_STREAM,
    HISTORY_STREAM,
    KINDS,
)
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import get_message, stream_info, stream_names
from headcount.messaging.kv import KvBucket
from headcount.messaging.stream_files import first_record_s
from headcount.messaging.streams import (
    ACCESS_BUCKET,
    AUDIT_AGE_S,
    COMMAND_BUCKET,
    DAYKEY_BUCKET,
    HISTORY_AGE_S,
    HOUR_S,
    LOG_AGE_S,
    SNAPSHOT_BUCKET,
)
from headcount.settings.retention_periods import PERIODS, RetentionPeriods

#: Expired data is removed from streams about every second, from folders once a minute.
SLACK_S = 120.0
#: A file of the log has up to 8 MiB and is removed when all of it has expired. Ticks alone fill it in this time.
MAX_FILE_SPAN_S = 6 * HOUR_S
#: A segment expires as a whole with its newest row; the hours of old days are merged.
SPANS_S = dict.fromkeys(PERIODS, float(HOUR_S)) | {"minutes": 24.0 * HOUR_S, "flows": 24.0 * HOUR_S}


class StoreAge(msgspec.Struct, kw_only=True):
    """One store: the limit on the age of its data, and its oldest row."""

    store: str
    limit_s: float | None  # None: there is none, see `unlimited`
    age_s: float | None  # of the oldest row; None: there is none, or it is not visible from here
    oldest: str = ""  # the time of that row, RFC 3339 in UTC
    note: str = ""
    unlimited: str = "memory"  # why there is no limit: it is in memory and ends with the server, or is held

    @property
    def kept(self) -> bool:
        """Whether the data is within the limit."""
        return self.age_s is None or self.limit_s is None or self.age_s <= self.limit_s + SLACK_S


async def store_ages(
    connection: Connection, data: Path, catalog: Catalog, periods: RetentionPeriods, now_s: float
) -> list[StoreAge]:
    """Every store of a deployment at `now_s`; files of the data folder only where they are on this machine.

    Raises:
        LogError: the log does not answer.
        DataFolderError, StoreError: a file or an object cannot be read.
    """
    found = [row async for row in _streams_and_buckets(connection, now_s)]
    found += await asyncio.to_thread(lambda: list(history_ages(catalog, periods, now_s)))
    try:
        return [*found, *_files(data, now_s)]
    except OSError as error:
        raise DataFolderError(
            str(data), f"can't be looked through: {error}", "Run this as the user who runs headcount"
        ) from error


def _store_age(
    store: str,
    limit_s: float | None,
    oldest_s: float | None,
    now_s: float,
    note: str = "",
    unlimited: str = "memory",
) -> StoreAge:
    age_s = None if oldest_s is None else round(max(now_s - oldest_s, 0.0), 1)
    oldest = "" if oldest_s is None else iso(oldest_s)
    return StoreAge(store=store, limit_s=limit_s, age_s=age_s, oldest=oldest, note=note, unlimited=unlimited)


async def _streams_and_buckets(connection: Connection, now_s: float) -> AsyncIterator[StoreAge]:
    prefix = FIX_STREAM.format(partition="")
    logs = [name for name in await stream_names(connection) if name.startswith(prefix)]
    fixes = [await _oldest(connection, name) for name in logs]
    yield _store_age("log of fixes", LOG_AGE_S, _earliest(fixes), now_s, f"{len(logs)} streams")
    for store, stream, limit_s in (
        ("other formats", FOREIGN_STREAM, LOG_AGE_S),
        ("events", EVENT_STREAM, LOG_AGE_S),
        ("rows on their way into the history", HISTORY_STREAM, HISTORY_AGE_S),
        ("snapshots", f"KV_{SNAPSHOT_BUCKET}", KEY_RETENTION_S),
        ("audit log", AUDIT_STREAM, AUDIT_AGE_S),
    ):
        yield _store_age(store, limit_s, await _oldest(connection, stream), now_s)
    keys = await KvBucket(connection, DAYKEY_BUCKET).newest("day.*")
    ends = [(int(key.partition(".")[2]) + 1) * DAY_S for key in keys]
    yield _store_age(
        "daily keys, after their day", KEY_RETENTION_S, _earliest(ends), now_s, f"{len(keys)} keys"
    )
    commands = await KvBucket(connection, COMMAND_BUCKET).newest()
    created = [float(msgspec.json.decode(entry.value)["created"]) for entry in commands.values()]
    yield _store_age("commands", MAX_EXPIRES_S + RETENTION_S, _earliest(created), now_s)
    sessions = await KvBucket(connection, ACCESS_BUCKET).newest("session.*")
    yield _store_age(
        "sessions", LIFETIME_S, _earliest([entry.stored_s for entry in sessions.values()]), now_s
    )
    for name in ("$MQTT_msgs", "$MQTT_out", "$MQTT_qos2in"):
        yield _store_age(f"MQTT, in memory: {name}", HOUR_S, await _oldest(connection, name), now_s)
    for name in ("$MQTT_sess", "$MQTT_rmsgs"):
        yield _store_age(f"MQTT, in memory: {name}", None, await _oldest(connection, name), now_s)


def _earliest(found: list[float | None] | list[float] | list[int]) -> float | None:
    return min((value for value in found if value is not None), default=None)


async def _oldest(connection: Connection, stream: str) -> float | None:
    """The time of the first message that a stream contains."""
    state = (await stream_info(connection, stream)).state
    if not state.messages:
        return None
    message = await get_message(connection, stream, {"seq": state.first_seq})
    if message is None:  # it has just expired
        return await _oldest(connection, stream)
    return message.stored_s


# --- the history ------------------------------------------------------------------------------------
class _Rows:
    """Rows of some objects."""

    def __init__(self) -> None:
        self.objects = self.unreadable = 0
        self.by_site: Counter[str] = Counter()
        self.oldest_s: dict[str, float] = {}  # by kind; "": of rows without one

    def add(self, store: ObjectStore, name: str) -> None:
        self.objects += 1
        try:
            rows = _read_segment(store, name)
        except ObjectNotFoundError:  # it has just been deleted
            self.objects -= 1
            return
        except (pa.ArrowException, KeyError):
            self.unreadable += 1
            return
        for site, kind, oldest_s, number in rows:
            self.by_site[site] += number
            self.oldest_s[kind] = min(oldest_s, self.oldest_s.get(kind, oldest_s))

    @property
    def note(self) -> str:
        of_sites = "".join(f"; {self.by_site[site]} rows of {site}" for site in sorted(self.by_site))
        damaged = f"; {self.unreadable} unreadable" if self.unreadable else ""
        return f"{self.objects} segments{of_sites}{damaged}"


def history_ages(catalog: Catalog, periods: RetentionPeriods, now_s: float) -> Iterator[StoreAge]:
    """The rows of all objects in the store, whether the manifest names them or not."""
    manifest = catalog.manifest()
    held = {each.segment.name for each in manifest.held}
    named = manifest.names()
    current, waiting = ({name: _Rows() for name in (*PERIODS, PAUSES)} for _ in range(2))
    kept = _Rows()
    for each in catalog.store.list_():
        match = SEGMENT.fullmatch(each.name)
        if match is not None and match[1] in current:
            of = kept if each.name in held else (current if each.name in named else waiting)[match[1]]
            of.add(catalog.store, each.name)
    for dataset, rows in current.items():
        yield from _ages(f"history: {dataset}", dataset, rows, periods, 0.0, now_s)
    delay_s = ORPHAN_AGE_S + SWEEP_INTERVAL_S + DELETE_AFTER_S
    for dataset, rows in waiting.items():
        if rows.objects:
            yield from _ages(f"history: {dataset} to delete", dataset, rows, periods, delay_s, now_s)
    if manifest.holds or kept.objects:
        note = f"{kept.note}{_holds(manifest)}"
        oldest_s = _earliest(list(kept.oldest_s.values()))
        yield _store_age("history: under legal holds", None, oldest_s, now_s, note, "held")


def _ages(
    store: str, dataset: str, rows: _Rows, periods: RetentionPeriods, delay_s: float, now_s: float
) -> Iterator[StoreAge]:
    dataset = "fixes" if dataset == PAUSES else dataset
    delay_s += SPANS_S[dataset]
    if not periods.by_kinds(dataset):
        oldest_s = _earliest(list(rows.oldest_s.values()))
        yield _store_age(store, periods.period_s(dataset) + delay_s, oldest_s, now_s, rows.note)
        return
    for kind in KINDS:
        limit_s = periods.period_s(dataset, kind) + delay_s
        yield _store_age(f"{store}, {kind}", limit_s, rows.oldest_s.get(kind), now_s, rows.note)


def _holds(manifest: Manifest) -> str:
    return "".join(f"; {hold.id} by {hold.by}: {hold.reason}" for hold in manifest.holds)


def _read_segment(store: ObjectStore, name: str) -> list[tuple[str, str, float, int]]:
    """The earliest time and number of the rows of each site and kind."""
    clock = CLOCKS[name.split("/", maxsplit=1)[0]][0]
    with store.open(name) as source, pq.ParquetFile(source) as file:
        names = [each for each in ("site", "kind", clock) if each in file.schema_arrow.names]
        table = file.read(names)
    times = table[clock].cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    kinds = table["kind"].cast(pa.string()) if "kind" in names else pa.array([""] * len(table))
    plain = pa.table({"site": table["site"].cast(pa.string()), "kind": kinds, "t": times})
    found = plain.group_by(["site", "kind"]).aggregate([("t", "min"), ("t", "count")]).to_pylist()
    return [(each["site"], each["kind"], each["t_min"] / 1e6, each["t_count"]) for each in found]


# --- files ------------------------------------------------------------------------------------------
def _files(data: Path, now_s: float) -> Iterator[StoreAge]:
    blocks = list(data.glob(f"jetstream/*/streams/{FIX_STREAM.format(partition='*')}/msgs/*.blk"))
    note = "bytes of the log, including deleted messages" if blocks else "not on this machine"
    found = [first for path in blocks if (first := first_record_s(path)) is not None]
    yield _store_age("log of fixes: files", LOG_AGE_S + MAX_FILE_SPAN_S, _earliest(found), now_s, note)
    logs = [path.stat().st_mtime for path in data.glob("*.log*")]
    yield _store_age(
        "the server's own logs",
        None,
        _earliest(logs),
        now_s,
        "limited to 30 MiB; contain no ids and no names",
    )
