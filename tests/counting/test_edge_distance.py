"""The shortcut for accuracy circles far from every outline."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from headcount.counting.edge_distance import MAX_DISTANCE_M, SQUARE_M, EdgeDistance
from headcount.counting.site_file import parse_site
from headcount.lab.chaos.scenarios import random_scenario


@settings(max_examples=30)
@given(st.integers(0, 2**63 - 1))
def test_no_edge_is_nearer_than_reported(seed: int) -> None:
    """The distance to the nearest outline is never below the returned bound, at any position and on any call."""
    site = parse_site(random_scenario(Random(seed)).geojson, "scene")
    clearance = EdgeDistance(site)
    rng = np.random.default_rng(seed)
    min_x, min_y, max_x, max_y = site.zones[0].plane.bounds
    x_m, y_m = rng.uniform(min_x - 20, max_x + 20, 400), rng.uniform(min_y - 20, max_y + 20, 400)
    x_m[:2], y_m[:2] = (1e300, np.inf), (-1e300, np.nan)
    # where squares meet, and one line of squares beyond the site
    x_m[50:150] = min_x + np.round((x_m[50:150] - min_x) / SQUARE_M) * SQUARE_M
    y_m[100:200] = min_y + np.round((y_m[100:200] - min_y) / SQUARE_M) * SQUARE_M
    x_m[100:110], y_m[110:120] = (
        min_x + math.ceil((max_x - min_x) / SQUARE_M) * SQUARE_M,
        min_y + math.ceil((max_y - min_y) / SQUARE_M) * SQUARE_M,
    )
    outlines = shapely.union_all([zone.plane.boundary for zone in site.zones])
    for count in (100, 400):
        told = clearance.at_least_m(x_m[:count], y_m[:count])
        true = shapely.distance(outlines, shapely.points(x_m[2:count], y_m[2:count]))
        assert np.isneginf(told[:2]).all()
        assert (told[2:] <= true).all()
        assert (told <= MAX_DISTANCE_M).all()
