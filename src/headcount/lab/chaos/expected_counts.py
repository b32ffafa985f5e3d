"""What the system must have said, by the oracle over its log."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headcount.lab.chaos.independent_reader import LogEntry, PartitionLog
from headcount.lab.chaos.oracle import KINDS, Oracle, OracleEvent

I4 = NDArray[np.int32]


class ExpectedCounts(NamedTuple):
    """The truth of one partition at one instant."""

    values: I4  # [Z, 2, 4]
    first_not_in: int  # sequence of the first fix or status that came later; 0 = none


class ExpectedPartition:
    """The oracle over one partition; ask for later and later instants."""

    def __init__(self, geojson: dict[str, Any], log: PartitionLog, keys: Mapping[int, bytes]) -> None:
        """Begin before the first message; `keys` are those of the days' names, by which markers call devices."""
        self.log = log
        self.forgotten = 0  # markers so far
        self._keys = keys
        self.verdicts: dict[int, tuple[LogEntry, str]] = {}  # sequence → what it said, and its verdict
        self._oracle = Oracle(geojson)
        self._next = 0

    def advance(self, at: float) -> None:
        """Take everything with `received <= at`, and let expire what expires until then."""
        rows = self.log.rows
        while self._next < len(rows) and rows[self._next].received <= at:
            self._take(rows[self._next])
            self._next += 1
        self._oracle.advance(at)

    def at(self, at: float) -> ExpectedCounts:
        """All numbers at that instant."""
        self.advance(at)
        counts = self._oracle.counts(at)
        values = np.array([[kinds[kind] for kind in KINDS] for kinds in counts.values()], np.int32)
        rows = self.log.rows
        return ExpectedCounts(values, rows[self._next].seq if self._next < len(rows) else 0)

    @property
    def events(self) -> list[OracleEvent]:
        """All changes of membership so far."""
        return self._oracle.events

    @property
    def zones(self) -> Iterable[str]:
        """The zones in the order of the site file."""
        return self._oracle.zones

    def _take(self, row: LogEntry) -> None:
        if row.forget is not None:
            self._forget(row, row.forget)
            return
        if row.status is not None:
            self._oracle.status(row.received, row.kind, row.device, online=row.status == "online")
            return
        self.verdicts[row.seq] = (row, self._oracle.fix(row.received, row.kind, row.device, *row.fix))

    def _forget(self, row: LogEntry, names: dict[int, str]) -> None:
        self.forgotten += 1
        meant = [
            device
            for kind, device in self._oracle.devices
            if kind == row.kind
            and any(
                day in self._keys and name_of(kind, device, self._keys[day]) == name
                for day, name in names.items()
            )
        ]
        for device in meant:
            self._oracle.forget(row.received, row.kind, device)


def name_of(kind: str, device: str, key: bytes) -> str:
    """A device's name on the day whose key this is."""
    return hashlib.blake2b(f"{kind}.{device}".encode(), key=key, digest_size=8).hexdigest()
