"""Parquet segments, and how a flush writes several of them atomically.

    <data>/history/
      written.json                                  the newest flush: `buffer.FlushRecord`
      writer.lock                                   held by the one writer
      fixes/hour=2026-11-24T13/000000000042.parquet   hour of `received` in UTC; the number is the flush's
      counts/hour=2026-11-24T13/000000000042.parquet  hour of `at` in UTC

A flush may touch several hours. Its segments are first written in full beside their places
(`….parquet.tmp`) and synchronised; then `written.json` is replaced, which is the one instant at which
the flush has happened; then the segments are renamed. After a kill before that instant the
next start removes the temporary files; after a kill later, it renames them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headcount.counting.fix_columns import F8, I8, U8
from headcount.errors import DataFolderError
from headcount.history.buffer import CountRows, Flush, FlushRecord, StoredColumns
from headcount.history.hours import HOUR_S, folder, hour_name
from headcount.history.segment_files import all_segments, foreign_files, is_readable, set_aside
from headcount.messages.counts import COUNT_FIELDS
from headcount.messages.fixes import VERDICTS
from headcount.messages.topics import KINDS
from headcount.runtime.private_files import folder_errors, locked_folder, make_private, write_private

_log = logging.getLogger(__name__)

RECORD = "written.json"
PART = ".tmp"
#: Cells by which fixes are sorted: 0.001 degrees, about 110 m north to south.
CELL_DEG_E7 = 10_000
#: Rows that share statistics: a query for a small area reads only the groups that it touches.
ROW_GROUP_ROWS = 16_384
#: Positions are stored with 7 decimals (11 mm), as receivers report them, and are read back exactly.
LAT_TYPE, LON_TYPE = pa.decimal32(9, 7), pa.decimal64(10, 7)
#: Columns with few different values.
_NAMES = {"site", "partition", "device", "kind", "acc", "verdict", "partitions", "partitions_total"}


class Segments:
    """The history's folder, opened by its only writer; use `opened`."""

    def __init__(self, root: Path, written: FlushRecord) -> None:
        self.root = root
        self.written = written

    def commit(self, flush: Flush) -> int:
        """Write a flush; all of it is on disk when this returns.

        Returns:
            The bytes of the new segments.

        Raises:
            DataFolderError: the disk is full or a write failed. Nothing of the flush was written then,
                or (if only a rename failed) the next start completes it.
        """
        with folder_errors(self.root):
            tables = {
                f"{place}/{flush.written.flush:012d}.parquet": table
                for place, table in _tables(flush).items()
            }
            size = sum(self._prepare(name, table) for name, table in tables.items())
            written = msgspec.structs.replace(flush.written, segments=list(tables))
            write_private(self.root / RECORD, msgspec.json.encode(written))
            sync_folder(self.root)
            _rename_all(self.root, written)
            self.written = written
        return size

    def _prepare(self, name: str, table: pa.Table) -> int:
        path = self.root / (name + PART)
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
            sync_folder(path.parent.parent)
        size = write_segment(path, table)
        sync_folder(path.parent)
        return size


@contextmanager
def opened(data: Path) -> Iterator[Segments]:
    """The history in the data folder, recovered to its newest flush, for one writer.

    Raises:
        DataFolderError: the folder can't be written, another writer has locked it, or its record is damaged.
    """
    root = folder(data)
    with ExitStack() as lock:
        with folder_errors(root, "another history writer uses it"):
            lock.enter_context(locked_folder(root, "writer.lock"))
            make_private([root])
            for kind in ("fixes", "counts"):
                (root / kind).mkdir(exist_ok=True)
            segments = Segments(root, _recovered(root))
            _set_damaged_aside(root)
        yield segments


def _recovered(root: Path) -> FlushRecord:
    written = _read_record(root / RECORD)
    _rename_all(root, written)
    for part in (*root.glob(f"*{PART}"), *root.glob(f"*/hour=*/*{PART}")):
        part.unlink()
    # If the record was removed, writing continues without overwriting a segment.
    numbers = [int(path.stem) for kind in ("fixes", "counts") for path in all_segments(root, kind)]
    return msgspec.structs.replace(written, flush=max([written.flush, *numbers]))


def _set_damaged_aside(root: Path) -> None:
    """Set segments without a readable footer aside, and name files that are not ours."""
    for path in (path for kind in ("fixes", "counts") for path in all_segments(root, kind)):
        if not is_readable(path, whole=False):
            set_aside(root, path)
    for path in foreign_files(root):
        _log.warning("%s is not a file of the history and is ignored", path)


def _read_record(path: Path) -> FlushRecord:
    try:
        return msgspec.json.decode(path.read_bytes(), type=FlushRecord)
    except FileNotFoundError:
        return FlushRecord()
    except msgspec.DecodeError as error:
        raise DataFolderError(
            str(path.parent),
            f"{path.name} is damaged ({error})",
            f"Remove {path.name} to go on; rows that are delivered again may then be stored twice.",
        ) from error


def _rename_all(root: Path, written: FlushRecord) -> None:
    """Rename the segments of a recorded flush; those without a temporary file are renamed already."""
    for name in written.segments:
        part = root / (name + PART)
        if part.exists():
            part.rename(root / name)
            sync_folder(part.parent)


def parquet(table: pa.Table) -> bytes:
    """The content of a segment: compact Parquet with checksums of its pages."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True, **_encoding(table))
    return bytes(sink.getvalue())


def write_segment(path: Path, table: pa.Table) -> int:
    """Write a segment and synchronise it to disk; its size in bytes."""
    with path.open("wb") as file:
        pq.write_table(table, file, **_encoding(table))
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def sync_folder(folder: Path) -> None:
    """Synchronise the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- rows to tables ----------------------------------------------------------------------------


