"""A day's movement as key frames: between two frames, devices move straight and at constant speed.

    t ─── x, y ─── mode until the next frame

The frames of a device are contiguous and in order; the first is at -inf, the last at +inf, both off site.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headcount.counting.fix_columns import F8, I8, U1
from headcount.simulate.places import Places
from headcount.simulate.timetable import HOURS, Timetable, draw_points

#: Modes of movement.
AWAY, WALKING, DRIVING, INDOORS, OUTDOORS, PARKED = range(6)
WALK_MPS = (1.2, 1.5)
DRIVE_MPS = (5.0, 10.0)
#: Deviation of a path from the straight line: share of its length, and maximum in metres.
BEND_SHARE, BEND_M = 0.04, 12.0
#: Seconds between parking and leaving the car, and between returning to it and driving.
BOARDING_S = 40.0
#: Minimum seconds at a place.
MIN_STAY_S = 60.0


@dataclass(frozen=True, slots=True)
class Routes:
    """Frames of N devices, people first; all arrays except `first` have one entry per frame."""

    first: I8  # [N] index of each device's first frame
    t_s: F8  # seconds since midnight
    x_m: F8
    y_m: F8
    mode: U1


class _Frames:
    """Collects frames of many devices; the frames of a device must be added in order."""

    def __init__(self) -> None:
        self.parts: list[tuple[I8, F8, F8, F8, U1]] = []

    def add(self, device: I8, t_s: F8, x_m: F8, y_m: F8, mode: int | U1) -> None:
        self.parts.append((device, t_s, x_m, y_m, np.broadcast_to(np.uint8(mode), device.shape)))

    def routes(self, devices: int) -> Routes:
        device, t_s, x_m, y_m, mode = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        order = np.argsort(device, kind="stable")
        first = np.searchsorted(device[order], np.arange(devices))
        return Routes(first, t_s[order], x_m[order], y_m[order], mode[order])


def lay_routes(places: Places, timetable: Timetable, rng: np.random.Generator) -> Routes:
    """Build the routes between the stays of a timetable: devices 0 … P-1 are people, then V cars."""
    return _RouteBuilder(places, timetable, rng).lay()


class _RouteBuilder:
    """The positions of all devices while the hours of the timetable pass."""

    def __init__(self, places: Places, timetable: Timetable, rng: np.random.Generator) -> None:
        self.places, self.timetable, self.rng = places, timetable, rng
        self.people, self.cars = len(timetable.come), len(timetable.park)
        n = self.people + self.cars
        self.gate = rng.integers(0, len(places.gate_x_m), n)
        driver = np.flatnonzero(timetable.car_of >= 0)
        self.gate[driver] = self.gate[self.people + timetable.car_of[driver]]
        self.pace_mps = np.where(
            np.arange(n) < self.people, rng.uniform(*WALK_MPS, n), rng.uniform(*DRIVE_MPS, n)
        )
        self.x_m, self.y_m = places.out_x_m[self.gate], places.out_y_m[self.gate]
        self.free_s = np.zeros(n)
        self.spot = draw_points(timetable.park, rng)
        self.frames = _Frames()

    def lay(self) -> Routes:
        n = self.people + self.cars
        devices = np.arange(n)
        self.frames.add(devices, np.full(n, -np.inf), self.x_m, self.y_m, AWAY)
        for hour in range(1, HOURS):
            self._people_move(hour)
            self._cars_without_driver_move(hour)
        self.frames.add(devices, np.full(n, np.inf), self.x_m, self.y_m, AWAY)
        return self.frames.routes(n)

    def _people_move(self, hour: int) -> None:
        table = self.timetable
        before, after = table.place[:, hour - 1], table.place[:, hour]
        moves = before != after
        drives = table.car_of >= 0
        walks = np.flatnonzero(moves & ~(drives & ((before < 0) | (after < 0))))
        comes = np.flatnonzero(moves & drives & (before < 0))
        goes = np.flatnonzero(moves & drives & (after < 0))
        hour_s = hour * 3600 + table.shift_s
        start_s = hour_s - np.where(before < 0, 420 + self.rng.exponential(400, self.people), 0.0)
        start_s += self.rng.uniform(-420, 60, self.people)
        start_s = np.where(after < 0, hour_s + self.rng.uniform(-300, 900, self.people), start_s)
        self._walk(walks, start_s[walks], before[walks], after[walks])
        self._come_by_car(comes, start_s[comes] - 300, after[comes])
        self._go_by_car(goes, start_s[goes])

    def _cars_without_driver_move(self, hour: int) -> None:
        table = self.timetable
        alone = np.ones(self.cars, np.bool_)
        alone[table.car_of[table.car_of >= 0]] = False
        alone &= table.park >= 0
        for hours, drive in ((table.car_come, self._drive_in), (table.car_go, self._drive_out)):
            cars = np.flatnonzero(alone & (hours == hour))
            start_s = hour * 3600 + table.car_shift_s[cars] + self.rng.uniform(-1200, 600, len(cars))
            drive(cars, start_s, None)

    def _walk(self, who: I8, start_s: F8, before: I8, after: I8) -> None:
        """Walk from a place to a place, through the device's gate if one of them is outside."""
        places, gate = self.places, self.gate[who]
        spot = draw_points(after, self.rng)
        to_x = np.where(after < 0, places.out_x_m[gate], places.x_m[after, spot])
        to_y = np.where(after < 0, places.out_y_m[gate], places.y_m[after, spot])
        stay = np.where(after < 0, AWAY, np.where(places.is_indoors[after], INDOORS, OUTDOORS)).astype(
            np.uint8
        )
        crosses = (before < 0) | (after < 0)
        via = np.where(crosses, gate, -1)
        self._go([(who, stay)], start_s, to_x, to_y, via, WALKING)

    def _come_by_car(self, who: I8, start_s: F8, after: I8) -> None:
        cars = self.timetable.car_of[who]
        self._drive_in(cars, start_s, who)
        self.x_m[who], self.y_m[who] = self.x_m[self.people + cars], self.y_m[self.people + cars]
        parked_s = self.free_s[self.people + cars]
        self.free_s[who] = parked_s
        self._walk(who, parked_s + BOARDING_S, np.zeros_like(after), after)

    def _go_by_car(self, who: I8, start_s: F8) -> None:
        cars = self.timetable.car_of[who]
        car_x, car_y = self.x_m[self.people + cars], self.y_m[self.people + cars]
        self._go([(who, OUTDOORS)], start_s, car_x, car_y, np.full(len(who), -1), WALKING)
        self._drive_out(cars, self.free_s[who] + BOARDING_S, who)

    def _drive_in(self, cars: I8, start_s: F8, drivers: I8 | None) -> None:
        park, spot = self.timetable.park[cars], self.spot[cars]
        to_x, to_y = self.places.x_m[park, spot], self.places.y_m[park, spot]
        devices = self.people + cars
        phones: list[tuple[I8, int | U1]] = [] if drivers is None else [(drivers, OUTDOORS)]
        self._go([(devices, PARKED), *phones], start_s, to_x, to_y, self.gate[devices], DRIVING)

    def _drive_out(self, cars: I8, start_s: F8, drivers: I8 | None) -> None:
        devices = self.people + cars
        gate = self.gate[devices]
        phones: list[tuple[I8, int | U1]] = [] if drivers is None else [(drivers, AWAY)]
        to_x, to_y = self.places.out_x_m[gate], self.places.out_y_m[gate]
        self._go([(devices, AWAY), *phones], start_s, to_x, to_y, gate, DRIVING)

    def _go(
        self, moved: list[tuple[I8, int | U1]], start_s: F8, to_x: F8, to_y: F8, via: I8, mode: int
    ) -> None:
        """Move devices through two intermediate points; no device starts before its last move has ended.

        Args:
            moved: devices that move together, each with its later mode; the first set the pace.
            start_s: earliest start of each.
            to_x: x of each destination.
            to_y: y of each destination.
            via: index of the gate that each passes, -1 = none.
            mode: mode of the movement.
        """
        who = moved[0][0]
        x, y = self.x_m[who], self.y_m[who]
        (x1, y1), (x2, y2) = self._bent(x, y, to_x, to_y, via)
        t = np.maximum(start_s, np.where(self.free_s[who] > 0, self.free_s[who] + MIN_STAY_S / 2, 0))
        frames = [(t, x, y)]
        for next_x, next_y in ((x1, y1), (x2, y2), (to_x, to_y)):
            t = t + np.hypot(next_x - x, next_y - y) / self.pace_mps[who]
            x, y = next_x, next_y
            frames.append((t, x, y))
        for devices, after in moved:
            for frame in frames[:-1]:
                self.frames.add(devices, *frame, mode)
            self.frames.add(devices, *frames[-1], after)
            self.x_m[devices], self.y_m[devices], self.free_s[devices] = x, y, t

    def _bent(self, x: F8, y: F8, to_x: F8, to_y: F8, via: I8) -> tuple[tuple[F8, F8], tuple[F8, F8]]:
        """The two intermediate points: near the thirds of the line, or the gate and one near the middle."""
        gate_x, gate_y = self.places.gate_x_m[via], self.places.gate_y_m[via]
        outwards = np.hypot(gate_x - x, gate_y - y) > np.hypot(gate_x - to_x, gate_y - to_y)
        first = [self._beside(x, y, to_x, to_y, 1 / 3), self._beside(x, y, to_x, to_y, 2 / 3)]
        from_x, from_y = np.where(outwards, x, gate_x), np.where(outwards, y, gate_y)
        until_x, until_y = np.where(outwards, gate_x, to_x), np.where(outwards, gate_y, to_y)
        inner = self._beside(from_x, from_y, until_x, until_y, 1 / 2)
        passes = via >= 0
        one_x = np.where(passes, np.where(outwards, inner[0], gate_x), first[0][0])
        one_y = np.where(passes, np.where(outwards, inner[1], gate_y), first[0][1])
        two_x = np.where(passes, np.where(outwards, gate_x, inner[0]), first[1][0])
        two_y = np.where(passes, np.where(outwards, gate_y, inner[1]), first[1][1])
        return (one_x, one_y), (two_x, two_y)

    def _beside(self, x: F8, y: F8, to_x: F8, to_y: F8, share: float) -> tuple[F8, F8]:
        bend = np.clip(self.rng.normal(0, BEND_SHARE, len(x)), -0.1, 0.1)
        length_m = np.maximum(np.hypot(to_x - x, to_y - y), 1e-9)
        bend *= np.minimum(length_m, BEND_M / 0.1) / length_m
        return x + share * (to_x - x) - bend * (to_y - y), y + share * (to_y - y) + bend * (to_x - x)
