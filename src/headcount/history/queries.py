"""Queries over the last 24 hours, executed by DuckDB on the segments.

Every query is of one site, and opens its own connection, which can read only the history's folder and is
limited in threads, memory, time and rows. Values are bound, never written into the SQL text.
Functions here block for up to TIMEOUT_S: call them in a thread. A missing folder is an empty history.
"""

from __future__ import annotations

import logging
import math
import os.path
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from headcount.errors import DataFolderError, QueryError
from headcount.history.hours import HOUR_S, T_MAX_S, T_MIN_S, folder, hour_start
from headcount.history.query_areas import EVERYWHERE, Area
from headcount.history.retention import KEEP_S
from headcount.history.segment_files import is_left_out, leave_out_damaged, segments_of
from headcount.messages.counts import KindCount
from headcount.messages.topics import KINDS, Kind

_log = logging.getLogger(__name__)

THREADS = 2
MEMORY = "512MB"
TIMEOUT_S = 20.0
MAX_ROWS = 100_000
#: Times the limit: this many of the newest rows almost always have enough different fixes. Comparing all takes long.
COPIES = 2
MAX_BUCKETS = 10_000
#: With `at`, a device's last position counts for this long.
LAST_POSITION_S = 900.0
#: Coarse positions, for roles that may see only those: 0.001 degrees (110 m) and 5 minutes.
CELLS_PER_DEG = 1000
SLOT_S = 300
#: A fix is judged `future` when its `t` is later than its `received` by more than this.
FUTURE_S = 60.0
#: Maximum attempts of a query when retention drops an hour that it reads.
ATTEMPTS = 5

#: The rows of a site; a condition follows.
_OF_SITE = "FROM read_parquet($files, hive_partitioning = false) WHERE site = $site AND"

T = TypeVar("T")


class CountSummary(msgspec.Struct, frozen=True):
    """A zone's count of one kind over a bucket of time."""

    count: int  # at the bucket's last stored instant
    min: int
    max: int
    mean: float


class CountBucket(msgspec.Struct, frozen=True):
    """The instants in (at - step, at] within the span of the query."""

    at: float  # Unix seconds, a multiple of the step
    person: CountSummary
    vehicle: CountSummary


class ZoneCountRow(msgspec.Struct, frozen=True):
    """A zone's counts at one instant."""

    zone: str
    person: KindCount
    vehicle: KindCount


class StoredFix(msgspec.Struct, frozen=True):
    """A stored fix."""

    device: str  # pseudonym of the day
    kind: Kind
    t: float  # Unix seconds, event time, whole microseconds
    lat: float  # degrees, 7 decimals
    lon: float
    acc: float  # metres, 0 = unknown
    verdict: str


class CellCount(msgspec.Struct, frozen=True):
    """A cell of the grid within a slot of time."""

    kind: Kind
    t: float  # Unix seconds, the slot's beginning
    south: float  # degrees, the cell's edges; the others are 1 / CELLS_PER_DEG further
    west: float
    devices: int  # different ones


def zones_history(
    data: Path, zones: Sequence[str], from_s: float, to_s: float, step_s: float, *, site: str
) -> dict[str, list[CountBucket]]:
    """The counts of a site's zones with from <= at <= to, summed up in buckets of `step_s`, oldest first.

    Buckets end at multiples of the step, so the same bucket is the same in every answer; those
    without a stored instant are left out, and so are instants that some partition never reported.

    Raises:
        QueryError: the times or the step make no sense, or would give more than MAX_BUCKETS.
        DataFolderError: a segment can't be read.
    """
    start, end = _moment("from", from_s), _moment("to", to_s)
    if not 1.0 <= step_s <= KEEP_S:
        raise QueryError("step", f"{step_s:g} s is not between 1 s and {KEEP_S} s")
    if end < start:
        raise QueryError("to", "is before from")
    if (to_s - from_s) / step_s > MAX_BUCKETS:
        raise QueryError("step", f"gives more than {MAX_BUCKETS} buckets; take a longer one")
    numbers = ", ".join(
        f'arg_max({kind}_count, "at"), min({kind}_count), max({kind}_count), avg({kind}_count)'
        for kind in KINDS
    )
    sql = f"""
        SELECT zone, (epoch_us("at") + $step - 1) // $step * $step AS bucket, {numbers}
        {_OF_SITE} list_contains($zones, zone) AND "at" BETWEEN $start AND $end AND partitions >= partitions_total
        GROUP BY zone, bucket ORDER BY bucket
    """
    values = {"site": site, "step": round(step_s * 1e6), "zones": list(zones), "start": start, "end": end}
    rows = _run(data, "counts", (from_s, to_s), lambda con, files: _rows(con, sql, files, values))
    found: dict[str, list[CountBucket]] = {zone: [] for zone in zones}
    for r in rows or []:
        found[r[0]].append(CountBucket(r[1] / 1e6, CountSummary(*r[2:6]), CountSummary(*r[6:10])))
    return found


