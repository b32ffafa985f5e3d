"""Speed of the engine on one core by devices and zones, and memory per device.

Times are CPU time of this process, which a busy machine hardly changes.
"""

from __future__ import annotations

import argparse
import gc
import time
import tracemalloc

import numpy as np

from headcount.counting.engine import Engine
from headcount.counting.fix_columns import F8, I8, FixColumns
from headcount.counting.site import Site
from headcount.counting.zone_lookup import ZoneLookup
from headcount.lab.figures.bench_fixes import campus, degrees, side

BATCH = 10_000
#: Fixes before the measurement, in which the zones learn their transitions.
WARM_FIXES = 4_000_000


def measure(zones: int, devices: int, seed: int, seconds: float, counts_every: int | None) -> float:
    """Fixes per second of `step` and `advance`, and of `counts` after every `counts_every` batches."""
    rng = np.random.default_rng(seed)
    side_m = side(zones)
    site = campus(zones, seed)
    engine = Engine(site, ZoneLookup(site))
    slots = engine.slots([b"person.d%d" % i for i in range(devices)])
    x_m: F8 = rng.uniform(-side_m / 2, side_m / 2, devices)
    y_m: F8 = rng.uniform(-side_m / 2, side_m / 2, devices)
    now_s = 1.8e9
    all_devices = np.arange(devices)
    engine.step(_fixes(all_devices, x_m, y_m, now_s, rng), slots)
    measured, took_s, rounds = 0, 0.0, 0
    while took_s < seconds:
        now_s += 2.0
        rounds += 1
        pick = rng.integers(0, devices, BATCH) if devices < BATCH else rng.permutation(devices)[:BATCH]
        x_m[pick] += rng.normal(0, 3, len(pick))
        y_m[pick] += rng.normal(0, 3, len(pick))
        fixes, senders = _fixes(pick, x_m, y_m, now_s, rng), slots[pick]
        began = time.process_time()
        engine.step(fixes, senders)
        engine.advance(now_s)
        if counts_every is not None and rounds % counts_every == 0:
            engine.counts(now_s)
        if rounds * BATCH > WARM_FIXES:
            took_s += time.process_time() - began
            measured += len(pick)
    return measured / took_s


def _fixes(pick: I8, x_m: F8, y_m: F8, now_s: float, rng: np.random.Generator) -> FixColumns:
    lat_deg, lon_deg = degrees(x_m[pick], y_m[pick])
    t_s = np.asarray(now_s + np.arange(len(pick)) * 1e-6, dtype=np.float64)
    acc_m: F8 = rng.uniform(3, 15, len(pick))
    return FixColumns(np.zeros(len(pick), np.uint8), t_s, t_s, lat_deg, lon_deg, acc_m)


def bytes_per_device(site: Site, devices: int) -> float:
    """Memory of a device in the engine: id, index entry, columns."""
    gc.collect()
    tracemalloc.start()
    engine = Engine(site, ZoneLookup(site))
    before = tracemalloc.get_traced_memory()[0]
    engine.slots([b"person.device%07d" % i for i in range(devices)])
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / devices


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--million", action="store_true", help="also a million devices")
    options = parser.parse_args()
    print("engine, one core, batches of 10 000 fixes, seed", options.seed)
    print(f"{'zones':>6} {'devices':>9} {'fixes/s':>12} {'with counts every 100 k':>24}")
    sizes = [1_000, 10_000, 100_000] + ([1_000_000] if options.million else [])
    cases = [(100, devices) for devices in sizes] + [(zones, 100_000) for zones in (10, 1_000)]
    for zones, devices in cases:
        alone = measure(zones, devices, options.seed, options.seconds, None)
        counted = measure(zones, devices, options.seed, options.seconds, 10)
        print(f"{zones:>6} {devices:>9} {alone:>12,.0f} {counted:>24,.0f}")
    site = campus(10, options.seed)
    print(
        f"memory: {bytes_per_device(site, 1_000_000):.0f} bytes per device in the engine, with 1 000 000 devices and ids of 13 characters"
    )


if __name__ == "__main__":
    main()
