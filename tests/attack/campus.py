"""A campus made to be attacked: zones that nest, overlap and divide others without a rest; people who move."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headcount.counting.site import Site
from headcount.counting.site_file import parse_site

I4 = NDArray[np.int32]
Bool = NDArray[np.bool_]

WIDTH, HEIGHT = 24, 16
#: West, south, east, north in cells.
ZONES = {
    "site": (0, 0, WIDTH, HEIGHT),
    # two zones that are the whole site
    "north": (0, 8, 24, 16),
    "south": (0, 0, 24, 8),
    # a building and its wings, without a rest
    "block": (2, 9, 10, 15),
    "west-wing": (2, 9, 6, 15),
    "east-wing": (6, 9, 10, 15),
    # one in the other
    "library": (12, 9, 20, 15),
    "reading-room": (13, 10, 18, 14),
    "alcove": (14, 11, 16, 13),
    # two that overlap, and one within what they share
    "plaza": (2, 2, 14, 7),
    "stage": (11, 3, 19, 6),
    "kiosk": (12, 4, 13, 5),
    # a hall of four rooms
    "hall": (20, 4, 24, 8),
    "room-1": (20, 4, 22, 6),
    "room-2": (22, 4, 24, 6),
    "room-3": (20, 6, 22, 8),
    "room-4": (22, 6, 24, 8),
    "gate": (20, 1, 23, 3),
}
PEOPLE = 160
STEP_S = 10
#: The site is empty at the start and the end, and fullest in the middle.
MEAN_STAY_S = 900.0
START_S = 1_795_500_000 // 86_400 * 86_400 + 8 * 3600  # eight in the morning of some day
_CELL_DEG = 0.0005
_ORIGIN_DEG = (0.0, 50.0)


@dataclass(frozen=True)
class Day:
    """The true positions of a day."""

    times_s: NDArray[np.float64]  # [T] Unix seconds, STEP_S apart
    counts: I4  # [T, Z] people, zones in the order of ZONES


class Campus:
    """The map, which everybody knows."""

    names = tuple(ZONES)

    @cached_property
    def members(self) -> Bool:
        """[Z, cells]: which cells belong to which zone."""
        y, x = np.divmod(np.arange(WIDTH * HEIGHT), WIDTH)
        return np.array([(x >= w) & (x < e) & (y >= s) & (y < n) for w, s, e, n in ZONES.values()])

    @cached_property
    def site(self) -> Site:
        """The same as a site file."""
        features = [_feature(name, box) for name, box in ZONES.items()]
        return parse_site({"type": "FeatureCollection", "features": features}, "campus")

    def day(self, rng: np.random.Generator, hours: float, start_s: float = START_S) -> Day:
        """People who choose a place, stay for a while, and choose another or leave."""
        steps = int(hours * 3600 / STEP_S)
        places = [np.flatnonzero(self.members[z]) for z in range(1, len(ZONES))]
        # how popular a place is differs from day to day, and is unknown outside
        weights = rng.gamma(0.8, size=len(places))
        weights /= weights.sum()
        cell = np.full(PEOPLE, -1)
        counts = np.zeros((steps, len(ZONES)), np.int32)
        for step in range(steps):
            moving = np.flatnonzero(rng.random(PEOPLE) < STEP_S / MEAN_STAY_S)
            here = rng.random(len(moving)) < 0.9 * np.sin(np.pi * (step + 1) / (steps + 1))
            chosen = rng.choice(len(places), size=len(moving), p=weights)
            for person, present, place in zip(moving, here, chosen, strict=True):
                cell[person] = rng.choice(places[place]) if present else -1
            there = cell[cell >= 0]
            counts[step] = self.members[:, there].sum(axis=1)
        return Day(start_s + float(STEP_S) * np.arange(steps, dtype=np.float64), counts)


def _feature(name: str, box: tuple[int, int, int, int]) -> dict[str, Any]:
    west, south, east, north = (_ORIGIN_DEG[i % 2] + _CELL_DEG * edge for i, edge in enumerate(box))
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    properties: dict[str, Any] = {"role": "zone", "id": name, "type": "area"}
    if name == "site":
        properties = {"role": "site", "id": "campus"}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }
