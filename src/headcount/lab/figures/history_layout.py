"""Layouts of a segment of fixes: bytes a fix, CPU time of writing, and what a query for a small area reads.

Usage: python -m headcount.lab.figures.history_layout [DEVICES]      (default: 25 000)

A compacted segment holds up to a million fixes: here seven minutes of 25 000 devices. Every layout is that of the
history except for what its name states. Areas are boxes of 1 % of the site's around random fixes.
"""

from __future__ import annotations

import math
import os
import sys
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headcount.counting.fix_columns import I8
from headcount.history.buffer import StoredColumns
from headcount.history.compaction import MAX_ROWS
from headcount.history.fix_rows import steps
from headcount.history.segments import CELL_DEG_E7, encoding, fixes_table
from headcount.lab.figures.generated_day import INTERVAL_S, GeneratedDay
from headcount.lab.figures.history_questions import AREA_SHARE
from headcount.lab.machine import machine
from headcount.sites.files import bundled_site, load_site

QUERIES = 30
SPLIT, DELTA = "BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED"
#: Name → columns by which fixes are sorted, side of the cells, changed encodings.
LAYOUTS: dict[str, tuple[tuple[str, ...], int, dict[str, Any]]] = {
    "as in the history": (("lat", "lon", "device"), CELL_DEG_E7, {}),
    "by cell and time": (("lat", "lon"), CELL_DEG_E7, {}),
    "by device and time": (("device",), CELL_DEG_E7, {}),
    "half the cells": (("lat", "lon", "device"), CELL_DEG_E7 // 2, {}),
    "double the cells": (("lat", "lon", "device"), CELL_DEG_E7 * 2, {}),
    "row groups of 8,192": (("lat", "lon", "device"), CELL_DEG_E7, {"row_group_size": 8_192}),
    "row groups of 65,536": (("lat", "lon", "device"), CELL_DEG_E7, {"row_group_size": 65_536}),
    "zstd level 1": (("lat", "lon", "device"), CELL_DEG_E7, {"compression_level": 1}),
    "zstd level 6": (("lat", "lon", "device"), CELL_DEG_E7, {"compression_level": 6}),
    "differences of seq": (("lat", "lon", "device"), CELL_DEG_E7, {"seq": DELTA}),
    "differences of received": (("lat", "lon", "device"), CELL_DEG_E7, {"received": DELTA}),
    "split bytes of t": (("lat", "lon", "device"), CELL_DEG_E7, {"t": SPLIT}),
    "split bytes of lat and lon": (("lat", "lon", "device"), CELL_DEG_E7, {"lat": SPLIT, "lon": SPLIT}),
}


def main(devices: int = 25_000) -> None:
    """Print the figures as Markdown."""
    pa.set_cpu_count(1)
    site = load_site(bundled_site("ul"))
    ticks = max(1, MAX_ROWS // devices)
    rows = next(GeneratedDay(site, devices, 1).hours(ticks * INTERVAL_S / 3600)).fixes
    west, south, east, north = (round(edge * 1e7) for edge in site.zones[0].geometry.bounds)
    half = np.array([north - south, east - west]) * math.sqrt(AREA_SHARE) / 2
    picked = np.random.default_rng(1).integers(0, len(rows["t"]), QUERIES)
    middles = np.stack([rows["lat"][picked], rows["lon"][picked]], axis=1) * 1e7
    print(f"Load average before: {os.getloadavg()[0]:.2f}\n")
    print(f"{len(rows['t']):,} fixes of {devices:,} devices, seed 1; {machine()}\n")
    print(
        "| layout | bytes a fix | sorted and written, fixes per CPU second | rows read / rows in an area | CPU ms |"
    )
    print("|---|---|---|---|---|")
    _written(fixes_table(rows, [site.id]), {})  # warm
    for name, (keys, cell, changes) in LAYOUTS.items():
        began = time.process_time()
        order = _order(rows, keys, cell)
        table = fixes_table({column: values[order] for column, values in rows.items()}, [site.id])
        data = _written(table, changes)
        per_s = len(order) / (time.process_time() - began)
        read, held, took_s = _queries(data, middles, half)
        print(
            f"| {name} | {data.size / len(order):.2f} | {per_s:,.0f} | {read / held:.1f} | "
            f"{took_s / QUERIES * 1e3:.1f} |"
        )
    print("<!-- end of output -->")


def _order(rows: StoredColumns, keys: tuple[str, ...], cell: int) -> I8:
    columns = [
        np.floor(rows[key] * 1e7).astype(np.int64) // cell if key in ("lat", "lon") else rows[key]
        for key in reversed(keys)
    ]
    return np.lexsort((rows["t"], *columns))


def _written(table: pa.Table, changes: dict[str, Any]) -> pa.Buffer:
    options = encoding(table)
    for name, value in changes.items():
        if name in table.column_names:
            options["column_encoding"] = options["column_encoding"] | {name: value}
        else:
            options[name] = value
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True, **options)
    return sink.getvalue()


def _queries(data: pa.Buffer, middles: Any, half: Any) -> tuple[int, int, float]:
    """Count the fixes in each area; returns rows read, rows found and CPU seconds, footers not counted."""
    metadata = pq.ParquetFile(pa.BufferReader(data)).metadata
    columns = [metadata.schema.names.index(name) for name in ("lat", "lon")]
    bounds = np.array(
        [
            [metadata.row_group(group).column(column).statistics for column in columns]
            for group in range(metadata.num_row_groups)
        ]
    )
    least = np.vectorize(lambda each: each.min_raw)(bounds)
    most = np.vectorize(lambda each: each.max_raw)(bounds)
    read = held = 0
    began = time.process_time()
    for middle in middles:
        low, high = middle - half, middle + half
        groups = np.flatnonzero(((most >= low) & (least <= high)).all(axis=1)).tolist()
        file = pq.ParquetFile(pa.BufferReader(data), metadata=metadata, page_checksum_verification=True)
        table = file.read_row_groups(groups, columns=["lat", "lon"], use_threads=False)
        found = np.stack([steps(table["lat"]), steps(table["lon"])], axis=1)
        held += int(((found >= low) & (found <= high)).all(axis=1).sum())
        read += len(found)
    return read, held, time.process_time() - began


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
