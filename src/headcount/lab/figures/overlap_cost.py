"""Memory and time of the engine where hundreds of zones overlap, beside a campus whose zones do not.

Each case runs in a process of its own. Times are CPU time, which a busy machine hardly changes; memory is the
maximum resident set of the whole process. Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from headcount.counting.engine import Engine
from headcount.counting.fix_columns import F8, FixColumns
from headcount.counting.zone_lookup import ZoneLookup
from headcount.lab.figures.bench_fixes import OVERLAPPING_SIDE_M, campus, degrees, overlapping, side

PARTITIONS = 16
#: Share of the devices that send a fix in a tick.
MOVING = 0.1
SEED = 1


def measure(zones: int, devices: int, ticks: int, *, overlap: bool) -> str:
    """A line of the table."""
    site = overlapping(zones, SEED) if overlap else campus(zones, SEED)
    side_m = OVERLAPPING_SIDE_M if overlap else side(zones)
    began_s = time.process_time()
    lookup = ZoneLookup(site)
    prepared_s = time.process_time() - began_s
    rng = np.random.default_rng(SEED)
    engines = [Engine(site, lookup) for _ in range(PARTITIONS)]
    own = [np.arange(partition, devices, PARTITIONS) for partition in range(PARTITIONS)]
    slots = [e.slots([b"person.d%d" % i for i in rows]) for e, rows in zip(engines, own, strict=True)]
    x_m, y_m = rng.uniform(-side_m / 2, side_m / 2, (2, devices))
    used_s, counted = 0.0, 0
    for tick in range(ticks + 1):
        now_s = 1.8e9 + tick
        members = 0
        for engine, rows, own_slots in zip(engines, own, slots, strict=True):
            moves = rng.random(len(rows)) < (MOVING if tick else 1.0)
            moving = rows[moves]
            x_m[moving] += rng.normal(0, 8, len(moving))
            y_m[moving] += rng.normal(0, 8, len(moving))
            t_s = np.asarray(now_s + np.arange(len(moving)) * 1e-6, dtype=np.float64)
            acc_m: F8 = rng.uniform(3, 15, len(moving))
            what = np.zeros(len(moving), np.uint8)
            fixes = FixColumns(what, t_s, t_s, *degrees(x_m[moving], y_m[moving]), acc_m)
            began_s = time.process_time()
            engine.step(fixes, own_slots[moves])
            engine.advance(now_s)
            counts = engine.counts(now_s)
            used_s += time.process_time() - began_s if tick else 0.0
            counted += len(moving) if tick else 0
            members += int(counts[1:, :, 0].sum())
    # not `ru_maxrss`, which has the memory of the process that started this one
    status = Path("/proc/self/status").read_text()
    peak_mib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024
    return (
        f"{zones:>6} {members / devices:>11.1f} {prepared_s:>10.1f} s {used_s / ticks / PARTITIONS * 1e3:>13.2f} ms "
        f"{used_s / max(counted, 1) * 1e6:>8.1f} µs {len(lookup.sets):>8} {peak_mib:>9.0f} MiB"
    )


def main() -> None:
    """Print the table, or one line of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=25_000)
    parser.add_argument("--ticks", type=int, default=10)
    parser.add_argument("--zones", type=int, help="only this number of overlapping zones")
    parser.add_argument("--apart", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.zones or options.apart:
        zones = options.zones or options.apart
        print(measure(zones, options.devices, options.ticks, overlap=bool(options.zones)))
        return
    print(f"{options.devices:,} devices in {PARTITIONS} partitions; in each tick, {MOVING:.0%} send a fix")
    print(
        f"{'zones':>6} {'of a device':>11} {'prepared in':>12} {'partition-tick':>16} {'a fix':>11} {'sets':>8} {'memory':>13}"
    )
    for arguments in (("--apart", "300"), ("--zones", "60"), ("--zones", "300")):
        command = [sys.executable, "-m", "headcount.lab.figures.overlap_cost", *arguments]
        command += ["--devices", str(options.devices), "--ticks", str(options.ticks)]
        print(
            subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout, end="", flush=True
        )


if __name__ == "__main__":
    main()
