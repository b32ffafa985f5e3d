"""The generated day in PostgreSQL: with PostGIS, TimescaleDB and MobilityDB, each in its own way.

The tables have the columns that the queries return; headcount's segments have `received`, `partition` and `seq`
besides. Rows are loaded with binary COPY. Positions are compared as in headcount: boxes exactly, polygons with
GEOS in degrees, distances on the sphere.
"""

# ruff: noqa: S608  the parts of the SQL are fixed texts

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import psycopg
import shapely
from numpy.typing import NDArray

from headcount.history.buffer import CountRows, StoredColumns
from headcount.history.hours import HOUR_S
from headcount.lab.figures.generated_day import GeneratedHour
from headcount.lab.figures.history_questions import (
    LAST_POSITION_US,
    NEAREST,
    PAGE,
    STEP_S,
    Bucket,
    FixKey,
    Question,
)

#: Postgres counts microseconds from 2000-01-01.
EPOCH_US = 946_684_800 * 10**6
_HEADER, _TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_COUNTS = "zone_counts (at timestamptz, zone text, person int, vehicle int)"
#: Rows of a COPY that are made together.
_CHUNK_ROWS = 500_000


def _instant(name: str) -> str:
    return f"(timestamptz '1970-01-01 00:00:00+00' + %({name})s * interval '1 microsecond')"


def _values(question: Question, at_us: int = 0) -> dict[str, Any]:
    west, south, east, north = question.box
    lat, lon, radius_m = question.near
    # a box around the circle, a little larger than needed
    half = radius_m / 111_000
    wide = half / np.cos(np.radians(lat))
    return {
        "west": west,
        "south": south,
        "east": east,
        "north": north,
        "polygon": shapely.to_wkb(question.polygon),
        "lat": lat,
        "lon": lon,
        "radius_m": radius_m,
        "half": half,
        "wide": float(wide),
        "at": at_us,
        "since": at_us - LAST_POSITION_US,
        "device": np.uint64(question.device).astype(np.int64).item(),
        "zone": question.zone,
        "from": question.from_us,
        "to": question.to_us,
    }


