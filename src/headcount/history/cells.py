"""Different devices by cell of a grid and slot of time. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headcount.counting.fix_columns import B1, I8, U8
from headcount.errors import QueryError
from headcount.history.fix_rows import FixRows

#: Different devices, cells and slots to compare (about 300 MB).
MAX_VISITS = 5_000_000
#: Bits of a cell's row and column, offset so that they are positive.
_NORTH_BITS, _EAST_BITS = 18, 19
_NORTH, _EAST = 90_000, 180_000


@dataclass(frozen=True, slots=True)
class CellRows:
    """n cells within slots of time, with their number of devices."""

    kind: I8
    slot: I8
    north: I8  # of the cell's south edge, in cells from the equator
    east: I8
    devices: I8

    def take(self, which: B1 | I8) -> CellRows:
        """Some of the rows."""
        return CellRows(*(column[which] for column in self._columns()))

    def newest_first(self, limit: int) -> Iterator[tuple[int, ...]]:
        """The rows with the newest slots, and in those with the most devices."""
        order = np.lexsort((self.kind, self.east, self.north, -self.devices, -self.slot))[:limit]
        return zip(*(column[order].tolist() for column in self._columns()), strict=True)

    def _columns(self) -> tuple[I8, ...]:
        return self.kind, self.slot, self.north, self.east, self.devices


class CellVisits:
    """Which devices were in which cell and slot."""

    def __init__(self, first_slot: int, slot_s: int, cell_steps: int) -> None:
        """Slots are counted from `first_slot`; a cell is `cell_steps` wide and high."""
        self._first, self._slot_us, self._steps = first_slot, slot_s * 10**6, cell_steps
        self._seen = np.zeros((0, 2), np.uint64)
        self._new: list[U8] = []

    def add(self, rows: FixRows) -> None:
        """Add fixes.

        Raises:
            QueryError: there are more than MAX_VISITS different ones.
        """
        north, east = rows.lat // self._steps + _NORTH, rows.lon // self._steps + _EAST
        key = rows.t_us // self._slot_us - self._first
        for value, bits in ((north, _NORTH_BITS), (east, _EAST_BITS), (rows.kind.astype(np.int64), 1)):
            key = key << bits | value
        self._new.append(np.unique(np.stack([key.astype(np.uint64), rows.device], axis=1), axis=0))
        if sum(map(len, self._new)) > max(len(self._seen), MAX_VISITS // 10):
            self._merge()

    def counted(self, k: int) -> CellRows:
        """The cells and slots with at least k devices."""
        self._merge()
        keys, devices = np.unique(self._seen[:, 0], return_counts=True)
        keys, devices = keys[devices >= k].astype(np.int64), devices[devices >= k]
        kind, rest = keys & 1, keys >> 1
        east, rest = (rest & (1 << _EAST_BITS) - 1) - _EAST, rest >> _EAST_BITS
        north, slot = (rest & (1 << _NORTH_BITS) - 1) - _NORTH, (rest >> _NORTH_BITS) + self._first
        return CellRows(kind, slot, north, east, devices)

    def _merge(self) -> None:
        self._seen, self._new = np.unique(np.concatenate([self._seen, *self._new]), axis=0), []
        if len(self._seen) > MAX_VISITS:
            raise QueryError("query", "needs too much memory; request a shorter span or a smaller area")
