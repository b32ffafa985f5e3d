"""Ground truth: the true positions and zones of a crowd, to check counts against; reports never depend on it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shapely
from numpy.typing import NDArray

from headcount.messages.topics import KINDS
from headcount.simulate.crowd import Crowd, Reports
from headcount.simulate.places import to_degrees

HEADER = "t,device,kind,lat,lon,zones"


class GroundTruth:
    """Follows a crowd; a device's zones follow from geometry alone, without hysteresis, hold or noise.

    A device is in the zones of its newest row. Rows are written with its first step on site, with each of its
    reports, and whenever its zones have changed, at the resolution of the steps.
    """

    def __init__(self, crowd: Crowd) -> None:
        """Follow a crowd from its next step on."""
        self._crowd = crowd
        self._ids = [zone.id for zone in crowd.site.zones]
        self._tree = shapely.STRtree([zone.plane for zone in crowd.site.zones])
        self._zones = [""] * len(crowd.names)  # as in the newest row
        self._moved = np.ones(len(crowd.names), np.bool_)

    def rows(self, t_s: float, reports: Reports) -> Iterator[str]:
        """CSV lines after a step, in the order of devices, with the time `t_s` (Unix seconds)."""
        crowd = self._crowd
        moving = crowd.moving()
        checked = self._moved | moving
        checked[reports.device] = True
        self._moved = moving
        device = np.flatnonzero(checked)
        x, y = crowd.plane(device)
        lat, lon = to_degrees(crowd.site, x, y)
        zones = self._zones_at(shapely.points(x, y))
        reported = np.zeros(len(checked), np.bool_)
        reported[reports.device] = True
        for row, index in enumerate(device):
            if zones[row] != self._zones[index] or reported[index]:
                self._zones[index] = zones[row]
                name, kind = crowd.names[index], KINDS[crowd.kind[index]]
                yield f"{t_s:.3f},{name},{kind},{lat[row]:.7f},{lon[row]:.7f},{zones[row]}"

    def _zones_at(self, points: NDArray[np.object_]) -> list[str]:
        """The ids of the zones that cover each point, joined by `;`, in the order of the site."""
        found: list[list[int]] = [[] for _ in points]
        for point, zone in zip(*self._tree.query(points, predicate="intersects"), strict=True):
            found[point].append(zone)
        return [";".join(self._ids[zone] for zone in sorted(zones)) for zones in found]