def counts_at(data: Path, at_s: float, *, site: str) -> tuple[float, list[ZoneCountRow]] | None:
    """The newest stored counts of a site at or before `at_s`, reported by all partitions, at most 24 h older.

    Returns:
        The instant found and its zones in the order of the site file; None where there is none.

    Raises:
        QueryError: `at_s` is not a valid time.
        DataFolderError: a segment can't be read.
    """
    at = _moment("at", at_s)
    oldest = max(at - timedelta(seconds=KEEP_S), datetime.fromtimestamp(0, UTC))
    columns = ", ".join(f"{kind}_{number}" for kind in KINDS for number in KindCount.__struct_fields__)
    source = f'{_OF_SITE} partitions >= partitions_total AND "at"'
    newest = f'SELECT max(epoch_us("at")) {source} BETWEEN $oldest AND $at'
    numbers = f"SELECT zone, {columns} {source} = make_timestamptz($found)"  # our own names only

    def read(con: Any, files: list[str]) -> tuple[float, list[ZoneCountRow]] | None:
        for _, names in groupby(reversed(files), os.path.dirname):
            hour = sorted(names)
            found = _rows(con, newest, hour, {"site": site, "oldest": oldest, "at": at})[0][0]
            if found is not None:
                rows = _rows(con, numbers, hour, {"site": site, "found": found})
                return found / 1e6, [ZoneCountRow(r[0], KindCount(*r[1:5]), KindCount(*r[5:9])) for r in rows]
        return None

    return _run(data, "counts", (at_s - KEEP_S, at_s), read)


def counts_on_grid(
    data: Path, from_s: float, to_s: float, step_s: float, *, site: str
) -> dict[float, dict[str, tuple[int, int]]]:
    """The counts of all zones of a site (people, vehicles) at the stored multiples of `step_s` with from <= at <= to.

    Instants that some partition never reported are left out.

    Raises:
        QueryError: the times make no sense, or would give more than MAX_BUCKETS instants.
        DataFolderError: a segment can't be read.
    """
    start, end = _moment("from", from_s), _moment("to", to_s)
    if (to_s - from_s) / step_s > MAX_BUCKETS:
        raise QueryError("step", f"gives more than {MAX_BUCKETS} instants; take a longer one")
    numbers = ", ".join(f"{kind}_count" for kind in KINDS)
    sql = f"""
        SELECT epoch_us("at"), zone, {numbers} {_OF_SITE} "at" BETWEEN $start AND $end
            AND epoch_us("at") % $step = 0 AND partitions >= partitions_total
    """
    values = {"site": site, "step": round(step_s * 1e6), "start": start, "end": end}
    rows = _run(data, "counts", (from_s, to_s), lambda con, files: _rows(con, sql, files, values))
    found: dict[float, dict[str, tuple[int, int]]] = {}
    for at_us, zone, person, vehicle in rows or []:
        found.setdefault(at_us / 1e6, {})[zone] = (person, vehicle)
    return found


