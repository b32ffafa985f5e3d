"""What the system must have said, by the oracle over its log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headcount.prove.log import Partition, Row
from headcount.prove.oracle import KINDS, Event, Oracle

I4 = NDArray[np.int32]


class At(NamedTuple):
    """The truth of one partition at one instant."""

    values: I4  # [Z, 2, 4]
    first_not_in: int  # sequence of the first fix or status that came later; 0 = none


class Truth:
    """The oracle over one partition; ask for later and later instants."""

    def __init__(self, geojson: dict[str, Any], log: Partition) -> None:
        """Begin before the first message."""
        self.log = log
        self.verdicts: dict[int, tuple[Row, str]] = {}  # sequence → what it said, and its verdict
        self._oracle = Oracle(geojson)
        self._next = 0

    def advance(self, at: float) -> None:
        """Take everything with `received <= at`, and let expire what expires until then."""
        rows = self.log.rows
        while self._next < len(rows) and rows[self._next].received <= at:
            self._take(rows[self._next])
            self._next += 1
        self._oracle.advance(at)

    def at(self, at: float) -> At:
        """All numbers at that instant."""
        self.advance(at)
        counts = self._oracle.counts(at)
        values = np.array([[kinds[kind] for kind in KINDS] for kinds in counts.values()], np.int32)
        rows = self.log.rows
        return At(values, rows[self._next].seq if self._next < len(rows) else 0)

    @property
    def events(self) -> list[Event]:
        """All changes of membership so far."""
        return self._oracle.events

    @property
    def zones(self) -> Iterable[str]:
        """The zones in the order of the site file."""
        return self._oracle.zones

    def _take(self, row: Row) -> None:
        if row.status is not None:
            self._oracle.status(row.received, row.kind, row.device, online=row.status == "online")
            return
        self.verdicts[row.seq] = (row, self._oracle.fix(row.received, row.kind, row.device, *row.fix))
