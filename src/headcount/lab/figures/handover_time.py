"""Cost of snapshots of 100 000 devices, compared with a database transaction per batch.

The database is SQLite in WAL mode on the same disk, about the cheapest one: no network, no other client. It writes
the rows that a batch of fixes changed.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from headcount.counting.fix_columns import FixColumns
from headcount.counting.site_versions import only
from headcount.counting.zone_lookup import ZoneLookup
from headcount.devices.pseudonyms import Pseudonyms
from headcount.lab.figures.bench_fixes import campus, degrees, side
from headcount.worker.site_counter import SiteCounter

ZONES = 100
BATCH = 1_000


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    site = campus(ZONES, options.seed)
    zones = ZoneLookup(site)
    names = Pseudonyms({day: bytes([day % 256]) * 32 for day in range(20_832, 20_836)})
    partition = SiteCounter(only(zones), names, 1).partition(0, 1)
    engine = partition.engine
    n, half_m = options.devices, side(ZONES) / 2
    keys = [b"fix.0.%s.person.device%07d" % (site.id.encode(), i) for i in range(n)]
    slots = engine.slots(keys)
    lat_deg, lon_deg = degrees(rng.uniform(-half_m, half_m, n), rng.uniform(-half_m, half_m, n))
    t_s = np.asarray(1.8e9 + rng.uniform(0, 100, n), dtype=np.float64)
    fixes = FixColumns(np.zeros(n, np.uint8), t_s, t_s, lat_deg, lon_deg, rng.uniform(3, 15, n))
    began = time.perf_counter()
    engine.step(fixes, slots)
    counted_s = time.perf_counter() - began
    began = time.perf_counter()
    partition.save()
    first_save_s = time.perf_counter() - began

    began = time.perf_counter()
    raw = partition.save()
    zstd = pa.compress(raw, codec="zstd", asbytes=True)
    saved_s = time.perf_counter() - began
    fresh = SiteCounter(only(zones), names, 1).partition(0, 2)
    began = time.perf_counter()
    fresh.restore(pa.decompress(zstd, len(raw), codec="zstd", asbytes=True))
    loaded_s = time.perf_counter() - began
    began = time.perf_counter()
    fresh.engine.counts(1.8e9 + 200)
    first_s = time.perf_counter() - began
    began = time.perf_counter()
    fresh.engine.slots(keys)
    lookup_s = time.perf_counter() - began
    assert fresh.engine.devices == n, "each device is found by its daily pseudonym"
    print(f"snapshot of {n:,} devices: {len(raw) / 1e6:.1f} MB, {len(zstd) / 1e6:.1f} MB compressed")
    print(
        f"  saved in {saved_s * 1e3:.0f} ms, loaded in {loaded_s * 1e3:.0f} ms, first counts {first_s * 1e3:.0f} ms"
    )
    print(
        f"  first snapshot of a day {first_save_s * 1e3:.0f} ms (computes all pseudonyms); "
        f"lookup of all devices after a restore: {lookup_s * 1e3:.0f} ms"
    )
    print(
        f"counting {n:,} fixes in the engine: {counted_s * 1e3:.0f} ms ({counted_s / n * BATCH * 1e3:.2f} ms per {BATCH})"
    )

    with tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(Path(folder) / "state.db", isolation_level=None)
        database.execute("pragma journal_mode = wal")
        for level in ("full", "normal"):
            database.execute(f"pragma synchronous = {level}")
            database.execute("drop table if exists state")
            database.execute("create table state (device integer primary key, t, x, y, acc, zones, expires)")
            took = []
            for start in range(0, 50 * BATCH, BATCH):
                rows = [(i, 1.8e9, 1.5, 2.5, 5.0, 3, 1.8e9) for i in range(start, start + BATCH)]
                began = time.perf_counter()
                database.execute("begin")
                database.executemany("insert or replace into state values (?, ?, ?, ?, ?, ?, ?)", rows)
                database.execute("commit")
                took.append(time.perf_counter() - began)
            median_s = statistics.median(took)
            print(
                f"a transaction per batch of {BATCH} in SQLite, synchronous={level}: {median_s * 1e3:.1f} ms"
            )
        database.close()


if __name__ == "__main__":
    main()
