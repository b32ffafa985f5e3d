"""A site of two buildings for hand-made cases, and fixes of a device in its plane."""

from __future__ import annotations

import numpy as np

from headcount.counting.site import Site
from headcount.counting.site_file import parse_site
from headcount.lab.accuracy.error_model import ReceivedFixes
from headcount.lab.accuracy.zone_geometry import ZoneGeometry
from headcount.lab.figures.bench_fixes import feature, rectangle

#: Zones of the site.
SITE, WEST, EAST = range(3)


def two_buildings() -> Site:
    """A site of 400 m by 200 m with a square building of 40 m at x = -60, and one at x = 60."""
    features = [
        feature("site", "small", None, rectangle(0, 0, 400, 200, 0)),
        feature("zone", "west", "building", rectangle(-60, 0, 40, 40, 0)),
        feature("zone", "east", "building", rectangle(60, 0, 40, 40, 0)),
    ]
    return parse_site({"type": "FeatureCollection", "features": features}, "small")


def zones() -> ZoneGeometry:
    """The zones of `two_buildings`."""
    return ZoneGeometry(two_buildings())


def fixes(
    x_m: list[float],
    acc_m: float | list[float] = 5.0,
    every_s: float = 30.0,
    device: list[int] | None = None,
) -> ReceivedFixes:
    """Fixes on the line through both buildings, each received immediately."""
    count = len(x_m)
    t_s = np.arange(count, dtype=np.float64) * every_s
    acc = np.broadcast_to(np.array(acc_m, np.float64), count).copy()
    who = np.zeros(count, np.int64) if device is None else np.array(device)
    return ReceivedFixes(who, t_s, t_s, np.array(x_m, np.float64), np.zeros(count), acc)
