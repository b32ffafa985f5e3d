"""A campus whose buildings have known sizes, from a kiosk to a shopping centre."""

from __future__ import annotations

import math

import numpy as np

from headcount.counting.site import Site
from headcount.counting.site_file import parse_site
from headcount.lab.accuracy.results import ALL_ZONES, ZoneClass
from headcount.lab.figures.bench_fixes import feature, rectangle

#: Areas of the buildings in square metres, and number of buildings of each.
SIZES_M2 = (250, 500, 1000, 2000, 4000, 8000, 16_000)
EACH = 4
#: Distance of the centres of buildings, and length over width of each.
SPACING_M, RATIO = 220.0, 1.5
PARK_M = 70.0


def sized_site(seed: int) -> Site:
    """Buildings of `SIZES_M2`, each of them turned at random, and a row of car parks."""
    rng = np.random.default_rng([seed, 6])
    width_m, height_m = SPACING_M * len(SIZES_M2), SPACING_M * (EACH + 1)
    features = [feature("site", "sizes", None, rectangle(0.0, 0.0, width_m, height_m, 0.0))]
    for column, area_m2 in enumerate(SIZES_M2):
        x_m = (column + 0.5) * SPACING_M - width_m / 2
        long_m = math.sqrt(area_m2 * RATIO)
        for row in range(EACH):
            y_m = (row + 0.5) * SPACING_M - height_m / 2
            outline = rectangle(x_m, y_m, long_m, long_m / RATIO, rng.uniform(0, 180))
            features.append(feature("zone", f"b{area_m2}-{row}", "building", outline))
        y_m = (EACH + 0.5) * SPACING_M - height_m / 2
        features.append(
            feature("zone", f"park-{column}", "car_park", rectangle(x_m, y_m, PARK_M, PARK_M, 0.0))
        )
    return parse_site({"type": "FeatureCollection", "features": features}, "sizes")


def size_classes(site: Site) -> dict[str, ZoneClass]:
    """The buildings of each size."""
    ids = [zone.id for zone in site.zones]
    classes = {
        f"{area_m2:,} m²".replace(",", " "): ZoneClass(
            np.array([ids.index(f"b{area_m2}-{row}") for row in range(EACH)])
        )
        for area_m2 in SIZES_M2
    }
    return classes | {ALL_ZONES: ZoneClass(np.arange(1, len(ids)))}
