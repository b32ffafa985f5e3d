"""Series of counts to test forecasts with: simulated weeks of a campus, and recorded days of buses."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headcount.counting.fix_columns import B1, F8, I8
from headcount.counting.site import Site
from headcount.history.forecast import SLOT_S, SLOTS
from headcount.simulate.places import Places, find_places
from headcount.simulate.timetable import Timetable, draw_timetable

PEOPLE, VEHICLES = 3000, 1000
#: Share of the people who come on each weekday, Monday first.
COMING = (0.75, 0.82, 0.80, 0.78, 0.60, 0.12, 0.07)
#: Each day, the weather changes this share by a factor: its logarithm has this deviation, and this share of the
#: day before remains. It decides how many of those outdoors stay there, too.
WEATHER, REMAINS = 0.1, 0.6
#: Standard deviation of when a person is early or late, and of when all are, in seconds.
OWN_DELAY_S, COMMON_DELAY_S = 600.0, 300.0
#: Share of the people on a holiday, and how many times as many on an open day.
HOLIDAY, OPEN_DAY = 0.06, 1.4
#: Special days come after the first two weeks.
FIRST_SPECIAL_DAY = 15
#: Zones with smaller maxima have nothing to forecast.
MIN_PEOPLE, MIN_VEHICLES = 10, 5
#: Monday, 1970-01-05: the first slot of a series.
FIRST_SLOT = 4 * SLOTS
#: Buses are counted in cells of this size, in degrees; the busiest ones.
CELL_DEG, CELLS = 0.02, 8


@dataclass(frozen=True, slots=True)
class CountSeries:
    """The counts of a zone in each slot."""

    zone_type: str
    values: F8
    first_slot: int
    special_days: tuple[int, ...] = ()


def simulated_weeks(site: Site, days: int, seed: int) -> list[CountSeries]:
    """Days of a campus by the simulator's timetable: one for each weekday, with the same people every week."""
    rng = np.random.default_rng(seed)
    places = find_places(site, rng)
    timetables = [draw_timetable(places, PEOPLE, VEHICLES, rng) for _ in COMING]
    special = sorted(int(day) for day in rng.choice(np.arange(FIRST_SPECIAL_DAY, days), 2, replace=False))
    weather, parts = 0.0, []
    for day in range(days):
        weather = REMAINS * weather + rng.normal()
        share = COMING[day % 7] * np.exp(WEATHER * weather)
        if day in special:
            share = HOLIDAY if day == special[0] else OPEN_DAY * share
        parts.append(_day(places, timetables[day % 7], min(share, 1.0), weather, rng))
    people, vehicles = (np.concatenate(part) for part in zip(*parts, strict=True))
    types = [zone.type for zone in site.zones[1:] if zone.type != "gate"]
    found = [("site, people", people.sum(axis=1)), ("site, vehicles", vehicles.sum(axis=1))]
    for index, zone_type in enumerate(types):
        for kind, counts, least in (("people", people, MIN_PEOPLE), ("vehicles", vehicles, MIN_VEHICLES)):
            if counts[:, index].max() >= least:
                found.append((f"{zone_type}, {kind}".replace("_", " "), counts[:, index]))
    return [CountSeries(name, values, FIRST_SLOT, tuple(special)) for name, values in found]


def _day(
    places: Places, timetable: Timetable, share: float, weather: float, rng: np.random.Generator
) -> tuple[F8, F8]:
    """People and vehicles in each slot and place of a day. Shape [SLOTS, L]."""
    comes = rng.random(PEOPLE) < share
    drives = rng.random(VEHICLES) < share  # cars without a driver of their own
    driver = np.flatnonzero(timetable.car_of >= 0)
    drives[timetable.car_of[driver]] = comes[driver]
    late_s = rng.normal(0, OWN_DELAY_S, PEOPLE) + rng.normal(0, COMMON_DELAY_S)
    car_late_s = rng.normal(0, OWN_DELAY_S, VEHICLES)
    outdoors = np.clip(0.5 + 0.3 * weather, 0, 1)
    people, vehicles = np.zeros((2, SLOTS, len(places.area_m2)))
    for slot in range(SLOTS):
        t_s = (slot + 0.5) * SLOT_S
        hour = ((t_s - timetable.shift_s - late_s) // 3600).astype(np.int64)
        place = timetable.place[np.arange(PEOPLE), np.clip(hour, 0, 23)]
        there = comes & (hour >= 0) & (hour < 24) & (place >= 0)
        there &= ~np.isin(place, places.lawns) | (rng.random(PEOPLE) < outdoors)
        people[slot] = _counted(place, there, len(places.area_m2))
        car_s = t_s - timetable.car_shift_s - car_late_s
        parked = drives & (timetable.park >= 0)
        parked &= (car_s >= 3600.0 * timetable.car_come) & (car_s < 3600.0 * timetable.car_go)
        vehicles[slot] = _counted(timetable.park, parked, len(places.area_m2))
    return people, vehicles


def _counted(place: I8, there: B1, places: int) -> F8:
    counts: F8 = np.bincount(place[there], minlength=places).astype(np.float64)
    return counts


def recorded_day(path: Path) -> list[CountSeries]:
    """Different buses in each quarter of an hour of a recording, in all and in the busiest cells of a grid.

    Args:
        path: CSV with `t`, `device`, `lat`, `lon`, perhaps compressed with gzip.
    """
    seen: dict[tuple[float, float] | None, set[tuple[int, str]]] = {}
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for row in csv.DictReader(file):
            lat, lon = float(row["lat"]), float(row["lon"])
            if lat == 0 and lon == 0:
                continue
            bus = (int(float(row["t"]) // SLOT_S), row["device"])
            for cell in (None, (lat // CELL_DEG, lon // CELL_DEG)):
                seen.setdefault(cell, set()).add(bus)
    slots = [slot for slot, _ in seen[None]]
    first, last = min(slots), max(slots)
    total = _by_slot(seen[None], first, last)  # 0: the recording has a gap
    busiest = sorted(seen, key=lambda cell: -len(seen[cell]))[: CELLS + 1]
    return [
        CountSeries(
            "all buses" if cell is None else "buses in a cell",
            np.where(total > 0, _by_slot(seen[cell], first, last), np.nan),
            first,
        )
        for cell in busiest
    ]


def _by_slot(seen: set[tuple[int, str]], first: int, last: int) -> F8:
    counts = Counter(slot for slot, _ in seen)
    return np.array([counts[slot] for slot in range(first, last + 1)], dtype=np.float64)
