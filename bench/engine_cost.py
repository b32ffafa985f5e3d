"""How fast the engine is on one core: fixes/s, cost by devices and by zones, memory per device.

Times are this process's CPU time, so that a busy machine doesn't matter.
"""

from __future__ import annotations

import argparse
import gc
import time
import tracemalloc

import numpy as np

from campus import campus, degrees, side
from headcount.counting.engine import Engine
from headcount.counting.fixes import F8, Fixes
from headcount.counting.site import Site
from headcount.counting.zones import Zones

BATCH = 10_000
#: Not measured: the zones learn their transitions.
WARM_FIXES = 4_000_000


def measure(zones: int, devices: int, seed: int, seconds: float) -> tuple[float, float]:
    """Fixes per second of `step` and `advance`, and of `counts` taken once per 10 batches."""
    rng = np.random.default_rng(seed)
    side_m = side(zones)
    site = campus(zones, seed)
    engine = Engine(site, Zones(site))
    slots = engine.slots([b"person.d%d" % i for i in range(devices)])
    x_m: F8 = rng.uniform(-side_m / 2, side_m / 2, devices)
    y_m: F8 = rng.uniform(-side_m / 2, side_m / 2, devices)
    now_s, moved, steps_s, counts_s = 1.8e9, 0, 0.0, 0.0
    rounds = 0
    while steps_s < seconds:
        pick = rng.integers(0, devices, BATCH) if devices < BATCH else rng.permutation(devices)[:BATCH]
        x_m[pick] += rng.normal(0, 3, len(pick))
        y_m[pick] += rng.normal(0, 3, len(pick))
        lat_deg, lon_deg = degrees(x_m[pick], y_m[pick])
        t_s = np.asarray(now_s + np.arange(len(pick)) * 1e-4, dtype=np.float64)
        fixes = Fixes(
            slots[pick],
            np.zeros(len(pick), np.uint8),
            t_s,
            t_s,
            lat_deg,
            lon_deg,
            rng.uniform(3, 15, len(pick)),
        )
        began = time.process_time()
        engine.step(fixes)
        engine.advance(now_s)
        stepped = time.process_time()
        if rounds % 10 == 9:
            engine.counts(now_s)
        counted = time.process_time()
        # the first rounds let every device in, and the zones learn their transitions
        if rounds >= WARM_FIXES // BATCH + devices // BATCH:
            steps_s += stepped - began
            counts_s += counted - stepped
            moved += len(pick)
        now_s += 2.0
        rounds += 1
    return moved / steps_s, moved / (steps_s + counts_s)


def bytes_per_device(site: Site, devices: int) -> float:
    """What a device takes in the engine: its id, its place in the index, its columns."""
    gc.collect()
    tracemalloc.start()
    engine = Engine(site, Zones(site))
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
        alone, counted = measure(zones, devices, options.seed, options.seconds)
        print(f"{zones:>6} {devices:>9} {alone:>12,.0f} {counted:>24,.0f}")
    site = campus(10, options.seed)
    print(
        f"memory: {bytes_per_device(site, 1_000_000):.0f} bytes a device in the engine, of 1 000 000, ids of 13 characters"
    )


if __name__ == "__main__":
    main()