def _tables(flush: Flush) -> dict[str, pa.Table]:
    """The flush's tables by their folder, `fixes/hour=…` or `counts/hour=…`."""
    tables: dict[str, pa.Table] = {}
    if flush.fixes is not None:
        order = _order(flush.fixes)
        fixes = {name: column[order] for name, column in flush.fixes.items()}
        tables |= _by_hour("fixes", fixes_table(fixes, flush.sites), fixes["received"])
    if flush.counts is not None:
        tables |= _by_hour("counts", counts_table(flush.counts), np.rint(flush.counts.at_s * 1e3) / 1e3)
    return tables


def _order(fixes: StoredColumns) -> I8:
    """The order in a segment: by hour, site, a coarse cell, then t."""
    lat, lon = (_scaled(fixes[name], 1e7) // CELL_DEG_E7 for name in ("lat", "lon"))
    return np.lexsort((_scaled(fixes["t"], 1e6), lon, lat, fixes["site"], fixes["received"] // HOUR_S))


def _by_hour(kind: str, table: pa.Table, t_s: F8) -> dict[str, pa.Table]:
    """The table cut where the hour of `t_s` changes, its times in the order of hours."""
    cuts = (0, *(np.flatnonzero(np.diff(t_s // HOUR_S)) + 1).tolist(), len(t_s))
    return {
        f"{kind}/{hour_name(float(t_s[start]))}": table.slice(start, stop - start)
        for start, stop in pairwise(cuts)
    }


def fixes_table(column: StoredColumns, sites: Sequence[str]) -> pa.Table:
    """Fixes as the columns of a segment, in the order given.

    `site` string (a dictionary in the file), `partition` int16, `seq` int64, `t` timestamp (µs, UTC), `received` timestamp (ms, UTC), `device`,
    `kind` and `verdict` strings (dictionaries in the file), `lat` and `lon` as decimals with 7 places, `acc`
    float32 (metres, 0 = unknown).
    """
    return pa.table(
        {
            "site": _named(column["site"], sites),
            "partition": column["partition"],
            "seq": column["seq"],
            "t": pa.array(_scaled(column["t"], 1e6), pa.timestamp("us", "UTC")),
            # Rounded down: the row's hour must stay its folder's hour.
            "received": pa.array(
                np.floor(column["received"] * 1e3).astype(np.int64), pa.timestamp("ms", "UTC")
            ),
            # Plain here, dictionaries in the file: those are built per row group and hold only its
            # names (a common dictionary took up to three times the space).
            "device": _hexadecimal(column["device"]),
            "kind": _named(column["kind"], KINDS),
            "lat": _decimals(_scaled(column["lat"], 1e7).astype("<i4"), LAT_TYPE),
            "lon": _decimals(_scaled(column["lon"], 1e7), LON_TYPE),
            "acc": column["acc"],
            "verdict": _named(column["verdict"], VERDICTS),
        }
    )


def counts_table(rows: CountRows) -> pa.Table:
    """Counts as the columns of a segment.

    `at` timestamp (ms, UTC), `site` and `zone` strings (dictionaries in the file), `person_count` … `vehicle_stale` int32,
    `partitions` in the sum and `partitions_total` int16: the row is complete where they are equal.
    """
    numbers = {
        f"{kind}_{number}": pa.array(np.ascontiguousarray(rows.values[:, k, i]))
        for k, kind in enumerate(KINDS)
        for i, number in enumerate(COUNT_FIELDS)
    }
    return pa.table(
        {
            "at": pa.array(_scaled(rows.at_s, 1e3), pa.timestamp("ms", "UTC")),
            "site": pa.array(rows.site, pa.string()),
            "zone": pa.array(rows.zone, pa.string()),
            **numbers,
            "partitions": pa.array(rows.partitions),
            "partitions_total": pa.array(rows.partitions_total),
        }
    )


def _encoding(table: pa.Table) -> dict[str, object]:
    """Small differences between neighbours for numbers, dictionaries for names, zstd over both."""
    numbers = {
        field.name
        for field in table.schema
        if field.name not in _NAMES
        and not pa.types.is_string(field.type)
        and not pa.types.is_dictionary(field.type)
    }
    return {
        "compression": "zstd",
        "row_group_size": ROW_GROUP_ROWS,
        "store_decimal_as_integer": True,
        "use_dictionary": [name for name in table.column_names if name not in numbers and name != "id"],
        "column_encoding": dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),
    }


def _scaled(values: F8, scale: float) -> I8:
    return np.rint(values * scale).astype(np.int64)


def _hexadecimal(values: U8) -> pa.Array:
    """The bytes of each value as 16 digits."""
    ends = np.arange(len(values) + 1, dtype=np.int32) * (2 * values.itemsize)
    digits = values.tobytes().hex().encode()
    return pa.Array.from_buffers(pa.string(), len(values), [None, pa.py_buffer(ends), pa.py_buffer(digits)])


def _named(codes: np.ndarray[tuple[int], np.dtype[np.integer]], names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int16)), pa.array(names, pa.string()))


def _decimals(unscaled: np.ndarray[tuple[int], np.dtype[np.signedinteger]], kind: pa.DataType) -> pa.Array:
    return pa.Array.from_buffers(kind, len(unscaled), [None, pa.py_buffer(np.ascontiguousarray(unscaled))])
