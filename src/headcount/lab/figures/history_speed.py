"""History: rows written per second on one core, bytes per fix, duration of queries.

Usage: python -m headcount.lab.figures.history_speed [ROWS] [DEVICES]      (defaults: 2 000 000 rows, 20 000 devices)

The rows are an hour of devices that stand or walk: 16 partitions, whole-second event times, positions
with 7 decimals, in the flushes of 200 000 rows of the writer. "Written" covers everything from received batches
to synchronised segments, in one thread.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from headcount.history.buffer import HistoryBuffer
from headcount.history.catalog import Catalog
from headcount.history.count_queries import counts_at, zones_history
from headcount.history.hours import folder
from headcount.history.intake import FLUSH_ROWS
from headcount.history.manifest import PartitionMark
from headcount.history.objects import FolderStore
from headcount.history.queries import fixes
from headcount.history.query_areas import area_of
from headcount.history.reader import SegmentReader
from headcount.history.storing import store
from headcount.messages.history import CountsAt, HistoryBatch, HistoryFixes

T0 = 1_795_525_200.0
PARTITIONS = 16
BATCH_ROWS = 2_000
ZONES = [f"zone-{i}" for i in range(100)]


def messages(rows: int, devices: int) -> list[bytes]:
    """Create batches as in the stream."""
    rng = np.random.default_rng(1)
    names = rng.integers(0, 2**64, devices, dtype=np.uint64)
    home = np.array([52.664, -8.588]) + rng.random((devices, 2)) * [0.02, 0.03]
    received = np.sort(T0 + rng.random(rows) * 3600)
    device = rng.integers(0, devices, rows)
    at = home[device] + rng.normal(0, 4e-5, (rows, 2))
    kind = (device % 3 == 0).astype(np.uint8)
    seq = np.zeros(PARTITIONS, np.int64)
    out = []
    for start in range(0, rows, BATCH_ROWS * PARTITIONS):
        span = np.arange(start, min(rows, start + BATCH_ROWS * PARTITIONS))
        for p in range(PARTITIONS):
            i = span[device[span] % PARTITIONS == p]
            seqs = seq[p] + 1 + np.arange(len(i))
            seq[p] += len(i)
            columns = HistoryFixes(
                seq=seqs.tobytes(),
                t=np.floor(received[i] - 0.4).tobytes(),
                received=received[i].tobytes(),
                device=names[device[i]].tobytes(),
                kind=kind[i].tobytes(),
                lat=at[i, 0].round(7).tobytes(),
                lon=at[i, 1].round(7).tobytes(),
                acc=rng.choice([3.0, 5.0, 8.0, 12.5], len(i)).astype("<f4").tobytes(),
                verdict=np.full(len(i), 9, np.uint8).tobytes(),
            )
            tick = float(received[span[-1]] // 10 * 10)
            counts = [CountsAt(tick, rng.integers(0, 500, len(ZONES) * 8).astype("<i4").tobytes())]
            batch = HistoryBatch("ul", p, PARTITIONS, 1, ZONES, columns, counts)
            out.append(msgspec.msgpack.encode(batch))
    return out


def write(data: Path, raw: list[bytes]) -> None:
    """Write batches like the writer, without a broker."""
    decoder = msgspec.msgpack.Decoder(HistoryBatch)
    catalog, pending = Catalog(FolderStore(folder(data))), HistoryBuffer()
    for partition in range(PARTITIONS):
        pending.start(partition, PartitionMark())
    for seq, message in enumerate(raw, 1):
        batch = decoder.decode(message)
        pending.add(batch.partition, seq, batch)
        if pending.rows >= FLUSH_ROWS or seq == len(raw):
            flush = pending.take(T0)
            assert flush is not None
            store(catalog, "", flush, None)
            pending.confirm(flush)


def median_ms(query: Callable[[], Any]) -> tuple[float, int]:
    """The median duration of seven runs in milliseconds, and the number of rows."""
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        result = query()
        times.append(time.perf_counter() - begin)
    return sorted(times)[3] * 1e3, len(result) if result is not None else 0


def main(rows: int = 2_000_000, devices: int = 20_000) -> None:
    """Print the figures, with machine and date."""
    pa.set_cpu_count(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {dt.datetime.now(dt.UTC):%Y-%m-%d}")
    raw = messages(rows, devices)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        begin, cpu = time.perf_counter(), time.process_time()
        write(data, raw)
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
        size = sum(path.stat().st_size for path in (data / "history" / "fixes").rglob("*.parquet"))
        print(f"written: {rows / wall:,.0f} rows/s ({rows / cpu:,.0f} per CPU second)")
        print(f"size: {size / rows:.1f} bytes a fix, {devices} devices, {FLUSH_ROWS} rows a segment")
        reader = SegmentReader(FolderStore(data / "history"))
        box = (-8.575, 52.672, -8.574, 52.673)
        queries: dict[str, Callable[[], Any]] = {
            "box of 70 x 110 m, the whole hour, newest 1000": lambda: fixes(
                reader.view(), site="ul", area=area_of(box)
            ),
            "near, 50 m, the whole hour, newest 1000": lambda: fixes(
                reader.view(), site="ul", area=area_of(near=(52.672, -8.575, 50.0))
            ),
            "positions of all devices at an instant": lambda: fixes(
                reader.view(), site="ul", at_s=T0 + 3000, limit=100_000
            ),
            "history of a zone, 60 s": lambda: zones_history(
                reader.view(), ["zone-7"], T0, T0 + 3600, 60, site="ul"
            ),
            "counts at an instant": lambda: counts_at(reader.view(), T0 + 3000, site="ul"),
        }
        for name, query in queries.items():
            took_ms, found = median_ms(query)
            print(f"{name}: {took_ms:.0f} ms over {rows:,} rows, {found} in the result")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]))
