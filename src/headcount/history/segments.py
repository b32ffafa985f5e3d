"""The rows of segments as tables, and tables as Parquet.

fixes/hour=2026-11-24T13/0192….parquet   hour of `received` in UTC
counts/hour=2026-11-24T13/0192….parquet  hour of `at` in UTC
events/hour=2026-11-24T13/0192….parquet  hour of `t` in UTC
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headcount.counting.fix_columns import F8, I8, U8
from headcount.history.buffer import CountRows, StoredColumns
from headcount.messages.counts import COUNT_FIELDS, Event
from headcount.messages.fixes import VERDICTS
from headcount.messages.topics import KINDS

#: Side of the cells by which fixes are sorted: 0.001 degrees, about 110 m north to south. Larger cells take less
#: space, but a query for a small area reads more (`python -m headcount.lab.figures.history_layout`).
CELL_DEG_E7 = 10_000
#: Rows that share statistics: a query for a small area reads only the groups that it touches.
ROW_GROUP_ROWS = 16_384
#: Positions are stored with 7 decimals (11 mm), as receivers report them, and are read back exactly.
LAT_TYPE, LON_TYPE = pa.decimal32(9, 7), pa.decimal64(10, 7)
#: Columns with few different values.
_NAMES = {"site", "partition", "device", "kind", "acc", "verdict", "partitions", "partitions_total"}
#: Devices in a row group for which its filter is made, at most: 2 kB.
GROUP_DEVICES = 1_024
#: Numbers that are stored with the first bytes of all, then the second ones, and so on.
_SPLIT = {"seq", "received"}


def parquet(table: pa.Table) -> bytes:
    """The content of a segment: compact Parquet with checksums of its pages."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True, **encoding(table))
    return bytes(sink.getvalue())


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
            "t": pa.array(scaled(column["t"], 1e6), pa.timestamp("us", "UTC")),
            # Rounded down: the row's hour must stay its folder's hour.
            "received": pa.array(
                np.floor(column["received"] * 1e3).astype(np.int64), pa.timestamp("ms", "UTC")
            ),
            # Plain here, dictionaries in the file: those are built per row group and hold only its
            # names (a common dictionary took up to three times the space).
            "device": _hexadecimal(column["device"]),
            "kind": _named(column["kind"], KINDS),
            "lat": _decimals(scaled(column["lat"], 1e7).astype("<i4"), LAT_TYPE),
            "lon": _decimals(scaled(column["lon"], 1e7), LON_TYPE),
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
            "at": pa.array(scaled(rows.at_s, 1e3), pa.timestamp("ms", "UTC")),
            "site": pa.array(rows.site, pa.string()),
            "zone": pa.array(rows.zone, pa.string()),
            **numbers,
            "partitions": pa.array(rows.partitions),
            "partitions_total": pa.array(rows.partitions_total),
        }
    )


def events_table(events: Sequence[Event]) -> pa.Table:
    """Events as the columns of a segment.

    `t` timestamp (µs, UTC), `site`, `zone`, `device`, `kind`, `type` and `reason` strings (dictionaries in the
    file), `id` string.
    """
    t_s = np.array([event.t for event in events])
    names = ("site", "zone", "device", "kind", "type", "reason", "id")
    return pa.table(
        {"t": pa.array(scaled(t_s, 1e6), pa.timestamp("us", "UTC"))}
        | {name: pa.array([getattr(event, name) for event in events], pa.string()) for name in names}
    )


def encoding(table: pa.Table) -> dict[str, Any]:
    """Small differences between neighbours for numbers, dictionaries for names, zstd over both.

    `seq` and `received` change by about as much from row to row, except where the device changes: bytes apart,
    each takes a third of a byte a fix less than as differences (`python -m headcount.lab.figures.history_layout`).
    """
    numbers = {
        field.name
        for field in table.schema
        if field.name not in _NAMES
        and not pa.types.is_string(field.type)
        and not pa.types.is_dictionary(field.type)
    }
    return {
        "compression": "zstd",
        "compression_level": 3,
        "row_group_size": ROW_GROUP_ROWS,
        "bloom_filter_options": _bloom_filters(table),
        "store_decimal_as_integer": True,
        "use_dictionary": [name for name in table.column_names if name not in numbers and name != "id"],
        "column_encoding": {
            name: "BYTE_STREAM_SPLIT" if name in _SPLIT else "DELTA_BINARY_PACKED" for name in numbers
        },
    }


def _bloom_filters(table: pa.Table) -> dict[str, dict[str, float]]:
    """Filters of devices, so that a device's rows are found without reading all names."""
    if "device" not in table.column_names or len(table) <= ROW_GROUP_ROWS:
        return {}
    return {"device": {"ndv": min(len(table["device"].unique()), GROUP_DEVICES), "fpp": 0.01}}


def scaled(values: F8, scale: float) -> I8:
    """Values in units of 1 / `scale`."""
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
