"""The queries of `history`: their parameters, and what must be equal in all answers. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from headcount.counting.site import EARTH_RADIUS_M, Site
from headcount.history.buffer import StoredColumns
from headcount.lab.figures.generated_day import INTERVAL_S, START_S, GeneratedDay

#: Share of the site's bounding box that an area covers.
AREA_SHARE = 0.01
PAGE, NEAREST = 1000, 20
STEP_S = 60.0
#: How old a position at an instant may be, as in `history.queries`.
LAST_POSITION_US = 900 * 10**6

#: A fix in an answer: event time in microseconds since 1970, pseudonym.
FixKey = tuple[int, int]
#: A bucket: its end in microseconds, then last, min, max and mean of people and of vehicles.
Bucket = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """One set of parameters, for all queries."""

    box: tuple[float, float, float, float]  # west, south, east, north in degrees with 7 decimals
    polygon: shapely.Polygon  # of 16 corners around its middle, with a hole
    near: tuple[float, float, float]  # lat, lon in degrees, metres
    at_us: int  # in the past
    now_us: int  # the last instant of the day
    device: int
    zone: str
    from_us: int  # the day
    to_us: int


def questions(
    day: GeneratedDay, site: Site, first: StoredColumns, hours: float, number: int, seed: int
) -> list[Question]:
    """Areas around fixes of the first hour, and instants of the day, at least a quarter of an hour after its start."""
    rng = np.random.default_rng(seed)
    west, south, east, north = site.zones[0].geometry.bounds
    width, height = ((high - low) * math.sqrt(AREA_SHARE) for low, high in ((west, east), (south, north)))
    metres = (
        math.radians(height) * EARTH_RADIUS_M,
        math.radians(width) * EARTH_RADIUS_M * math.cos(math.radians(south)),
    )
    radius_m = math.sqrt(metres[0] * metres[1] / math.pi)
    angles = np.arange(16) / 8 * math.pi
    ring = np.stack([np.cos(angles) * width, np.sin(angles) * height], axis=1) / math.sqrt(math.pi)
    end_us = round((START_S + hours * 3600) * 1e6)
    earliest_us = min(round(START_S * 1e6) + LAST_POSITION_US, end_us - 10**7)
    found = []
    for row in rng.integers(0, len(first["t"]), number).tolist():
        lat, lon = float(first["lat"][row]), float(first["lon"][row])
        middle = np.array([lon, lat])
        box = (lon - width / 2, lat - height / 2, lon + width / 2, lat + height / 2)
        found.append(
            Question(
                (round(box[0], 7), round(box[1], 7), round(box[2], 7), round(box[3], 7)),
                shapely.Polygon(ring + middle, [ring / 3 + middle]),
                (lat, lon, radius_m),
                int(rng.integers(earliest_us, end_us)),
                end_us - round(INTERVAL_S * 1e6),  # pseudonyms change with the day
                int(rng.choice(day.device)),
                str(rng.choice(day.zones)),
                round(START_S * 1e6),
                end_us,
            )
        )
    return found


def same_page(one: Sequence[FixKey], other: Sequence[FixKey]) -> bool:
    """Whether two pages of the newest fixes agree: of fixes with the oldest time, which ones is not defined."""

    def defined(page: Sequence[FixKey]) -> tuple[list[int], set[FixKey]]:
        times = sorted((t for t, _ in page), reverse=True)
        return times, {key for key in page if key[0] > times[-1]}

    return (not one and not other) or (bool(one) and bool(other) and defined(one) == defined(other))


def same_buckets(one: Sequence[Bucket], other: Sequence[Bucket]) -> bool:
    """Whether two answers have the same counts over time."""
    return len(one) == len(other) and bool(np.allclose(np.array(one), np.array(other), rtol=1e-12))
