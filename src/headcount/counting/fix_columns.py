"""A batch of fixes as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F8 = NDArray[np.float64]
I4 = NDArray[np.int32]
I8 = NDArray[np.int64]
U1 = NDArray[np.uint8]
U8 = NDArray[np.uint64]
B1 = NDArray[np.bool_]

#: Values of `Fixes.what`.
FIX, ONLINE, OFFLINE = 0, 1, 2
#: What the log holds beside them: somebody is to be forgotten. No engine is given a row of these.
FORGET = 3


@dataclass(frozen=True, slots=True)
class Fixes:
    """n fixes (or status messages) in the order in which they were received.

    `device` holds slots given by `Engine.slots`, -1 where the sender isn't known well enough to
    have one. A fix that could not be decoded has `t_s` NaN: it will be judged `malformed`.
    All columns have length n and must not be changed afterwards.
    """

    device: I4  # slot
    what: U1  # FIX, ONLINE, OFFLINE
    received_s: F8  # Unix seconds
    t_s: F8  # Unix seconds, event time
    lat_deg: F8
    lon_deg: F8
    acc_m: F8  # 0 = unknown

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.device)

    def rows(self, start: int, stop: int) -> Fixes:
        """The rows from `start` up to, but not including, `stop`, as views."""
        part = slice(start, stop)
        return Fixes(
            self.device[part],
            self.what[part],
            self.received_s[part],
            self.t_s[part],
            self.lat_deg[part],
            self.lon_deg[part],
            self.acc_m[part],
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """n fixes, and what can be said of each before the state of its device is looked at."""

    device: I8  # slot
    kind: U1  # index into KINDS
    what: U1  # FIX, ONLINE, OFFLINE
    received_s: F8
    t_s: F8
    x_m: F8  # in the site's plane
    y_m: F8
    acc_m: F8  # 0 = unknown
    verdict: U1  # `inaccurate`, `late` or `accepted`, as far as the fix alone decides
    cell: I4  # class of the raster's cell

    def pick(self, rows: I8 | B1) -> Prepared:
        """Some rows, by number or by mask."""
        return Prepared(
            self.device[rows],
            self.kind[rows],
            self.what[rows],
            self.received_s[rows],
            self.t_s[rows],
            self.x_m[rows],
            self.y_m[rows],
            self.acc_m[rows],
            self.verdict[rows],
            self.cell[rows],
        )
