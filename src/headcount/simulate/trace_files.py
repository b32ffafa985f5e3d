"""Files of recorded fixes → a table of the known columns, and the rows that have another form.

Other formats are read by `geo_files`. CSV may be in UTF-16, be compressed under any name, have another separator than a comma, and any case of names
in its header. In NDJSON, each line is read as leniently as a message of a device.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from headcount.decoding import DecodeError
from headcount.errors import TraceError
from headcount.messages.text_tables import (
    find_separator,
    header_names,
    plain_name,
    shown_header,
    to_utf8,
)
from headcount.messaging.fix_json import read_json, read_object
from headcount.simulate.geo_files import geojson_rows, gpx_rows, point_column, with_positions

NUMBER_COLUMNS = ("t", "lat", "lon", "acc", "vel", "received")
TEXT_COLUMNS = ("device", "kind")
REQUIRED_COLUMNS = ("t", "device", "lat", "lon")
#: Names under which other programs have the columns, for the remedy of an error.
OTHER_NAMES = {
    "t": ("tst", "time", "timestamp", "ts", "datetime", "date", "epoch"),
    "device": ("id", "device_id", "deviceid", "user", "name"),
    "kind": ("type", "class"),
    "lat": ("latitude", "y"),
    "lon": ("lng", "long", "longitude", "x"),
}
_MAX_LINE = 1 << 20
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(slots=True)
class TraceTable:
    """The known columns of a file."""

    table: pa.Table
    malformed: dict[int, str] = field(default_factory=dict)  # rows of another form: index → what it is
    encoding: str = "UTF-8"


def read_table(path: Path) -> TraceTable:
    """Read a file; the ending of its name determines the format.

    Raises:
        TraceError: the file cannot be read, is not of its format, or lacks a column.
    """
    name = path.name.lower().removesuffix(".gz")
    readers = {
        ".csv": _csv,
        ".ndjson": _ndjson,
        ".jsonl": _ndjson,
        ".parquet": _parquet,
        ".geojson": _geojson,
        ".mfjson": _geojson,
        ".gpx": _gpx,
    }
    reader = readers.get(Path(name).suffix)
    if reader is None:
        raise TraceError(str(path), "name", f"the ending is none of {', '.join(readers)}")
    try:
        return reader(path)
    except OSError as error:
        raise TraceError(str(path), "file", f"cannot be read: {error.strerror or error}") from error
    except (pa.ArrowException, EOFError, zlib.error) as error:
        raise TraceError(str(path), "file", f"is not a valid {name.rsplit('.')[-1]} file: {error}") from error


def missing_column(source: str, name: str, names: list[str]) -> TraceError:
    """The error for a column that a file doesn't have."""
    other = next((found for found in names if found in OTHER_NAMES.get(name, ())), None)
    hint = f": rename {other} to {name}" if other else ""
    return TraceError(source, f"column {name}", f"is missing; the header is {shown_header(names)}{hint}")