def fixes(
    data: Path,
    *,
    site: str,
    area: Area = EVERYWHERE,
    from_s: float | None = None,
    to_s: float | None = None,
    at_s: float | None = None,
    limit: int = 1000,
    kinds: Sequence[Kind] = KINDS,
    devices: Sequence[str] | None = None,
) -> list[StoredFix]:
    """Stored fixes in an area and a span of event time, newest first; edges count as inside.

    A fix that was delivered again is answered once.

    Args:
        data: the data folder.
        site: the id of the site on which they were counted.
        area: of the positions.
        from_s: event time, Unix seconds, inclusive.
        to_s: the same for the end.
        at_s: instead of from and to: each device's last position at or before it, at most
            LAST_POSITION_S old; the area then selects among those positions.
        limit: rows at most (1 to MAX_ROWS), the newest ones.
        kinds: the kinds wanted.
        devices: only these pseudonyms, all of one device.

    Raises:
        QueryError: a parameter makes no sense, or the answer takes too long or too much memory.
        DataFolderError: a segment can't be read.
    """
    if at_s is not None:
        if (from_s, to_s) != (None, None):
            raise QueryError("at", "can't be combined with from and to")
        from_s, to_s = at_s - LAST_POSITION_S, at_s
    start = _moment("from", from_s) if from_s is not None else datetime.fromtimestamp(0, UTC)
    end = _moment("to", to_s) if to_s is not None else datetime.max.replace(tzinfo=UTC)
    values = {"site": site, "start": start, "end": end, "kinds": list(kinds), "limit": limit}
    values |= {} if devices is None else {"devices": list(devices)}
    # of rows that are one fix, the one that was received first; a device has other pseudonyms on other days
    same = "kind, t, lat, lon" if devices is not None else "kind, device, t, lat, lon"
    last = "QUALIFY row_number() OVER (PARTITION BY kind, device ORDER BY t DESC, seq) = 1"
    sql = f"""
        WITH spanned AS (
            SELECT device, kind, t, lat, lon, acc, verdict, partition, seq
            {_OF_SITE} t BETWEEN $start AND $end AND list_contains($kinds, kind)
            {"" if devices is None else "AND list_contains($devices, device)"}
            {"" if at_s is None else last}
        ), found AS (
            SELECT * FROM spanned WHERE {area.condition} ORDER BY t DESC, partition, seq LIMIT $rows
        ), single AS (
            SELECT * FROM found QUALIFY row_number() OVER (PARTITION BY {same} ORDER BY partition, seq) = 1
        )
        SELECT device, kind, epoch_us(t), lat::DOUBLE, lon::DOUBLE, acc, verdict, (SELECT count(*) FROM found)
        FROM single ORDER BY t DESC, partition, seq LIMIT $limit
    """  # noqa: S608  the area's condition is a fixed text
    # A row may be received long after its event time, but at most FUTURE_S before it (rule 1, `future`).
    received_s = None if from_s is None else from_s - FUTURE_S
    rows = _in_area(data, area, received_s, sql, values | {"rows": COPIES * limit})
    if rows and len(rows) < limit and rows[0][7] == COPIES * limit:  # hidden by copies: compare all
        rows = _in_area(data, area, received_s, sql, values | {"rows": 2**62})
    return [StoredFix(r[0], r[1], r[2] / 1e6, *r[3:7]) for r in rows]


def cells(
    data: Path,
    *,
    site: str,
    k: int,
    area: Area = EVERYWHERE,
    from_s: float,
    to_s: float,
    limit: int = 1000,
    kinds: Sequence[Kind] = KINDS,
) -> list[CellCount]:
    """The number of devices with accepted fixes in each cell and slot of time, where it is k or more.

    No query reveals parts of a cell: an area selects the cells that overlap it as a whole, and a span the
    slots that begin in it.

    Args:
        data: the data folder.
        site: the id of the site.
        k: cells with fewer different devices of a kind within a slot are left out.
        area: of cells that overlap it.
        from_s: Unix seconds, inclusive.
        to_s: the end, exclusive.
        limit: cells at most, the newest.
        kinds: the kinds wanted.

    Raises:
        QueryError: a parameter makes no sense, or the answer takes too long or too much memory.
        DataFolderError: a segment can't be read.
    """
    area = area.of_cells(1 / CELLS_PER_DEG)
    first, last = math.ceil(from_s / SLOT_S), math.ceil(to_s / SLOT_S)
    start, end = _moment("from", max(first * SLOT_S, 0)), _moment("to", last * SLOT_S)
    sql = f"""
        WITH counted AS (
            SELECT kind, epoch_us(t) // {SLOT_S * 10**6} AS slot,
                floor(lat::DOUBLE * {CELLS_PER_DEG})::INTEGER AS north,
                floor(lon::DOUBLE * {CELLS_PER_DEG})::INTEGER AS east, count(DISTINCT device) AS devices
            {_OF_SITE} t >= $start AND t < $end AND list_contains($kinds, kind) AND verdict = 'accepted'
            GROUP BY ALL HAVING count(DISTINCT device) >= $k
        ), middles AS (
            SELECT *, (north + 0.5) / {CELLS_PER_DEG} AS lat, (east + 0.5) / {CELLS_PER_DEG} AS lon
            FROM counted
        )
        SELECT kind, slot, north, east, devices FROM middles
        WHERE {area.condition} ORDER BY slot DESC, devices DESC, north, east, kind LIMIT $limit
    """  # noqa: S608  our own numbers, and the area's condition
    values = {"site": site, "start": start, "end": end, "kinds": list(kinds), "k": k, "limit": limit}
    rows = _in_area(data, area, first * SLOT_S - FUTURE_S, sql, values)
    return [CellCount(r[0], r[1] * SLOT_S, r[2] / CELLS_PER_DEG, r[3] / CELLS_PER_DEG, r[4]) for r in rows]


