"""Recorded fixes as columns, in the order of the file.

A broken row keeps its place with `t_s` NaN and a problem: a replay judges it `malformed`, and `publish` skips
it. Only a file that is not a trace (unreadable, a column missing, no usable row) is an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headcount.counting.fix_columns import B1, F8, I4, U1
from headcount.errors import TraceError
from headcount.messages.topics import ID, KINDS, Kind
from headcount.simulate.trace_files import NUMBER_COLUMNS, TraceTable, read_table

#: Columns with times: Unix seconds or ISO 8601.
TIME_COLUMNS = ("t", "received")
#: A later time (the year 5138) is not in seconds.
MAX_T_S = 1e11
#: Problems of a row; the index is the code in `Trace.problem`.
PROBLEMS = (
    "",
    "t, lat or lon is missing or not a finite number",
    "received is not a time",
    "the device is not 1 to 64 characters from A-Z a-z 0-9 _ -",
    "the kind is neither person nor vehicle",
    "the row has another form than the header, or is not a JSON object",
    "t or received is not in seconds since 1970",
)
POSITION, RECEIVED, DEVICE, KIND, FORM, UNIT = 1, 2, 3, 4, 5, 6
#: The exact problem is known for this number of broken rows, the first ones.
MAX_DETAILS = 100
_ID_BYTES = bytes(code for code in range(128) if ID.fullmatch(chr(code)))
_MAX_ID = 64


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
    details: Mapping[int, str] = field(default_factory=dict)  # row → what is wrong with it, exactly
    encoding: str = "UTF-8"

    def __len__(self) -> int:
        return len(self.t_s)

    def part(self, rows: B1) -> Trace:
        """Some rows, by a mask; their problems keep their code, without details."""
        columns = ("device", "kind", "t_s", "lat_deg", "lon_deg", "acc_m", "vel_mps", "problem")
        received_s = None if self.received_s is None else self.received_s[rows]
        some = {name: getattr(self, name)[rows] for name in columns}
        return replace(self, received_s=received_s, details={}, **some)

    def digest(self, site: str) -> str:
        """A digest of the rows that can be read and a site, whatever their order and the format of the file."""
        rows = np.flatnonzero(self.problem == 0)
        codes, device = np.unique(self.device[rows], return_inverse=True)
        names = [self.devices[code] for code in codes.tolist()]
        device = np.argsort(np.argsort(names))[device]
        names.sort()
        columns = (self.t_s[rows], device, self.kind[rows], self.lat_deg[rows], self.lon_deg[rows])
        order = np.lexsort(columns[::-1])
        found = hashlib.blake2b(json.dumps([site, names]).encode(), digest_size=16)
        for column in columns:
            found.update(np.ascontiguousarray(column[order]).data)
        return found.hexdigest()

    def errors(self) -> Iterator[TraceError]:
        """The problem of each broken row, in order; row 1 is the first after the header."""
        for row in np.flatnonzero(self.problem):
            detail = self.details.get(int(row), PROBLEMS[self.problem[row]])
            yield TraceError(self.source, f"row {row + 1}", detail)


def read_trace(path: str | Path, kind: Kind | None = None) -> Trace:
    """Read a whole trace file; its ending determines the format.

    Args:
        path: `.csv`, `.ndjson`, `.jsonl`, `.geojson`, `.mfjson` or `.gpx` (each also with `.gz`), or
            `.parquet`. Columns `t,device,kind,lat,lon[,acc,vel,received]` in any order; others are ignored.
        kind: the kind of rows without one.

    Raises:
        TraceError: the file cannot be read, is not of its format, lacks a column, or has only broken rows.
    """
    trace = _trace(str(path), read_table(Path(path)), kind)
    if len(trace) and trace.problem.all():
        raise next(trace.errors())
    return trace


def _trace(source: str, found: TraceTable, kind: Kind | None) -> Trace:
    table = found.table
    if "kind" not in table.column_names and kind is None:
        raise TraceError(source, "column kind", "is missing; set the kind of all rows with --kind")
    n = table.num_rows
    problem = np.zeros(n, np.uint8)
    values: dict[str, F8] = {}
    for name in NUMBER_COLUMNS:
        if name in table.column_names:
            values[name], broken = _numbers(table[name], is_time=name in TIME_COLUMNS)
            if name == "received":
                problem[broken] = RECEIVED
        else:
            values[name] = np.full(n, np.nan)
    with np.errstate(invalid="ignore"):
        for name in TIME_COLUMNS if "received" in table.column_names else ("t",):
            problem[(values[name] > MAX_T_S) | (values[name] < 0)] = UNIT
    kinds, kind_broken = _kinds(table, kind)
    problem[kind_broken] = KIND
    devices, device = _devices(table["device"])
    problem[device < 0] = DEVICE
    for name in ("t", "lat", "lon"):
        problem[~np.isfinite(values[name]) & (problem == 0)] = POSITION
    problem[list(found.malformed)] = FORM
    return Trace(
        source=source,
        devices=devices,
        device=device,
        kind=kinds,
        t_s=np.where(problem == 0, values["t"], np.nan),
        received_s=values["received"] if "received" in table.column_names else None,
        lat_deg=values["lat"],
        lon_deg=values["lon"],
        acc_m=np.where(np.isfinite(values["acc"]), values["acc"], 0.0),
        vel_mps=values["vel"],
        problem=problem,
        details=_details(found, problem),
        encoding=found.encoding,
    )


def _details(found: TraceTable, problem: U1) -> dict[int, str]:
    """The exact problems of the first broken rows."""
    rows = np.flatnonzero(problem)[:MAX_DETAILS].tolist()
    return {row: found.malformed.get(row) or _detail(found.table, row, int(problem[row])) for row in rows}


def _detail(table: pa.Table, row: int, code: int) -> str:
    columns = {POSITION: ("t", "lat", "lon"), UNIT: TIME_COLUMNS, RECEIVED: ("received",)}.get(code, ())
    texts = {name: _shown(table[name][row].as_py()) for name in columns if name in table.column_names}
    if code == UNIT:
        return "; ".join(filter(None, (_wrong_unit(name, text) for name, text in texts.items())))
    if code in (DEVICE, KIND):
        name = "device" if code == DEVICE else "kind"
        return f"{PROBLEMS[code]}: {_shown(table[name][row].as_py())!r}"
    wanted = {
        name: "a time (Unix seconds or ISO 8601)" if name in TIME_COLUMNS else "a number" for name in texts
    }
    return "; ".join(
        f"{name} is {text!r}, not {wanted[name]}" if text else f"{name} is empty"
        for name, text in texts.items()
        if (number := _number(text.encode(), is_time=name in TIME_COLUMNS)) is None or not np.isfinite(number)
    )


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    text = value.decode(errors="replace") if isinstance(value, bytes) else "" if value is None else str(value)
    return text[:60]


def _wrong_unit(name: str, text: str) -> str:
    t = _number(text.encode(), is_time=True)
    if t is None or np.isnan(t) or 0 <= t <= MAX_T_S:
        return ""
    if t < 0:
        return f"{name} is {text}, before 1970"
    unit = "milliseconds" if t < 1e14 else "microseconds" if t < 1e17 else "nanoseconds"
    return (
        f"{name} is {text}, which is in {unit}: divide by {1e3 if t < 1e14 else 1e6 if t < 1e17 else 1e9:.0f}"
    )


def _numbers(column: pa.ChunkedArray, *, is_time: bool) -> tuple[F8, B1]:
    """The column as float64, NaN for empty and other values, and the rows with the latter."""
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
        parsed = [_number(value, is_time=is_time) for value in pc.cast(column, pa.binary()).to_pylist()]
        broken = np.array([value is None for value in parsed], np.bool_)
        return np.array([np.nan if value is None else value for value in parsed]), broken


def _number(text: bytes | None, *, is_time: bool) -> float | None:
    """The number, NaN for an empty value, None for anything else; a decimal comma is a point."""
    if text is None or not text.strip():
        return float("nan")
    try:
        return None if b"_" in text else float(text.replace(b",", b".") if text.count(b",") == 1 else text)
    except ValueError:
        return _moment(text) if is_time else None


def _moment(text: bytes) -> float | None:
    """ISO 8601 as Unix seconds; UTC if it has no zone."""
    try:
        moment = datetime.fromisoformat(text.decode().strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _is_text(type_: pa.DataType) -> bool:
    return type_ in {pa.string(), pa.large_string(), pa.binary(), pa.large_binary()}


def _distinct_words(column: pa.ChunkedArray) -> tuple[list[bytes], I4]:
    """The distinct words of a column in order of appearance, and each row's index; an empty one is b""."""
    if not pa.types.is_dictionary(column.type):
        texts = column if _is_text(column.type) else pc.cast(column, pa.string())
        column = pc.dictionary_encode(pc.cast(texts, pa.binary()))
    coded = column.unify_dictionaries().combine_chunks()
    words = [*pc.cast(pc.cast(coded.dictionary, pa.string()), pa.binary()).to_pylist(), b""]
    rows = pc.fill_null(pc.cast(coded.indices, pa.int32()), len(words) - 1).to_numpy(zero_copy_only=False)
    first = np.full(len(words), len(rows))
    first[rows[::-1]] = np.arange(len(rows))[::-1]
    order = np.argsort(first)[: np.count_nonzero(first < len(rows))]
    place = np.empty(len(words), np.int32)
    place[order] = np.arange(len(order))
    return [words[index] for index in order.tolist()], place[rows]


