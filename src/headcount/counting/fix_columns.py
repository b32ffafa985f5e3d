"""Fixes as columns: the form in which they are decoded, wait, are judged and go to the history."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

F8 = NDArray[np.float64]
I4 = NDArray[np.int32]
I8 = NDArray[np.int64]
U1 = NDArray[np.uint8]
U8 = NDArray[np.uint64]
B1 = NDArray[np.bool_]

#: Values of `FixColumns.what`. A row of the last is a marker and no message of a device; engines get none.
FIX, ONLINE, OFFLINE, FORGET = range(4)
_NO_SEQUENCES: I8 = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Removal:
    """A decoded ForgetMarker: a kind, and the device's pseudonym on each day (as `PseudonymSource.many`)."""

    kind: int  # index into KINDS
    pseudonyms: dict[int, int]


@dataclass(frozen=True, slots=True)
class FixColumns:
    """n fixes, status messages or markers, in the order in which they were received.

    All columns have length n and must not be changed afterwards. A fix that could not be decoded has `t_s` NaN
    and is judged `malformed`. Callers that know the devices' slots already leave `names` empty, those without
    a log leave `seq` empty.
    """

    what: U1  # FIX, ONLINE, OFFLINE, FORGET
    received_s: F8  # Unix seconds
    t_s: F8  # Unix seconds, event time
    lat_deg: F8
    lon_deg: F8
    acc_m: F8  # unknown unless finite and above 0
    seq: I8 = field(default_factory=lambda: _NO_SEQUENCES)  # in the partition's stream
    names: list[bytes] = field(default_factory=list)  # of the devices, as `Engine.slots` takes them
    removals: dict[int, Removal] = field(default_factory=dict)  # by sequence; unreadable markers have none

    def __len__(self) -> int:
        return len(self.what)

    def part(self, start: int, stop: int) -> FixColumns:
        """The rows from `start` up to, but not including, `stop`, as views."""
        cut = slice(start, stop)
        return FixColumns(
            self.what[cut],
            self.received_s[cut],
            self.t_s[cut],
            self.lat_deg[cut],
            self.lon_deg[cut],
            self.acc_m[cut],
            self.seq[cut],
            self.names[cut],
            self._removals(cut) if self.removals else self.removals,
        )

    def _removals(self, cut: slice) -> dict[int, Removal]:
        found = self.seq[cut][self.what[cut] == FORGET].tolist()
        return {seq: self.removals[seq] for seq in found if seq in self.removals}

    @classmethod
    def joined(cls, parts: list[FixColumns]) -> FixColumns:
        """All rows of some parts, in their order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.what for part in parts]),
            np.concatenate([part.received_s for part in parts]),
            np.concatenate([part.t_s for part in parts]),
            np.concatenate([part.lat_deg for part in parts]),
            np.concatenate([part.lon_deg for part in parts]),
            np.concatenate([part.acc_m for part in parts]),
            np.concatenate([part.seq for part in parts]),
            list(chain.from_iterable(part.names for part in parts)),
            {seq: removal for part in parts for seq, removal in part.removals.items()},
        )


@dataclass(frozen=True, slots=True)
class ProjectedFixes:
    """n fixes with what follows from each alone: the engine's working set, before the devices' states matter."""

    device: I8  # slot
    kind: U1  # index into KINDS
    what: U1  # FIX, ONLINE, OFFLINE
    received_s: F8
    t_s: F8
    x_m: F8  # in the site's plane
    y_m: F8
    acc_m: F8  # 0 = unknown
    verdict: U1  # `late`, `outside`, `inaccurate` or `accepted`, as far as the fix alone decides
    cell: I4  # class of the raster's cell

    def pick(self, rows: I8 | B1) -> ProjectedFixes:
        """Some rows, by number or by mask."""
        return ProjectedFixes(
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