def _text(path: Path) -> tuple[bytes, str]:
    """The content of a text file, decompressed and in UTF-8, and its encoding."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    elif path.name.lower().endswith(".gz") and data:
        raise TraceError(str(path), "file", "is not compressed with gzip, although its name ends with .gz")
    if data.startswith(b"PK\x03\x04"):
        raise TraceError(str(path), "file", "is a workbook or a zip archive: save or unpack it as CSV")
    try:
        return to_utf8(data)
    except UnicodeDecodeError as error:
        problem = (
            f"is not valid {error.encoding.upper()}: {error.reason} at byte {error.start}; save it as UTF-8"
        )
        raise TraceError(str(path), "file", problem) from None


def _csv(path: Path) -> TraceTable:
    data, encoding = _text(path)
    if not data.isascii():  # pyarrow's handler of invalid rows takes valid UTF-8 only
        data = data.decode(errors="replace").encode()
    if data[:4].lower() == b"sep=":  # a line for Excel
        data = _split_line(data)[1]
    line, rest = _split_line(data)
    header = line.decode(errors="replace")
    separator = find_separator(header, NUMBER_COLUMNS + TEXT_COLUMNS)
    names = header_names(header, separator)
    malformed: dict[int, str] = {}

    def note(row: pyarrow.csv.InvalidRow) -> str:
        found = f"it has {row.actual_columns} fields, the header has {row.expected_columns}"
        malformed[row.number - 2] = found  # counted from 1, the header included
        return "skip"

    # bytes, not numbers: one broken value must not break the column; one thread: rows are numbered
    table = pyarrow.csv.read_csv(
        pa.BufferReader(b"\n".join((separator.join(names).encode(), rest)) if line else data),
        read_options=pyarrow.csv.ReadOptions(use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(delimiter=separator, invalid_row_handler=note),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(NUMBER_COLUMNS + TEXT_COLUMNS, pa.binary()), check_utf8=False
        ),
    )
    return TraceTable(_with_gaps(_known_columns(str(path), table), sorted(malformed)), malformed, encoding)


def _split_line(data: bytes) -> tuple[bytes, bytes]:
    """The first line, and the rest."""
    end = _LINE_END.search(data)
    return (data[: end.start()], data[end.end() :]) if end else (data, b"")


def _with_gaps(table: pa.Table, rows: list[int]) -> pa.Table:
    """Insert empty rows at these places."""
    places = np.insert(
        np.arange(table.num_rows), [row - before for before, row in enumerate(rows)], np.full(len(rows), -1)
    )
    return table.take(pa.array(places, mask=places < 0))


def _parquet(path: Path) -> TraceTable:
    with pyarrow.parquet.ParquetFile(path) as file:
        columns, geo = file.schema_arrow.names, (file.metadata.metadata or {}).get(b"geo")
    names = {name: plain_name(name) for name in columns}
    geometry = None if {"lat", "lon"} <= set(names.values()) else point_column(str(path), geo)
    places = [] if geometry is None else ["lat", "lon"]
    known = _known_names(str(path), [*names.values(), *places])
    # a recording has few texts, many times each
    texts = [name for name in names if names[name] in TEXT_COLUMNS]
    with pyarrow.parquet.ParquetFile(path, read_dictionary=texts, memory_map=True) as file:
        table = file.read([name for name in names if names[name] in known or name == geometry])
    if geometry is not None:
        table = with_positions(table, geometry)
    return TraceTable(
        table.rename_columns([names.get(name, name) for name in table.column_names]).select(known)
    )


def _geojson(path: Path) -> TraceTable:
    data, encoding = _text(path)
    malformed: dict[int, str] = {}
    return _of_rows(path, list(geojson_rows(str(path), data, malformed)), malformed, encoding)


def _gpx(path: Path) -> TraceTable:
    data, encoding = _text(path)
    return _of_rows(path, list(gpx_rows(str(path), data)), {}, encoding)


class _TraceRow(msgspec.Struct, gc=False):
    t: float | None = None
    device: str | int | None = None
    kind: str | None = None
    lat: float | None = None
    lon: float | None = None
    acc: float | None = None
    vel: float | None = None
    received: float | None = None


def _ndjson(path: Path) -> TraceTable:
    data, encoding = _text(path)
    malformed: dict[int, str] = {}
    names = (*NUMBER_COLUMNS, *TEXT_COLUMNS)
    try:
        rows = msgspec.json.Decoder(_TraceRow).decode_lines(data)
        columns = {name: [getattr(row, name) for row in rows] for name in names}
        columns |= {name: _as_bytes(columns[name]) for name in TEXT_COLUMNS}
    except (msgspec.MsgspecError, ValueError):
        return _of_rows(path, list(_careful_rows(data, malformed)), malformed, encoding)
    return _of_columns(path, columns, _careful_rows(data, {}), malformed, encoding)


def _of_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], malformed: dict[int, str], encoding: str
) -> TraceTable:
    """A table of rows with values of any type."""
    columns = {name: _as_bytes([row.get(name) for row in rows]) for name in (*NUMBER_COLUMNS, *TEXT_COLUMNS)}
    return _of_columns(path, columns, rows, malformed, encoding)


def _of_columns(
    path: Path,
    columns: dict[str, list[Any]],
    rows: Iterable[Mapping[str, Any]],
    malformed: dict[int, str],
    encoding: str,
) -> TraceTable:
    filled = {name for name, column in columns.items() if any(value is not None for value in column)}
    missing = [name for name in REQUIRED_COLUMNS if name not in filled]
    if missing and len(malformed) < len(columns["t"]):
        raise missing_column(str(path), missing[0], list(next(filter(None, rows), {})))
    kept = [name for name in columns if name in filled or name in (*REQUIRED_COLUMNS, *TEXT_COLUMNS)]
    return TraceTable(pa.table({name: _array(name, columns[name]) for name in kept}), malformed, encoding)


def _careful_rows(data: bytes, malformed: dict[int, str]) -> Iterator[Mapping[str, Any]]:
    """Decode line by line, with keys in lower case; an invalid line becomes an empty row."""
    lines = (line for line in data.split(b"\n") if line.strip())
    for index, line in enumerate(lines):
        try:
            found = read_object(read_json(line, _MAX_LINE))
            yield {plain_name(key): value for key, value in found.items()}
        except DecodeError as error:
            malformed[index] = error.problem
            yield {}


def _as_bytes(values: list[Any]) -> list[bytes | None]:
    """JSON values as texts; null stays unknown."""
    return [None if value is None else _as_text(value).encode(errors="replace") for value in values]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _array(name: str, values: list[Any]) -> pa.Array:
    is_text = name in TEXT_COLUMNS or any(isinstance(value, bytes) for value in values)
    return pa.array(values, pa.binary() if is_text else pa.float64())


def _known_columns(source: str, table: pa.Table) -> pa.Table:
    return table.select(_known_names(source, table.column_names))


def _known_names(source: str, header: list[str]) -> list[str]:
    """The names in a header that are known."""
    names = [name for name in header if name in NUMBER_COLUMNS + TEXT_COLUMNS]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TraceError(source, f"column {twice}", "is there twice")
    for name in REQUIRED_COLUMNS:
        if name not in names:
            raise missing_column(source, name, header)
    return names