def _in_area(
    data: Path, area: Area, from_s: float | None, sql: str, values: dict[str, Any]
) -> list[tuple[Any, ...]]:
    """The rows of a query on the fixes of an area that were received at or after `from_s`."""
    if not 1 <= values["limit"] <= MAX_ROWS:
        raise QueryError("limit", f"{values['limit']} is not between 1 and {MAX_ROWS}")

    def read(con: Any, files: list[str]) -> list[tuple[Any, ...]]:
        area.register(con)
        return _rows(con, sql, files, values | area.values)

    return _run(data, "fixes", (from_s, None), read) or []


def _run(
    data: Path, kind: str, span_s: tuple[float | None, float | None], read: Callable[[Any, list[str]], T]
) -> T | None:
    """Run a query on the segments of the hours of a span; None if there are none.

    Retention may drop an hour between listing and reading; then the query runs again without that hour. A
    segment that cannot be read is left out, and logged once.
    """
    import duckdb  # noqa: PLC0415  # only processes that run a query pay for it

    for attempt in range(1, ATTEMPTS + 1):
        files = [name for name in _files(folder(data) / kind, *span_s) if not is_left_out(name)]
        if not files:
            return None
        try:
            with _connection(data) as con:
                return read(con, files)
        except duckdb.Error as error:
            is_complete = all(Path(name).exists() for name in files)
            if attempt == ATTEMPTS or (is_complete and not leave_out_damaged(files)):
                raise DataFolderError(
                    str(folder(data) / kind),
                    f"a query fails though every segment can be read: {error}",
                    "Run `headcount doctor`, and report the error if the disk is sound.",
                ) from error
    return None


def _files(root: Path, from_s: float | None, to_s: float | None) -> list[str]:
    """The segments of the hours that touch a span, oldest first."""
    if not root.is_dir():
        return []
    files: list[str] = []
    for hour in sorted(root.iterdir()):
        start = hour_start(hour.name)
        if start is None or (to_s is not None and start > to_s):
            continue
        if from_s is None or start + HOUR_S > from_s:
            files.extend(map(str, segments_of(hour)))
    return files


@contextmanager
def _connection(data: Path) -> Iterator[Any]:
    import duckdb  # noqa: PLC0415  # only processes that run a query pay for it

    settings: dict[str, Any] = {"threads": THREADS, "memory_limit": MEMORY}
    settings["autoinstall_known_extensions"] = False
    with duckdb.connect(":memory:", config=settings) as con:
        con.execute("SET allowed_directories = $folders", {"folders": [str(folder(data).absolute())]})
        for setting in ("temp_directory = ''", "enable_external_access = false", "lock_configuration = true"):
            con.execute(f"SET {setting}")
        clock = threading.Timer(TIMEOUT_S, con.interrupt)
        clock.daemon = True
        clock.start()
        try:
            yield con
        except duckdb.InterruptException as error:
            raise QueryError("query", f"takes longer than {TIMEOUT_S:g} s; ask for a shorter span") from error
        except duckdb.OutOfMemoryException as error:
            raise QueryError("query", f"needs more than {MEMORY}; ask for a shorter span") from error
        finally:
            clock.cancel()


def _rows(con: Any, sql: str, files: list[str], values: dict[str, Any]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = con.execute(sql, {"files": files, **values}).fetchall()
    return found


def _moment(parameter: str, t_s: float) -> datetime:
    """Unix seconds as a bindable time, exact to the microsecond."""
    if not T_MIN_S <= t_s <= T_MAX_S:
        raise QueryError(parameter, f"{t_s} is not a time in seconds since 1970")
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=round(t_s * 1e6))
