"""A generated day of many devices that report at one interval, for figures of the history. Pure.

Devices stay at a place of the site, go straight to another one, and stay again. Reported positions have a GPS
error that changes slowly. Everything is drawn from the seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headcount.counting.fix_columns import F8, I4, I8
from headcount.counting.site import Site
from headcount.history.buffer import CountRows, StoredColumns
from headcount.history.hours import HOUR_S
from headcount.messages.counts import COUNT_FIELDS
from headcount.messages.fixes import VERDICTS
from headcount.messages.topics import KINDS
from headcount.simulate.crowd import ERROR_HALF_LIFE_S, RADIUS_68
from headcount.simulate.places import POINTS_PER_PLACE, find_places

#: The first instant: a full hour.
START_S = 1_795_478_400.0
INTERVAL_S = 10.0
PARTITIONS = 16
#: Share of vehicles, and the mean of how long a person or vehicle stays.
VEHICLES, STAY_S = 0.2, np.array([1_500.0, 7_200.0])
#: Share of devices that report milliseconds and up to JITTER_S early or late, as web pages do; receivers and
#: trackers report whole seconds, in time. A fix arrives DELAY_S later, plus or minus NETWORK_S.
EXACT, JITTER_S = 0.2, 0.4
DELAY_S, NETWORK_S = (0.1, 0.6), 0.075
SPEED_MPS = np.array([1.4, 6.0])


@dataclass(frozen=True, slots=True)
class GeneratedHour:
    """All rows of an hour, in the order in which they were received."""

    fixes: StoredColumns
    counts: CountRows


class GeneratedDay:
    """Devices of a site; `hours` moves them and returns their rows."""

    def __init__(self, site: Site, devices: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        places = find_places(site, rng)
        self.zones = [zone.id for zone in site.zones[1:] if zone.type != "gate"] or [site.zones[0].id]
        self._site, self._rng = site, rng
        self._x_m, self._y_m = places.x_m.ravel(), places.y_m.ravel()  # place * POINTS_PER_PLACE + point
        self._kind = (rng.random(devices) < VEHICLES).astype(np.uint8)
        weight = np.sqrt(places.area_m2)
        parks = np.isin(np.arange(len(weight)), places.parks)
        self._weights = [weight / weight.sum(), weight * parks / (weight * parks).sum()]
        self._radius_m = np.where(places.is_indoors, 15.0, 6.0)

        self.device = rng.integers(0, 2**64, devices, dtype=np.uint64)
        self._is_exact = rng.random(devices) < EXACT
        phase_s = rng.uniform(JITTER_S, INTERVAL_S - 1 - JITTER_S, devices)
        self._phase_s = np.where(self._is_exact, phase_s, np.floor(phase_s))
        self._jitter_s = np.where(self._is_exact, JITTER_S, 0.0)
        self._delay_s = rng.uniform(*DELAY_S, devices)
        self._partition = rng.integers(0, PARTITIONS, devices).astype(np.int16)
        # the number of fixes of each partition in a tick, and their places when sorted by partition
        self._per_partition = np.bincount(self._partition, minlength=PARTITIONS)
        self._rank = np.concatenate([np.arange(n) for n in self._per_partition])

        self._point = self._draw(np.arange(devices))
        self._x, self._y = self._x_m[self._point], self._y_m[self._point]
        self._until_s = START_S + rng.exponential(STAY_S[self._kind])  # moving: of the past
        self._is_moving = np.zeros(devices, np.bool_)
        self._error = rng.standard_normal((2, devices))
        self._acc_m = self._draw_accuracy(np.arange(devices))
        self._tick = 0

    def hours(self, hours: float) -> Iterator[GeneratedHour]:
        """The next hours, one at a time; the last may be a part of one."""
        ticks, per_hour = round(hours * HOUR_S / INTERVAL_S), round(HOUR_S / INTERVAL_S)
        for first in range(0, ticks, per_hour):
            yield self._rows(min(per_hour, ticks - first))

    def _rows(self, ticks: int) -> GeneratedHour:
        n, rng = len(self.device), self._rng
        columns: dict[str, list[NDArray[Any]]] = {}
        values = np.zeros((ticks, len(self.zones), len(KINDS), len(COUNT_FIELDS)), np.int32)
        instants = START_S + np.arange(self._tick, self._tick + ticks, dtype=np.float64) * INTERVAL_S
        for i, instant_s in enumerate(instants.tolist()):
            self._move(instant_s)
            t_s = instant_s + self._phase_s + (self._jitter_s * rng.uniform(-1, 1, n)).round(3)
            received_s = t_s + self._delay_s + rng.uniform(-NETWORK_S, NETWORK_S, n)
            order = np.argsort(received_s)
            deviation_m = self._acc_m / RADIUS_68
            x_m, y_m = self._x + deviation_m * self._error[0], self._y + deviation_m * self._error[1]
            lat, lon = self._site.unproject(x_m[order], y_m[order])
            row = {
                "partition": self._partition[order],
                "seq": self._sequences(order),
                "t": t_s[order].round(3),
                "received": received_s[order],
                "device": self.device[order],
                "kind": self._kind[order],
                "lat": lat.round(7),
                "lon": lon.round(7),
                "acc": self._acc_m[order].astype(np.float32),
            }
            for name, column in row.items():
                columns.setdefault(name, []).append(column)
            values[i] = self._counts()
            self._tick += 1
        fixes = {"site": np.zeros(ticks * n, np.int16)}
        fixes |= {name: np.concatenate(parts) for name, parts in columns.items()}
        fixes["verdict"] = np.full(ticks * n, VERDICTS.index("accepted"), np.uint8)
        return GeneratedHour(fixes, self._count_rows(instants, values))

    def _sequences(self, order: I8) -> I8:
        """The fixes' sequences in their partitions' logs."""
        partition = self._partition[order]
        seq = np.empty(len(order), np.int64)
        seq[np.argsort(partition, kind="stable")] = self._rank
        return np.asarray(self._tick * self._per_partition[partition] + seq + 1)

    def _move(self, now_s: float) -> None:
        """Move all devices by one interval, and change their errors."""
        kind, rng = self._kind, self._rng
        leaves = np.flatnonzero(~self._is_moving & (self._until_s <= now_s))
        self._point[leaves] = self._draw(leaves)
        self._is_moving[leaves] = True
        moving = np.flatnonzero(self._is_moving)
        to_x, to_y = self._x_m[self._point[moving]], self._y_m[self._point[moving]]
        x, y = self._x[moving], self._y[moving]
        far_m, step_m = np.hypot(to_x - x, to_y - y), SPEED_MPS[kind[moving]] * INTERVAL_S
        share = np.minimum(1.0, step_m / np.maximum(far_m, 1e-9))
        self._x[moving], self._y[moving] = x + (to_x - x) * share, y + (to_y - y) * share
        arrived = moving[far_m <= step_m]
        self._is_moving[arrived] = False
        self._until_s[arrived] = now_s + rng.exponential(STAY_S[kind[arrived]])
        self._acc_m[arrived] = self._draw_accuracy(arrived)
        kept = 0.5 ** (INTERVAL_S / ERROR_HALF_LIFE_S)
        self._error *= kept
        self._error += np.sqrt(1 - kept**2) * rng.standard_normal(self._error.shape)

    def _draw(self, devices: I8) -> I8:
        """A point of a place for each device."""
        found = np.empty(len(devices), np.int64)
        for kind, weights in enumerate(self._weights):
            mine = self._kind[devices] == kind
            found[mine] = self._rng.choice(len(weights), int(mine.sum()), p=weights)
        return found * POINTS_PER_PLACE + self._rng.integers(0, POINTS_PER_PLACE, len(devices))

    def _draw_accuracy(self, devices: I8) -> F8:
        """The accuracy at each device's place, in tenths of a metre."""
        radius_m = self._radius_m[self._point[devices] // POINTS_PER_PLACE]
        return np.asarray((radius_m * self._rng.uniform(0.5, 2.0, len(devices))).round(1))

    def _counts(self) -> I4:
        """The devices that stay in each zone: all of them certain and fresh."""
        values = np.zeros((len(self.zones), len(KINDS), len(COUNT_FIELDS)), np.int32)
        for kind in range(len(KINDS)):
            staying = self._point[~self._is_moving & (self._kind == kind)] // POINTS_PER_PLACE
            values[:, kind, :3] = np.bincount(staying, minlength=len(self.zones))[:, None]
        return values

    def _count_rows(self, instants: F8, values: I4) -> CountRows:
        n = len(instants) * len(self.zones)
        return CountRows(
            at_s=np.repeat(instants, len(self.zones)),
            site=[self._site.id] * n,
            zone=self.zones * len(instants),
            values=values.reshape(n, len(KINDS), len(COUNT_FIELDS)),
            partitions=np.full(n, PARTITIONS, np.int16),
            partitions_total=np.full(n, PARTITIONS, np.int16),
        )
