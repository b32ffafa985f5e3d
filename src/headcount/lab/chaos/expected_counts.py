"""The expected results: those of the oracle over the log."""

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
    """The expected counts of one partition at one instant."""

    values: I4  # [Z, 2, 4]
    first_not_in: int  # sequence of the first fix or status received later; 0 = none


class ExpectedPartition:
    """The oracle over one partition, for increasing instants."""

    def __init__(self, geojson: dict[str, Any], log: PartitionLog, keys: Mapping[int, bytes]) -> None:
        """Start before the first message; `keys` are those of the daily pseudonyms, which markers refer to."""
        self.log = log
        self.erasures = 0  # markers so far
        self._keys = keys
        self.verdicts: dict[int, tuple[LogEntry, str]] = {}  # sequence → entry, verdict
        self._oracle = Oracle(geojson)
        self._next = 0

    def advance(self, at: float) -> None:
        """Process everything with `received <= at`, and expire devices until then."""
        rows = self.log.rows
        while self._next < len(rows) and rows[self._next].received <= at:
            self._process(rows[self._next])
            self._next += 1
        self._oracle.advance(at)

    def at(self, at: float) -> ExpectedCounts:
        """All counts at that instant."""
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

    def is_stored(self, seq: int) -> bool:
        """Whether the fix with this sequence belongs in the history."""
        entry, verdict = self.verdicts[seq]
        return self._oracle.is_stored(verdict, entry.fix.lat, entry.fix.lon)

    def _process(self, row: LogEntry) -> None:
        if row.forget is not None:
            self._erase(row, row.forget)
            return
        if row.status is not None:
            self._oracle.status(row.received, row.kind, row.device, online=row.status == "online")
            return
        self.verdicts[row.seq] = (row, self._oracle.fix(row.received, row.kind, row.device, *row.fix))

    def _erase(self, row: LogEntry, pseudonyms: dict[int, str]) -> None:
        self.erasures += 1
        erased = [
            device
            for kind, device in self._oracle.devices
            if kind == row.kind
            and any(
                day in self._keys and pseudonym_of(kind, device, self._keys[day]) == pseudonym
                for day, pseudonym in pseudonyms.items()
            )
        ]
        for device in erased:
            self._oracle.forget(row.received, row.kind, device)


def pseudonym_of(kind: str, device: str, key: bytes) -> str:
    """A device's pseudonym of the day with this key."""
    return hashlib.blake2b(f"{kind}.{device}".encode(), key=key, digest_size=8).hexdigest()
