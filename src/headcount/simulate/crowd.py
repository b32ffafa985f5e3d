"""A realistic campus day from a seed: positions of people and vehicles, and the reports of their devices.

Pure: no clock, and no randomness except for the generator passed in. Times are simulated seconds since the
midnight before the first day. One step is a few array operations over all devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely

from headcount.counting.fix_columns import B1, F8, I8, U1
from headcount.counting.site import Site
from headcount.simulate.places import OUTSIDE_M, find_places, to_degrees
from headcount.simulate.routes import AWAY, DRIVING, INDOORS, OUTDOORS, PARKED, WALKING, Routes, lay_routes
from headcount.simulate.timetable import draw_timetable

DAY_S = 86_400.0
#: Minimum and maximum seconds between two reports, by mode (AWAY … PARKED).
REPORT_S = np.array([[np.inf, np.inf], [15, 30], [10, 20], [60, 300], [60, 180], [20, 40]])
#: Fixes of a parked car; then its ignition is off, and it does not report until it drives.
PARKED_FIXES = 3
#: Seconds after which a moving device outside checks again whether it is on site.
POLL_INTERVAL_S = (5.0, 10.0)
#: Seconds after which half of a GPS error has decayed: errors of neighbouring fixes are similar.
ERROR_HALF_LIFE_S = 45.0
#: 68 % of a two-dimensional normal error of deviation 1 (each axis) lie within this radius.
RADIUS_68 = math.sqrt(-2 * math.log(1 - 0.68))
#: Metres of 68 % accuracy: of phones outdoors, of cars with an aerial, and of phones in buildings.
ACCURACY_OUTDOORS_M, ACCURACY_CAR_M, ACCURACY_INDOORS_M = (3.0, 15.0), (3.0, 8.0), (8.0, 40.0)


@dataclass(frozen=True, slots=True)
class Reports:
    """n fixes that are due at one instant. All arrays have length n."""

    t_s: float  # simulated seconds
    device: I8  # index into Crowd.names
    lat_deg: F8
    lon_deg: F8
    acc_m: F8  # 68 % radius of the error that is in lat and lon
    vel_kmh: F8
    cog_deg: F8
    true_lat_deg: F8
    true_lon_deg: F8

    def __len__(self) -> int:
        return len(self.device)


class Crowd:
    """People and vehicles of a site; `step` advances time and returns the reports that are due.

    Devices off site do not report, except for one fix outside after they have left.
    """

    def __init__(self, site: Site, people: int, vehicles: int, seed: int, start_s: float = 34_200.0) -> None:
        """Start at `start_s` (default 09:30); devices on site report within a minute.

        Args:
            site: any site; without buildings, car parks or gates, other zones replace them.
            people: number of phones, each carried by a person.
            vehicles: number of cars; as many of the people drive one.
            seed: of the generator. Same seed, same steps: same reports.
            start_s: seconds since the midnight before the first day.
        """
        self.site = site
        self.names = [f"p{seed}-{i:05d}" for i in range(people)] + [
            f"car{seed}-{i:05d}" for i in range(vehicles)
        ]
        self.kind = np.repeat(np.array([0, 1], np.uint8), [people, vehicles])
        self.t_s = start_s
        self._rng = np.random.default_rng(seed)
        self._places = find_places(site, self._rng)
        self._boundary = site.zones[0].plane
        shapely.prepare(self._boundary)
        n = people + vehicles
        self._silent = np.ones(
            n, np.bool_
        )  # the system does not know the device, or knows that it is outside
        self._due_s = np.full(n, np.inf)
        self._parked_fixes = np.zeros(n, np.int64)  # since each parked
        self._error = self._rng.normal(size=(2, n))  # of unit deviation
        self._error_s = np.full(n, start_s)
        self._accuracy_m = self._draw_accuracy()
        self._begin_day(start_s)
        self._advance(start_s)
        there = self._mode != AWAY
        self._due_s[there] = start_s + self._rng.uniform(0, 60, int(there.sum()))

    def step(self, t_s: float) -> Reports:
        """Advance to `t_s`, not before the last step; returns the reports that became due, all of this instant."""
        if t_s // DAY_S != self._day:
            self._begin_day(t_s)
        changed = self._advance(t_s)
        self._due_s[changed] = t_s
        self._parked_fixes[changed] = 0
        self.t_s = t_s
        due = np.flatnonzero(self._due_s <= t_s)
        x, y, speed_mps, cog = self._motion(due)
        mode = self._mode[due]
        is_on = self._is_on_site(mode, x, y)
        leaves = ~is_on & ~self._silent[due] & self._is_clear(mode, x, y, is_on)
        self._silent[due] = np.where(is_on, np.False_, self._silent[due] | leaves)
        self._schedule(due, mode, is_on)
        reports = is_on | leaves
        return self._report(due[reports], x[reports], y[reports], speed_mps[reports], cog[reports])

    def on_site(self) -> B1:
        """The devices on site now, by their true positions. Shape [N]."""
        x, y, _, _ = self._motion(np.arange(len(self.names)))
        return self._is_on_site(self._mode, x, y)

    def moving(self) -> B1:
        """The devices that walk or drive now. Shape [N]."""
        return np.isin(self._mode, (WALKING, DRIVING))

    def indoors(self) -> B1:
        """The devices that stay in a building now. Shape [N]."""
        return np.isin(self._mode, INDOORS)

    def parked(self) -> B1:
        """The vehicles that are parked now. Shape [N]."""
        return np.isin(self._mode, PARKED)

    def plane(self, device: I8) -> tuple[F8, F8]:
        """True x and y of these devices now, in metres of the site's plane."""
        x, y, _, _ = self._motion(device)
        return x, y

    # --- positions ---------------------------------------------------------------------------

    def _begin_day(self, t_s: float) -> None:
        people = int((self.kind == 0).sum())
        self._day = t_s // DAY_S
        timetable = draw_timetable(self._places, people, len(self.kind) - people, self._rng)
        self._routes: Routes = lay_routes(self._places, timetable, self._rng)
        self._at = self._routes.first.copy()  # the last frame that each device has passed
        self._mode: U1 = self._routes.mode[self._at]

    def _advance(self, t_s: float) -> B1:
        """Pass the frames up to `t_s`; returns the devices whose mode changed."""
        changed = np.zeros(len(self._at), np.bool_)
        day_s = t_s - self._day * DAY_S
        while (passes := self._routes.t_s[self._at + 1] <= day_s).any():
            self._at[passes] += 1
            changed |= passes
        mode = self._routes.mode[self._at]
        changed &= mode != self._mode
        self._mode = mode
        return changed

    def _motion(self, device: I8) -> tuple[F8, F8, F8, F8]:
        """x, y, speed and course of these devices at the time of the last step."""
        routes, at = self._routes, self._at[device]
        moves = np.isin(routes.mode[at], (WALKING, DRIVING))
        to = np.where(moves, at + 1, at)
        length_s = np.where(moves, routes.t_s[to] - np.where(moves, routes.t_s[at], 0), 1.0)
        passed_s = np.where(moves, self.t_s - self._day * DAY_S - np.where(moves, routes.t_s[at], 0), 0.0)
        share = np.clip(passed_s / np.maximum(length_s, 1e-9), 0, 1)
        dx, dy = routes.x_m[to] - routes.x_m[at], routes.y_m[to] - routes.y_m[at]
        speed_mps = np.hypot(dx, dy) / np.maximum(length_s, 1e-9)
        cog_deg = np.degrees(np.arctan2(dx, dy)) % 360
        return routes.x_m[at] + share * dx, routes.y_m[at] + share * dy, speed_mps, cog_deg

    def _is_on_site(self, mode: U1, x: F8, y: F8) -> B1:
        """Devices that stay somewhere are on site; moving ones may be on either side."""
        is_on: B1 = np.isin(mode, (INDOORS, OUTDOORS, PARKED))
        moves = np.flatnonzero(np.isin(mode, (WALKING, DRIVING)))
        is_on[moves] = shapely.contains_xy(self._boundary, x[moves], y[moves])
        return is_on

    def _is_clear(self, mode: U1, x: F8, y: F8, is_on: B1) -> B1:
        """The devices so far outside that a fix is outside, too."""
        is_clear: B1 = np.isin(mode, AWAY)
        near = np.flatnonzero(~is_on & ~is_clear)
        points = shapely.points(x[near], y[near])
        is_clear[near] = shapely.distance(points, self._boundary) >= OUTSIDE_M
        return is_clear

    # --- reports -----------------------------------------------------------------------------

    def _schedule(self, due: I8, mode: U1, is_on: B1) -> None:
        low, high = REPORT_S[mode].T
        polls = ~is_on & (mode != AWAY)
        low, high = np.where(polls, POLL_INTERVAL_S[0], low), np.where(polls, POLL_INTERVAL_S[1], high)
        share = self._rng.random(len(due))
        span = np.where(np.isinf(high), 0.0, high - np.where(np.isinf(high), 0.0, low))
        self._parked_fixes[due] += mode == PARKED
        is_off = self._parked_fixes[due] >= PARKED_FIXES
        self._due_s[due] = np.where(is_off, np.inf, self.t_s + low + share * span)

    def _report(self, device: I8, x: F8, y: F8, speed_mps: F8, cog_deg: F8) -> Reports:
        acc_m, error_x, error_y = self._draw_error(device)
        lat, lon = to_degrees(self.site, x + error_x, y + error_y)
        true_lat, true_lon = to_degrees(self.site, x, y)
        return Reports(self.t_s, device, lat, lon, acc_m, 3.6 * speed_mps, cog_deg, true_lat, true_lon)

    def _draw_accuracy(self) -> F8:
        """Each device's accuracy outdoors and indoors: 68 % radius in metres. Shape [2, N]."""
        typical = 5.5 * np.exp(self._rng.normal(0, 0.4, len(self.kind)))
        outdoors = np.where(
            self.kind == 0, np.clip(typical, *ACCURACY_OUTDOORS_M), np.clip(typical, *ACCURACY_CAR_M)
        )
        return np.array([outdoors, np.clip(2.5 * outdoors, *ACCURACY_INDOORS_M)])

    def _draw_error(self, device: I8) -> tuple[F8, F8, F8]:
        """Accuracy and error in metres: an AR(1) process per device, scaled by its surroundings."""
        keeps = 0.5 ** ((self.t_s - self._error_s[device]) / ERROR_HALF_LIFE_S)
        fresh = self._rng.normal(size=(2, len(device)))
        self._error[:, device] = keeps * self._error[:, device] + np.sqrt(1 - keeps**2) * fresh
        self._error_s[device] = self.t_s
        indoors = (self._mode[device] == INDOORS).astype(np.int64)
        spread = np.exp(self._rng.normal(0, 0.1, len(device)))
        acc_m = np.round(np.maximum(self._accuracy_m[indoors, device] * spread, ACCURACY_OUTDOORS_M[0]), 1)
        error_x, error_y = self._error[:, device] * acc_m / RADIUS_68
        return acc_m, error_x, error_y
