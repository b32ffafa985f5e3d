"""The age of the oldest row in each store, compared with its limit.

The oldest row itself is read: the first message of a stream, the smallest time in a column of a Parquet file,
the first record in a file of the log. Names of folders and files prove nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec

from headcount.access.sessions import LIFETIME_S
from headcount.devices.commands import MAX_EXPIRES_S, RETENTION_S
from headcount.devices.pseudonym_keys import KEY_RETENTION_S
from headcount.errors import DataFolderError
from headcount.history.hours import folder
from headcount.history.retention import KEEP_S
from headcount.history.segment_files import all_segments
from headcount.messages.times import DAY_S, iso
from headcount.messages.topics import AUDIT_STREAM, EVENT_STREAM, FIX_STREAM, FOREIGN_STREAM, HISTORY_STREAM
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

#: Expired data is removed from streams about every second, from folders once a minute.
SLACK_S = 120.0
#: A file of the log has up to 8 MiB and is removed when all of it has expired. Ticks alone fill it in this time.
MAX_FILE_SPAN_S = 6 * HOUR_S


class StoreAge(msgspec.Struct, kw_only=True):
    """One store: the limit on the age of its data, and its oldest row."""

    store: str
    limit_s: float | None  # None: it is in memory and ends with the server
    age_s: float | None  # of the oldest row; None: there is none, or it is not visible from here
    oldest: str = ""  # the time of that row, RFC 3339 in UTC
    note: str = ""

    @property
    def kept(self) -> bool:
        """Whether the data is within the limit."""
        return self.age_s is None or self.limit_s is None or self.age_s <= self.limit_s + SLACK_S


async def store_ages(connection: Connection, data: Path, now_s: float) -> list[StoreAge]:
    """Every store of a deployment at `now_s`; files of the data folder only where they are on this machine.

    Raises:
        LogError: the log does not answer.
        DataFolderError: a file cannot be read.
    """
    found = [row async for row in _streams_and_buckets(connection, now_s)]
    try:
        return [*found, *_files(data, now_s)]
    except OSError as error:
        raise DataFolderError(
            str(data), f"can't be looked through: {error}", "Run this as the user who runs headcount"
        ) from error


def _store_age(
    store: str, limit_s: float | None, oldest_s: float | None, now_s: float, note: str = ""
) -> StoreAge:
    age_s = None if oldest_s is None else round(max(now_s - oldest_s, 0.0), 1)
    return StoreAge(
        store=store, limit_s=limit_s, age_s=age_s, oldest="" if oldest_s is None else iso(oldest_s), note=note
    )


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


# --- files ------------------------------------------------------------------------------------------
def _files(data: Path, now_s: float) -> Iterator[StoreAge]:
    for kind, column in (("fixes", "received"), ("counts", "at")):
        oldest: list[float | None] = []
        rows: Counter[str] = Counter()
        for path in all_segments(folder(data), kind):
            earliest_s, by_site = _read_segment(path, column)
            oldest.append(earliest_s)
            rows += by_site
        of_sites = "".join(f"; {rows[site]} rows of {site}" for site in sorted(rows))
        note = f"{len(oldest)} segments{of_sites}"
        yield _store_age(f"history: {kind}", KEEP_S + HOUR_S, _earliest(oldest), now_s, note)
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


def _read_segment(path: Path, column: str) -> tuple[float | None, Counter[str]]:
    """The earliest time in a column of a segment, and the number of rows of each site."""
    import pyarrow as pa  # noqa: PLC0415  # only processes that use it pay for it
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        table = pq.read_table(path, columns=[column, "site"])
        smallest = pc.min(table[column]).cast(pa.timestamp("us", "UTC")).cast(pa.int64()).as_py()
        sites = pc.value_counts(table["site"].cast(pa.string())).to_pylist()
    except (pa.ArrowException, KeyError) as error:
        raise OSError(f"{path}: {error}") from error
    rows = Counter({each["values"]: each["counts"] for each in sites})
    return None if smallest is None else float(smallest) / 1e6, rows
