"""True positions of devices, and the instants at which they report; the same for every source of movement."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from headcount.counting.fix_columns import B1, F8, I8, U1

#: Names of the populations; `Movement.population` is an index.
POPULATIONS = (
    "phones that always report",
    "phones that sleep",
    "phones that deliver late",
    "second devices",
    "people at the kerb",
    "people along a wall",
    "cars",
)
REPORTING, SLEEPING, LATE, SECOND, KERB, WALL, CARS = range(len(POPULATIONS))
#: Seconds between two instants at which counts are compared with the truth.
GRID_S = 30.0


@dataclass(frozen=True, slots=True)
class TrueFixes:
    """F instants at which devices report, in the order of receipt, with true positions in the site's plane."""

    device: I8
    t_s: F8
    received_s: F8
    x_m: F8
    y_m: F8
    indoors: B1
    moving: B1

    def __len__(self) -> int:
        return len(self.device)

    def pick(self, rows: I8 | B1) -> TrueFixes:
        """Some rows, by number or by mask."""
        return TrueFixes(*(getattr(self, column)[rows] for column in TrueFixes.__slots__))

    @classmethod
    def joined(cls, parts: list[TrueFixes]) -> TrueFixes:
        """All rows of some parts, in the order of receipt; those of one device in the order of `t_s`."""
        columns = [np.concatenate([getattr(part, column) for part in parts]) for column in cls.__slots__]
        fixes = cls(*columns)
        return fixes.pick(np.lexsort((fixes.t_s, fixes.received_s)))


@dataclass(frozen=True, slots=True)
class Movement:
    """N devices over T instants. Times are seconds since midnight, positions are in the site's plane."""

    kind: U1  # [N] index into KINDS
    person: I8  # [N] the devices of one person share a number
    population: U1  # [N] index into POPULATIONS
    at_s: F8  # [T] the instants of the comparison
    x_m: F8  # [T, N]
    y_m: F8  # [T, N]
    fixes: TrueFixes

    def __len__(self) -> int:
        return len(self.kind)

    def copies(self, device: I8, population: int) -> Movement:
        """Further devices that move and report like these."""
        place = np.full(len(self), -1)
        place[device] = np.arange(len(device))
        rows = self.fixes.pick(place[self.fixes.device] >= 0)
        return Movement(
            self.kind[device],
            self.person[device],
            np.full(len(device), population, np.uint8),
            self.at_s,
            self.x_m[:, device],
            self.y_m[:, device],
            replace(rows, device=place[rows.device]),
        )

    @classmethod
    def joined(cls, parts: list[Movement]) -> Movement:
        """All devices of some parts, numbered in their order."""
        first = np.cumsum([0, *(len(part) for part in parts)])
        fixes = [
            replace(part.fixes, device=part.fixes.device + start)
            for part, start in zip(parts, first, strict=False)
        ]
        return cls(
            np.concatenate([part.kind for part in parts]),
            np.concatenate([part.person for part in parts]),
            np.concatenate([part.population for part in parts]),
            parts[0].at_s,
            np.concatenate([part.x_m for part in parts], axis=1),
            np.concatenate([part.y_m for part in parts], axis=1),
            TrueFixes.joined(fixes),
        )
