"""Recorded fixes: CSV, NDJSON and Parquet files as columns, in the order of the file.

A broken row keeps its place with `t_s` NaN and a problem: a replay judges it `malformed`, and `publish` skips
it. Only a file that is not a trace (unreadable, a column missing) is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from headcount.counting.fix_columns import B1, F8, I4, I8, U1
from headcount.errors import TraceError
from headcount.messages.topics import ID, KINDS, Kind

NUMBER_COLUMNS = ("t", "lat", "lon", "acc", "vel", "received")
TEXT_COLUMNS = ("device", "kind")
REQUIRED_COLUMNS = ("t", "device", "lat", "lon")

#: Problems of a row; the index is the code in `Trace.problem`.
PROBLEMS = (
    "",
    "t, lat or lon is missing or not a finite number",
    "acc, vel or received is not a number",
    "the device is not 1 to 64 characters from A-Z a-z 0-9 _ -",
    "the kind is neither person nor vehicle",
    "the row has more or fewer fields than the header, or is not a JSON object",
)
POSITION, NUMBER, DEVICE, KIND, FORM = 1, 2, 3, 4, 5


@dataclass(frozen=True, slots=True)
class Trace:
    """n recorded fixes in the order of the file. All arrays have length n.

    A row with a problem has `t_s` NaN (and `device` -1 if its id is not valid).
    """

    source: str
    devices: tuple[str, ...]  # all device ids of the file, in order of first appearance
    device: I4  # index into `devices`, -1 = no usable id
    kind: U1  # index into topics.KINDS
    t_s: F8  # Unix seconds, event time; NaN = the row is broken
    received_s: F8 | None  # Unix seconds; None = no such column; NaN = empty
    lat_deg: F8
    lon_deg: F8
    acc_m: F8  # 0 = unknown
    vel_mps: F8  # NaN = unknown
    problem: U1  # index into PROBLEMS, 0 = none

    def __len__(self) -> int:
        return len(self.t_s)

    def errors(self) -> Iterator[TraceError]:
        """The problem of each broken row, in order; row 1 is the first after the header."""
        for row in np.flatnonzero(self.problem):
            yield TraceError(self.source, f"row {row + 1}", PROBLEMS[self.problem[row]])


def read_trace(path: str | Path, kind: Kind | None = None) -> Trace:
    """Read a whole trace file; its ending determines the format.

    Args:
        path: `.csv`, `.ndjson` or `.jsonl` (each also with `.gz`), or `.parquet`. Columns
            `t,device,kind,lat,lon[,acc,vel,received]` in any order; others are ignored.
        kind: the kind of rows without one.

    Raises:
        TraceError: the file cannot be read, is not of its format, or lacks a column.
    """
    path = Path(path)
    name = path.name.lower().removesuffix(".gz")
    readers = {".csv": _csv, ".ndjson": _ndjson, ".jsonl": _ndjson, ".parquet": _parquet}
    reader = readers.get(Path(name).suffix)
    if reader is None:
        raise TraceError(str(path), "name", f"the ending is none of {', '.join(readers)}")
    try:
        table, bad_rows = reader(path)
    except OSError as error:
        raise TraceError(str(path), "file", f"cannot be read: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise TraceError(str(path), "file", f"is not a valid {name.rsplit('.')[-1]} file: {error}") from error
    return _trace(str(path), table, bad_rows, kind)


# --- formats: a table of the known columns, and the malformed rows ---


def _csv(path: Path) -> tuple[pa.Table, list[int]]:
    bad: list[int] = []

    def note(row: pyarrow.csv.InvalidRow) -> str:
        bad.append(row.number - 2)  # counted from 1, the header included
        return "skip"

    # bytes, not numbers: one broken value must not break the column; one thread: rows are numbered
    table = pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=note),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(NUMBER_COLUMNS + TEXT_COLUMNS, pa.binary()), check_utf8=False
        ),
    )
    return _with_gaps(_known_columns(table), bad), bad


def _with_gaps(table: pa.Table, rows: list[int]) -> pa.Table:
    """Insert empty rows at these places."""
    places = np.insert(
        np.arange(table.num_rows), [row - before for before, row in enumerate(rows)], np.full(len(rows), -1)
    )
    return table.take(pa.array(places, mask=places < 0))


def _parquet(path: Path) -> tuple[pa.Table, list[int]]:
    return _known_columns(pyarrow.parquet.read_table(path)), []


class _TraceRow(msgspec.Struct, gc=False):
    t: float | None = None
    device: str | int | None = None
    kind: str | None = None
    lat: float | None = None
    lon: float | None = None
    acc: float | None = None
    vel: float | None = None
    received: float | None = None


def _ndjson(path: Path) -> tuple[pa.Table, list[int]]:
    with pa.input_stream(str(path), compression="detect") as stream:
        data: bytes = stream.read()
    bad: list[int] = []
    try:
        rows = msgspec.json.Decoder(_TraceRow).decode_lines(data)
    except (msgspec.MsgspecError, ValueError):
        rows = list(_careful_rows(data, bad))
    columns: dict[str, Any] = {}
    for name in NUMBER_COLUMNS:
        column = [getattr(row, name) for row in rows]
        if name in REQUIRED_COLUMNS or any(value is not None for value in column):
            columns[name] = pa.array(column, pa.float64())
    for name in TEXT_COLUMNS:
        columns[name] = pa.array(
            [None if (value := getattr(row, name)) is None else str(value).encode() for row in rows],
            pa.binary(),
        )
    if rows and len(bad) < len(rows):
        empty = [name for name in REQUIRED_COLUMNS if columns[name].null_count == len(rows)]
        if empty:
            raise TraceError(str(path), f"column {empty[0]}", "no row has it")
    return pa.table(columns), bad


def _careful_rows(data: bytes, bad: list[int]) -> Iterator[_TraceRow]:
    """Decode row by row; an invalid line becomes an empty row, with its index in `bad`."""
    decoder = msgspec.json.Decoder(_TraceRow)
    lines = (line for line in data.split(b"\n") if line.strip())
    for index, line in enumerate(lines):
        try:
            yield decoder.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            bad.append(index)
            yield _TraceRow()


def _known_columns(table: pa.Table) -> pa.Table:
    return table.select([name for name in table.column_names if name in NUMBER_COLUMNS + TEXT_COLUMNS])


# --- from the table to columns ------------------------------------------------------------------


def _trace(source: str, table: pa.Table, bad_rows: list[int], kind: Kind | None) -> Trace:
    for name in REQUIRED_COLUMNS:
        if name not in table.column_names:
            raise TraceError(source, f"column {name}", f"is missing; the file has {table.column_names}")
    if "kind" not in table.column_names and kind is None:
        raise TraceError(source, "column kind", "is missing; set the kind of all rows with --kind")
    n = table.num_rows
    problem = np.zeros(n, np.uint8)
    numbers = {name: _numbers(table[name]) for name in NUMBER_COLUMNS if name in table.column_names}
    for name, (_, broken) in numbers.items():
        problem[broken] = POSITION if name in REQUIRED_COLUMNS else NUMBER
    unknown = np.full(n, np.nan)
    values = {name: numbers[name][0] if name in numbers else unknown for name in NUMBER_COLUMNS}
    kinds, kind_broken = _kinds(table, kind)
    problem[kind_broken] = KIND
    devices, device = _devices(table["device"])
    problem[device < 0] = DEVICE
    for name in ("t", "lat", "lon"):
        problem[~np.isfinite(values[name]) & (problem == 0)] = POSITION
    problem[bad_rows] = FORM
    return Trace(
        source=source,
        devices=devices,
        device=device,
        kind=kinds,
        t_s=np.where(problem == 0, values["t"], np.nan),
        received_s=values["received"] if "received" in numbers else None,
        lat_deg=values["lat"],
        lon_deg=values["lon"],
        acc_m=np.where(np.isnan(values["acc"]), 0.0, values["acc"]),
        vel_mps=values["vel"],
        problem=problem,
    )


def _numbers(column: pa.ChunkedArray) -> tuple[F8, B1]:
    """The column as float64, NaN for empty values, and the rows with something else."""
    if pa.types.is_timestamp(column.type):
        column = pc.divide(pc.cast(pc.cast(column, pa.timestamp("us", column.type.tz)), pa.int64()), 1e6)
    if not _is_text(column.type):
        try:
            plain = pc.cast(column, pa.float64(), safe=False).combine_chunks()
        except pa.ArrowException:
            return np.full(len(column), np.nan), np.ones(len(column), np.bool_)
        return np.asarray(plain.to_numpy(zero_copy_only=False), np.float64), np.zeros(len(column), np.bool_)
    try:
        texts = pc.cast(column, pa.string())
        texts = pc.if_else(pc.equal(texts, ""), None, texts)
        floats = pc.cast(texts, pa.float64()).combine_chunks().to_numpy(zero_copy_only=False)
        return np.asarray(floats, np.float64), np.zeros(len(column), np.bool_)
    except pa.ArrowException:
        parsed = [_number(value) for value in pc.cast(column, pa.binary()).to_pylist()]
        broken = np.array([value is None for value in parsed], np.bool_)
        return np.array([np.nan if value is None else value for value in parsed]), broken


def _number(text: bytes | None) -> float | None:
    """The number, NaN for an empty value, None for anything else."""
    if text is None or not text.strip():
        return float("nan")
    try:
        return None if b"_" in text else float(text)
    except ValueError:
        return None


def _is_text(type_: pa.DataType) -> bool:
    return type_ in {pa.string(), pa.large_string(), pa.binary(), pa.large_binary()}


def _distinct_words(column: pa.ChunkedArray) -> tuple[list[str], I8]:
    """The distinct words of a column in order of appearance, and each row's index; empty is ""."""
    if not _is_text(column.type):
        column = pc.cast(column, pa.string())
    coded = pc.dictionary_encode(pc.fill_null(pc.cast(column, pa.binary()), b"")).combine_chunks()
    words = [word.decode(errors="replace") for word in coded.dictionary.to_pylist()]
    return words, np.asarray(coded.indices.to_numpy(zero_copy_only=False), np.int64)


def _devices(column: pa.ChunkedArray) -> tuple[tuple[str, ...], I4]:
    words, rows = _distinct_words(column)
    good = [word for word in words if ID.fullmatch(word)]
    place = {word: index for index, word in enumerate(good)}
    codes = np.array([place.get(word, -1) for word in words], np.int32)
    return tuple(good), codes[rows] if len(rows) else np.zeros(0, np.int32)


def _kinds(table: pa.Table, default: Kind | None) -> tuple[U1, B1]:
    if "kind" not in table.column_names:
        code = 0 if default is None else KINDS.index(default)
        return np.full(table.num_rows, code, np.uint8), np.zeros(table.num_rows, np.bool_)
    words, rows = _distinct_words(table["kind"])
    named = [default if word == "" else word for word in words]
    codes = np.array([KINDS.index(word) if word in KINDS else 255 for word in named], np.uint8)
    kinds = codes[rows] if len(rows) else np.zeros(0, np.uint8)
    broken = kinds == 255
    return np.where(broken, 0, kinds).astype(np.uint8), broken
