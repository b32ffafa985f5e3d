"""Movement on a campus: the simulated day, and people outside of buildings, who are hard to count."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapely

from headcount.counting.fix_columns import F8, I8
from headcount.counting.site import Site
from headcount.lab.accuracy.movement import (
    CARS,
    GRID_S,
    KERB,
    LATE,
    REPORTING,
    SECOND,
    SLEEPING,
    WALL,
    Movement,
    TrueFixes,
)
from headcount.simulate.crowd import Crowd

#: Share of the phones that sleep, and that deliver late; and of the people with a second device.
SLEEP_SHARE, LATE_SHARE, SECOND_SHARE = 0.15, 0.10, 0.10
#: Cars, people at the kerb, and people along a wall, for each person of the simulated day.
CAR_SHARE, KERB_SHARE, WALL_SHARE = 0.3, 0.1, 0.05
#: When the day starts, and how long devices report before the comparison starts.
START_S, WARM_UP_S = 9.75 * 3600, 900.0
#: Seconds between two steps of the simulated day.
STEP_S = 5.0
#: Distances from the wall of people at the kerb, and along a wall, in metres.
KERB_M, WALL_M = (0.0, 20.0), (1.0, 8.0)
WALK_MPS = 1.3
#: Seconds between two fixes of people at the kerb, and along a wall.
KERB_FIX_S, WALL_FIX_S = (60.0, 180.0), (15.0, 30.0)

Progress = Callable[[str, float], None]


def campus_movement(site: Site, people: int, hours: float, seed: int, progress: Progress) -> Movement:
    """A part of the simulated day, with the populations that are hard to count.

    Args:
        site: any site with a building.
        people: number of people of the simulated day.
        hours: duration of the comparison.
        seed: of the generators.
        progress: called with the share that is done.
    """
    rng = np.random.default_rng([seed, 1])
    crowd = Crowd(site, people, round(CAR_SHARE * people), seed, START_S)
    day = _simulated_day(crowd, hours * 3600, progress)
    phones = np.flatnonzero(day.kind == 0)
    draw = rng.random(len(phones))
    day.population[phones[draw < SLEEP_SHARE]] = SLEEPING
    day.population[phones[draw > 1 - LATE_SHARE]] = LATE
    second = rng.choice(phones, round(SECOND_SHARE * people), replace=False)
    parts = [day, day.copies(second, SECOND)]
    for share, outside in ((KERB_SHARE, _stand_at_kerbs), (WALL_SHARE, _walk_along_walls)):
        first_person = sum(len(part) for part in parts)
        parts.append(outside(site, max(1, round(share * people)), day.at_s, first_person, rng))
    return Movement.joined(parts)


def _simulated_day(crowd: Crowd, seconds: float, progress: Progress) -> Movement:
    devices = np.arange(len(crowd.names))
    steps = round((WARM_UP_S + seconds) / STEP_S)
    at_s, x_m, y_m, parts = [], [], [], []
    for step in range(1, steps + 1):
        t_s = START_S + step * STEP_S
        reports = crowd.step(t_s)
        if len(reports):
            x, y = crowd.plane(reports.device)
            time_s = np.full(len(reports), t_s)
            indoors, moving = crowd.indoors()[reports.device], crowd.moving()[reports.device]
            parts.append(TrueFixes(reports.device, time_s, time_s, x, y, indoors, moving))
        if t_s >= START_S + WARM_UP_S and t_s % GRID_S == 0:
            x, y = crowd.plane(devices)
            at_s.append(t_s)
            x_m.append(x)
            y_m.append(y)
        if step % 100 == 0:
            progress("simulated day", step / steps)
    population = np.where(crowd.kind == 1, CARS, REPORTING).astype(np.uint8)
    fixes = TrueFixes.joined(parts)
    return Movement(crowd.kind, devices, population, np.array(at_s), np.array(x_m), np.array(y_m), fixes)


def _outside(site: Site, number: int, distance_m: F8, rng: np.random.Generator) -> list[shapely.Geometry]:
    """For each of some people: the line at a distance around a building."""
    buildings = [zone.plane for zone in site.zones if zone.type == "building"]
    chosen = rng.integers(0, len(buildings), number)
    return [
        shapely.get_exterior_ring(max(shapely.get_parts(ring), key=shapely.area))
        for ring in shapely.buffer(np.array(buildings, dtype=object)[chosen], distance_m)
    ]


def _stand_at_kerbs(
    site: Site, number: int, at_s: F8, first_person: int, rng: np.random.Generator
) -> Movement:
    """People who stand outside a building all the time."""
    lines = _outside(site, number, rng.uniform(*KERB_M, number), rng)
    points = shapely.line_interpolate_point(lines, rng.random(number), normalized=True)
    device, t_s = _report_times(number, at_s, KERB_FIX_S, rng)
    x, y = shapely.get_x(points), shapely.get_y(points)
    still = np.zeros(len(device), np.bool_)
    fixes = TrueFixes(device, t_s, t_s, x[device], y[device], still, still)
    shape = (len(at_s), number)
    everywhere = np.broadcast_to(x, shape), np.broadcast_to(y, shape)
    return _pedestrians(KERB, first_person, at_s, *everywhere, fixes)


def _walk_along_walls(
    site: Site, number: int, at_s: F8, first_person: int, rng: np.random.Generator
) -> Movement:
    """People who walk around a building all the time."""
    lines = np.array(_outside(site, number, rng.uniform(*WALL_M, number), rng), dtype=object)
    length_m = shapely.length(lines)
    start_m = rng.random(number) * length_m

    def places(who: I8, t_s: F8) -> tuple[F8, F8]:
        points = shapely.line_interpolate_point(lines[who], (start_m[who] + WALK_MPS * t_s) % length_m[who])
        return shapely.get_x(points), shapely.get_y(points)

    device, t_s = _report_times(number, at_s, WALL_FIX_S, rng)
    x, y = places(device, t_s)
    fixes = TrueFixes(device, t_s, t_s, x, y, np.zeros(len(device), np.bool_), np.ones(len(device), np.bool_))
    everyone = np.tile(np.arange(number), len(at_s))
    grid_x, grid_y = places(everyone, np.repeat(at_s, number))
    shape = (len(at_s), number)
    return _pedestrians(WALL, first_person, at_s, grid_x.reshape(shape), grid_y.reshape(shape), fixes)


def _report_times(
    number: int, at_s: F8, every_s: tuple[float, float], rng: np.random.Generator
) -> tuple[I8, F8]:
    """Device and time of each fix, from the warm-up to the last instant."""
    start_s = at_s[0] - WARM_UP_S
    count = int((at_s[-1] - start_s) / every_s[0]) + 1
    t_s = start_s + np.cumsum(rng.uniform(*every_s, (number, count)), axis=1)
    device, _ = np.nonzero(t_s <= at_s[-1])
    return device, t_s[t_s <= at_s[-1]]


def _pedestrians(
    population: int, first_person: int, at_s: F8, x_m: F8, y_m: F8, fixes: TrueFixes
) -> Movement:
    number = x_m.shape[1]
    return Movement(
        np.zeros(number, np.uint8),
        first_person + np.arange(number),
        np.full(number, population, np.uint8),
        at_s,
        x_m,
        y_m,
        fixes,
    )
