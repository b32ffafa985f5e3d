"""Speed of `headcount replay` as a whole process, beside a process that only reads the same file.

Each runs several times; the figures are medians. CPU time is that of all threads; on a busy machine, compare it rather
than the wall time.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from headcount.lab.figures.bench_fixes import campus, degrees, side

ZONES = 100
EVERY_S = 30
TICKS = 10
READ = "import sys, numpy, pyarrow.parquet as p; [c.to_numpy() for c in p.read_table(sys.argv[1])]"


def write(folder: Path, fixes: int, devices: int, seed: int) -> tuple[Path, Path]:
    """A site, and a recording in which all devices walk about it for `TICKS` ticks."""
    rng = np.random.default_rng(seed)
    site, half_m = campus(ZONES, seed), side(ZONES) / 2
    (folder / "site.geojson").write_text(json.dumps(site.geojson))
    x_m, y_m = rng.uniform(-half_m, half_m, (2, devices))
    parts = []
    for start in range(0, fixes, devices):
        order = rng.permutation(devices)
        x_m += rng.normal(0, 5, devices)
        y_m += rng.normal(0, 5, devices)
        lat_deg, lon_deg = degrees(x_m[order], y_m[order])
        t_s = 1.8e9 + (start + np.arange(devices)) * (TICKS * EVERY_S / fixes)
        acc_m = np.round(rng.uniform(3, 15, devices), 1)
        parts.append(np.stack([t_s, order, lat_deg, lon_deg, acc_m])[:, : fixes - start])
    t_s, device, lat_deg, lon_deg, acc_m = np.concatenate(parts, axis=1)
    number = device.astype(np.int64)
    table = pa.table(
        {
            "t": t_s,
            "device": pa.array([f"device{i:07d}" for i in range(devices)]).take(pa.array(number)),
            "kind": pa.array(["person", "vehicle"]).take(pa.array((number % 10 == 0).astype(np.int8))),
            "lat": lat_deg,
            "lon": lon_deg,
            "acc": acc_m,
        }
    )
    pyarrow.parquet.write_table(table, folder / "fixes.parquet")
    return folder / "site.geojson", folder / "fixes.parquet"


def took(command: list[str], repeat: int) -> tuple[float, float]:
    """Median wall and CPU seconds of a process."""
    wall_s, cpu_s = [], []
    for _ in range(repeat):
        before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall_s.append(time.monotonic() - began_s)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(wall_s), statistics.median(cpu_s)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fixes", type=int, default=2_000_000)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(
        f"{options.fixes:,} fixes of {options.devices:,} devices in Parquet, {ZONES} zones, {TICKS} ticks, "
        f"seed {options.seed}"
    )
    with tempfile.TemporaryDirectory() as folder:
        site, file = write(Path(folder), options.fixes, options.devices, options.seed)
        replay = [sys.executable, "-m", "headcount", "replay", str(file), "--site", str(site), "--quiet"]
        replay += ["--every", f"{EVERY_S}s"]
        commands = {
            "headcount replay": replay,
            "headcount replay --all": [*replay, "--all"],
            "read the file with pyarrow": [sys.executable, "-c", READ, str(file)],
        }
        print(f"{'process, start included':<27} {'wall':>7} {'CPU':>8} {'fixes per CPU second':>21}")
        for name, command in commands.items():
            wall_s, cpu_s = took(command, options.repeat)
            print(f"{name:<27} {wall_s:>5.1f} s {cpu_s:>6.2f} s {options.fixes / cpu_s:>21,.0f}", flush=True)


if __name__ == "__main__":
    main()