def _devices(column: pa.ChunkedArray) -> tuple[tuple[str, ...], I4]:
    words, rows = _distinct_words(column)
    if words and not b"".join(words).translate(None, _ID_BYTES):
        lengths = list(map(len, words))
        if min(lengths) > 0 and max(lengths) <= _MAX_ID:  # all are good, which is faster than one by one
            return tuple(b" ".join(words).decode().split(" ")), rows
    texts = [word.decode(errors="replace").strip() for word in words]
    good = list(dict.fromkeys(text for text in texts if ID.fullmatch(text)))
    place = {text: index for index, text in enumerate(good)}
    codes = np.array([place.get(text, -1) for text in texts], np.int32)
    return tuple(good), codes[rows] if len(rows) else np.zeros(0, np.int32)


def _kinds(table: pa.Table, default: Kind | None) -> tuple[U1, B1]:
    if "kind" not in table.column_names:
        code = 0 if default is None else KINDS.index(default)
        return np.full(table.num_rows, code, np.uint8), np.zeros(table.num_rows, np.bool_)
    words, rows = _distinct_words(table["kind"])
    named = [word.decode(errors="replace").strip().lower() or default for word in words]
    codes = np.array([KINDS.index(word) if word in KINDS else 255 for word in named], np.uint8)
    kinds = codes[rows] if len(rows) else np.zeros(0, np.uint8)
    broken = kinds == 255
    return np.where(broken, 0, kinds).astype(np.uint8), broken