class Database:
    """A database with the generated day; the subclasses differ in tables and in SQL."""

    name: ClassVar[str]
    extensions: ClassVar[tuple[str, ...]]
    preload: ClassVar[str] = ""
    tables: ClassVar[tuple[str, ...]]
    #: SQL by query.
    sql: ClassVar[dict[str, str]]

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        connection.prepare_threshold = 0
        for extension in self.extensions:
            self.run(f"CREATE EXTENSION {extension}")
        for table in (*self.tables, f"CREATE UNLOGGED TABLE {_COUNTS}"):
            self.run(table)

    def run(self, sql: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement; the rows, if it has some."""
        with self.connection.cursor(binary=values is not None) as cursor:
            cursor.execute(sql.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def load(self, hour: GeneratedHour) -> None:
        """Add an hour of rows."""
        raise NotImplementedError

    def finish(self) -> None:
        """Create what is created after a load, and analyze."""
        self.run("CREATE INDEX ON zone_counts (zone, at)")
        self.run("VACUUM ANALYZE")

    def size(self) -> int:
        """Bytes of the fixes, with their indices."""
        raise NotImplementedError

    def load_counts(self, rows: CountRows) -> None:
        """Add counts."""
        at_us = np.rint(rows.at_s * 1e6).astype(np.int64).tolist()
        with self.connection.cursor().copy("COPY zone_counts FROM STDIN") as copy:
            for at, zone, values in zip(at_us, rows.zone, rows.values[:, :, 0].tolist(), strict=True):
                copy.write_row((np.datetime64(at, "us").item().isoformat() + "Z", zone, *values))

    def copy(self, table: str, columns: dict[str, tuple[str, NDArray[Any]]]) -> None:
        """Load columns with binary COPY.

        Args:
            table: with the columns' names in parentheses.
            columns: by name, the type of a field's bytes and its values.
        """
        fields: list[tuple[str, str]] = [("n", ">i2")]
        for name, (type_, _) in columns.items():
            fields += [(f"{name} length", ">i4"), (name, type_)]
        number = len(next(iter(columns.values()))[1])
        statement = f"COPY {table} FROM STDIN (FORMAT binary)".encode()
        with self.connection.cursor().copy(statement) as copy:
            copy.write(_HEADER)
            for start in range(0, number, _CHUNK_ROWS):
                part = slice(start, start + _CHUNK_ROWS)
                rows = np.zeros(len(range(number)[part]), np.dtype(fields))
                rows["n"] = len(columns)
                for name, (type_, values) in columns.items():
                    rows[f"{name} length"] = np.dtype(type_).itemsize
                    rows[name] = values[part]
                copy.write(rows.tobytes())
            copy.write(_TRAILER)

    # --- queries -------------------------------------------------------------------------------

    def page(self, query: str, question: Question) -> list[FixKey]:
        """The newest fixes: `box`, `polygon` or `near`."""
        return _keys(self.run(self.sql[query], _values(question)))

    def count(self, question: Question) -> int:
        """The number of fixes in the box over the day."""
        return int(self.run(self.sql["count"], _values(question))[0][0])

    def at(self, question: Question, at_us: int) -> list[FixKey]:
        """The positions in the box at an instant."""
        return _keys(self.run(self.sql["at"], _values(question, at_us)))

    def nearest(self, question: Question, at_us: int) -> list[FixKey]:
        """The devices nearest to a point at an instant."""
        return _keys(self.run(self.sql["nearest"], _values(question, at_us)))

    def track(self, question: Question) -> list[FixKey]:
        """All fixes of a device."""
        return _keys(self.run(self.sql["track"], _values(question)))

    def counts(self, question: Question) -> list[Bucket]:
        """The counts of a zone over the day."""
        bucket = f"date_bin('{STEP_S:.0f} s', at - interval '1 us', 'epoch') + interval '{STEP_S:.0f} s'"
        numbers = ", ".join(
            f"(array_agg({kind} ORDER BY at DESC))[1], min({kind}), max({kind}), avg({kind})::float8"
            for kind in ("person", "vehicle")
        )
        sql = f"""SELECT (extract(epoch FROM {bucket}) * 1000000)::int8 AS bucket, {numbers} FROM zone_counts
            WHERE zone = %(zone)s AND at BETWEEN {_instant("from")} AND {_instant("to")} GROUP BY 1 ORDER BY 1"""
        return self.run(sql, _values(question))


def _keys(rows: Sequence[tuple[Any, ...]]) -> list[FixKey]:
    return [(row[2], row[0] % 2**64) for row in rows]


def _common(fixes: StoredColumns) -> dict[str, tuple[str, NDArray[Any]]]:
    return {
        "t": (">i8", np.rint(fixes["t"] * 1e6).astype(np.int64) - EPOCH_US),
        "device": (">i8", fixes["device"].view(np.int64)),
        "kind": (">i2", fixes["kind"]),
        "acc": (">f4", fixes["acc"]),
        "verdict": (">i2", fixes["verdict"]),
    }


def _points(fixes: StoredColumns) -> NDArray[Any]:
    """Positions as extended WKB with SRID 4326."""
    point = np.zeros(
        len(fixes["t"]), [("order", "u1"), ("type", "<u4"), ("srid", "<u4"), ("x", "<f8"), ("y", "<f8")]
    )
    point["order"], point["type"], point["srid"] = 1, 0x20000001, 4326
    point["x"], point["y"] = fixes["lon"], fixes["lat"]
    return point.view("V25").ravel()


_T_US = "(extract(epoch FROM t) * 1000000)::int8"
_POINT = "ST_SetSRID(ST_MakePoint(%(lon)s, %(lat)s), 4326)"
_POLYGON = "ST_GeomFromWKB(%(polygon)s, 4326)"
_AROUND = "%(lon)s - %(wide)s, %(lat)s - %(half)s, %(lon)s + %(wide)s, %(lat)s + %(half)s"


class PostGis(Database):
    """Points in a table partitioned by hour, in the order of cells; GiST, and B-trees for devices and times."""

    name = "PostGIS"
    extensions: ClassVar[tuple[str, ...]] = ("postgis",)
    preload = "postgis-3"
    tables: ClassVar[tuple[str, ...]] = (
        """CREATE TABLE fixes (t timestamptz NOT NULL, device int8 NOT NULL, geom geometry(Point, 4326) NOT NULL,
            acc float4, kind int2, verdict int2) PARTITION BY RANGE (t)""",
    )
    indices: ClassVar[tuple[str, ...]] = ("USING gist (geom)", "(device, t)", "(t)")
    _row = f"device, kind, {_T_US}, ST_X(geom), ST_Y(geom), acc, verdict"
    _in_box = "ST_Intersects(geom, ST_MakeEnvelope(%(west)s, %(south)s, %(east)s, %(north)s, 4326))"
    _around = f"geom && ST_MakeEnvelope({_AROUND}, 4326)"
    _far = f"ST_DistanceSphere(geom, {_POINT})"
    #: Hours from the newest back, until a page is full.
    _newest = f"""SELECT found.* FROM
        generate_series(date_trunc('hour', {_instant("to")}), {_instant("from")}, interval '-1 hour') AS hour
        CROSS JOIN LATERAL (SELECT {_row} FROM fixes WHERE t >= hour AND t < hour + interval '1 hour' AND {{where}}
            ORDER BY t DESC LIMIT {PAGE}) AS found LIMIT {PAGE}"""
    _span = f"t > {_instant('since')} AND t <= {_instant('at')}"
    #: The last positions of devices that were in an area within the span.
    _last = f"""(SELECT DISTINCT device FROM fixes WHERE {{where}} AND {_span}) AS present
        CROSS JOIN LATERAL (SELECT t, kind, geom, acc, verdict FROM fixes
            WHERE fixes.device = present.device AND {_span} ORDER BY t DESC LIMIT 1) AS last"""
    sql: ClassVar = {
        "box": _newest.format(where=_in_box),
        "polygon": _newest.format(where=f"ST_Intersects(geom, {_POLYGON})"),
        "near": _newest.format(where=f"{_around} AND {_far} <= %(radius_m)s"),
        "count": f"SELECT count(*) FROM fixes WHERE {_in_box}",
        "at": f"SELECT {_row} FROM {_last.format(where=_in_box)} WHERE {_in_box}",
        "nearest": f"""SELECT {_row} FROM {_last.format(where=_around)} WHERE {_far} <= %(radius_m)s
            ORDER BY {_far} LIMIT {NEAREST}""",
        "track": f"SELECT {_row} FROM fixes WHERE device = %(device)s ORDER BY t DESC",
    }

    def load(self, hour: GeneratedHour) -> None:
        """A partition of its own: COPY in the transaction that creates it writes no log."""
        start_s = float(hour.fixes["received"][0] // HOUR_S * HOUR_S)
        name = f"fixes_{start_s:.0f}"
        with self.connection.transaction():
            self.run(
                f"""CREATE TABLE {name} PARTITION OF fixes FOR VALUES
                    FROM (to_timestamp({start_s})) TO (to_timestamp({start_s + HOUR_S}))"""
            )
            self.copy_points(name, hour.fixes)
        for index in self.indices:
            self.run(f"CREATE INDEX ON {name} {index}")

    def copy_points(self, table: str, fixes: StoredColumns) -> None:
        """Copy fixes by cell and device: the order that CLUSTER would make."""
        lat, lon = (np.floor(fixes[name] * 1e3).astype(np.int64) for name in ("lat", "lon"))
        order = np.lexsort((fixes["t"], fixes["device"], lon, lat))
        fixes = {column: values[order] for column, values in fixes.items()}
        columns = _common(fixes) | {"geom": ("V25", _points(fixes))}
        self.copy(f"{table} ({', '.join(columns)})", columns)

    def size(self) -> int:
        """Bytes of the partitions with their indices."""
        return int(
            self.run("SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('fixes')")[0][0]
        )


class Timescale(PostGis):
    """The same in a hypertable with a chunk an hour. Debian's TimescaleDB has no compression, for its licence."""

    name = "TimescaleDB"
    extensions = ("timescaledb", "postgis")
    preload = "timescaledb,postgis-3"
    tables = (
        """CREATE TABLE fixes (t timestamptz NOT NULL, device int8 NOT NULL, geom geometry(Point, 4326) NOT NULL,
            acc float4, kind int2, verdict int2)""",
        "SELECT create_hypertable('fixes', by_range('t', interval '1 hour'), create_default_indexes => false)",
        *(f"CREATE INDEX ON fixes {index}" for index in PostGis.indices),
    )

    def load(self, hour: GeneratedHour) -> None:
        """Copy an hour; the hypertable creates the chunk and its indices."""
        self.copy_points("fixes", hour.fixes)

    def size(self) -> int:
        """Bytes of the chunks with their indices."""
        return int(self.run("SELECT hypertable_size('fixes')")[0][0])


class Mobility(Database):
    """A sequence of positions for each device and hour, with an index over space and time; without `acc` and verdict."""

    name = "MobilityDB"
    extensions = ("postgis", "mobilitydb")
    preload = "postgis-3"
    tables = (
        "CREATE TABLE trips (device int8 NOT NULL, kind int2, hour timestamptz NOT NULL, trip tgeompoint)",
        "CREATE UNLOGGED TABLE fixes (t timestamptz, device int8, kind int2, geom geometry(Point, 4326))",
    )
    _us = "(extract(epoch FROM getTimestamp(fix)) * 1000000)::int8 AS t"
    _row = f"device, kind, {_us}, ST_X(getValue(fix)), ST_Y(getValue(fix))"
    _box = "stboxX(%(west)s, %(south)s, %(east)s, %(north)s, 4326)"
    _around = f"stboxX({_AROUND}, 4326)"
    _in_box = """ST_X(getValue(fix)) BETWEEN %(west)s AND %(east)s
        AND ST_Y(getValue(fix)) BETWEEN %(south)s AND %(north)s"""
    #: Hours from the newest back, until a page is full.
    _newest = f"""SELECT found.* FROM (SELECT DISTINCT hour FROM trips ORDER BY hour DESC) AS hours
        CROSS JOIN LATERAL (SELECT {_row} FROM trips, unnest(instants({{part}})) AS fix
            WHERE trips.hour = hours.hour AND {{where}} ORDER BY t DESC LIMIT {PAGE}) AS found LIMIT {PAGE}"""
    _far = f"ST_DistanceSphere(getValue(fix), {_POINT})"
    _span = f"tstzspan(span({_instant('since')}, {_instant('at')}, false, true))"
    _last = f"""(SELECT DISTINCT ON (device) device, kind, fix FROM (
            SELECT device, kind, endInstant(atTime(trip, {_span})) AS fix FROM trips
            WHERE hour IN (date_trunc('hour', {_instant("since")}), date_trunc('hour', {_instant("at")}))
            AND device IN (SELECT device FROM trips WHERE trip && {{where}} AND trip && {_span})) AS present
        WHERE fix IS NOT NULL ORDER BY device, getTimestamp(fix) DESC) AS last"""
    sql: ClassVar = {
        "box": _newest.format(part=f"atStbox(trip, {_box})", where=f"trip && {_box}"),
        "polygon": _newest.format(part=f"atGeometry(trip, {_POLYGON})", where=f"trip && stbox({_POLYGON})"),
        "near": _newest.format(part="trip", where=f"trip && {_around} AND {_far} <= %(radius_m)s"),
        "count": f"SELECT coalesce(sum(numInstants(atStbox(trip, {_box}))), 0)::int8 FROM trips WHERE trip && {_box}",
        "at": f"SELECT {_row} FROM {_last.format(where=_box)} WHERE {_in_box}",
        "nearest": f"""SELECT {_row} FROM {_last.format(where=_around)} WHERE {_far} <= %(radius_m)s
            ORDER BY {_far} LIMIT {NEAREST}""",
        "track": f"""SELECT {_row} FROM trips, unnest(instants(trip)) AS fix WHERE device = %(device)s
            ORDER BY t DESC""",
    }

    def load(self, hour: GeneratedHour) -> None:
        """Copy an hour, and make sequences of it."""
        fixes = hour.fixes
        order = np.lexsort((fixes["t"], fixes["device"]))
        fixes = {column: values[order] for column, values in fixes.items()}
        common = _common(fixes)
        columns = {name: common[name] for name in ("t", "device", "kind")} | {"geom": ("V25", _points(fixes))}
        self.copy(f"fixes ({', '.join(columns)})", columns)
        self.run(
            """INSERT INTO trips SELECT device, kind, date_trunc('hour', min(t)),
                tgeompointSeq(array_agg(tgeompoint(geom, t) ORDER BY t), 'discrete') FROM fixes GROUP BY device, kind"""
        )
        self.run("TRUNCATE fixes")

    def finish(self) -> None:
        """Index the sequences."""
        self.run("CREATE INDEX ON trips USING gist (trip)")
        self.run("CREATE INDEX ON trips (device, hour)")
        self.run("CREATE INDEX ON trips (hour)")
        super().finish()

    def size(self) -> int:
        """Bytes of the sequences with their indices."""
        return int(self.run("SELECT pg_total_relation_size('trips')")[0][0])


DATABASES: tuple[type[Database], ...] = (PostGis, Timescale, Mobility)
