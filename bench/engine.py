"""How fast the engine is on one core: fixes/s, cost by devices and by zones, memory per device."""

from __future__ import annotations

import argparse
import gc
import json
import math
import time
import tracemalloc

import numpy as np
import shapely

from headcount.counting.engine import Engine
from headcount.counting.fixes import F8, Fixes
from headcount.counting.site import Site
from headcount.counting.sitefile import parse_site
from headcount.counting.zones import Zones

#: A campus of about this size, whatever the number of zones.
SIDE_M = 1500.0
BATCH = 10_000
LAT0, LON0 = 52.67, -8.57
M_PER_DEGREE = 111_195.0


def campus(zones: int, seed: int) -> Site:
    """A square campus with buildings of 40 to 90 m in a grid of random offsets, turned at random."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(zones)))
    step_m = SIDE_M / side
    size_m = min(1.0, step_m / 100.0)
    features = [_feature("site", "campus", None, _box(0.0, 0.0, SIDE_M, SIDE_M, 0.0))]
    for i in range(zones):
        x_m = (i % side + 0.5) * step_m - SIDE_M / 2 + rng.uniform(-0.1, 0.1) * step_m
        y_m = (i // side + 0.5) * step_m - SIDE_M / 2 + rng.uniform(-0.1, 0.1) * step_m
        width, height = rng.uniform(40, 90, 2) * size_m
        features.append(
            _feature("zone", f"z{i}", "building", _box(x_m, y_m, width, height, rng.uniform(0, 90)))
        )
    return parse_site({"type": "FeatureCollection", "features": features}, "bench")


def _box(x_m: float, y_m: float, width_m: float, height_m: float, turn: float) -> shapely.Polygon:
    box = shapely.box(x_m - width_m / 2, y_m - height_m / 2, x_m + width_m / 2, y_m + height_m / 2)
    angle = np.radians(turn)
    turned = shapely.transform(
        box,
        lambda p: np.stack(
            [
                x_m + (p[:, 0] - x_m) * np.cos(angle) - (p[:, 1] - y_m) * np.sin(angle),
                y_m + (p[:, 0] - x_m) * np.sin(angle) + (p[:, 1] - y_m) * np.cos(angle),
            ],
            axis=1,
        ),
    )
    return shapely.transform(turned, lambda p: np.stack(_degrees(p[:, 0], p[:, 1])[::-1], axis=1))


def _degrees(x_m: F8, y_m: F8) -> tuple[F8, F8]:
    return LAT0 + y_m / M_PER_DEGREE, LON0 + x_m / (M_PER_DEGREE * math.cos(math.radians(LAT0)))


def _feature(role: str, name: str, type_: str | None, shape: shapely.Polygon) -> dict[str, object]:
    properties = {"role": role, "id": name, "name": name} | ({"type": type_} if type_ else {})
    return {"type": "Feature", "properties": properties, "geometry": json.loads(shapely.to_geojson(shape))}


def measure(site: Site, devices: int, seed: int, seconds: float) -> tuple[float, float]:
    """Fixes per second of `step` and `advance`, and of `counts` taken once per 10 batches."""
    rng = np.random.default_rng(seed)
    engine = Engine(site, Zones(site))
    slots = engine.slots([b"person.d%d" % i for i in range(devices)])
    x_m, y_m = rng.uniform(-SIDE_M / 2, SIDE_M / 2, (2, devices))
    now_s, moved, steps_s, counts_s = 1.8e9, 0, 0.0, 0.0
    rounds = 0
    while steps_s < seconds or rounds < 4 + 2 * devices // BATCH:
        pick = rng.integers(0, devices, BATCH) if devices < BATCH else rng.permutation(devices)[:BATCH]
        x_m[pick] += rng.normal(0, 3, len(pick))
        y_m[pick] += rng.normal(0, 3, len(pick))
        lat_deg, lon_deg = _degrees(x_m[pick], y_m[pick])
        t_s = now_s + np.arange(len(pick)) * 1e-4
        fixes = Fixes(
            slots[pick],
            np.zeros(len(pick), np.uint8),
            t_s,
            t_s,
            lat_deg,
            lon_deg,
            rng.uniform(3, 15, len(pick)),
        )
        began = time.perf_counter()
        engine.step(fixes)
        engine.advance(now_s)
        stepped = time.perf_counter()
        if rounds % 10 == 9:
            engine.counts(now_s)
        counted = time.perf_counter()
        # the first rounds let every device in, and the zones learn their transitions
        if rounds >= 2 + devices // BATCH:
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
        alone, counted = measure(campus(zones, options.seed), devices, options.seed, options.seconds)
        print(f"{zones:>6} {devices:>9} {alone:>12,.0f} {counted:>24,.0f}")
    site = campus(10, options.seed)
    print(f"memory: {bytes_per_device(site, 200_000):.0f} bytes a device in the engine")


if __name__ == "__main__":
    main()
