"""The expected results: those of the oracle over the log."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headcount.lab.chaos.independent_reader import LogEntry, PartitionLog
from headcount.lab.chaos.oracle import KINDS, Oracle, OracleEvent

I4 = NDArray[np.int32]
#: The instant at which a version of the site takes effect, and its file
SiteChange = tuple[float, dict[str, Any]]


class ExpectedCounts(NamedTuple):
    """The expected counts of one partition at one instant."""

    values: I4  # [Z, 2, 4]
    zones: list[str]  # of the version in effect
    first_not_in: int  # sequence of the first fix or status received later; 0 = none


class ExpectedPartition:
    """The oracle over one partition, for increasing instants."""

    def __init__(
        self,
        geojson: dict[str, Any],
        log: PartitionLog,
        keys: Mapping[int, bytes],
        changes: Iterable[SiteChange] = (),
        until_s: float = math.inf,
    ) -> None:
        """Start before the first message.

        Args:
            geojson: the first version of the site.
            log: the messages.
            keys: of the daily pseudonyms, which markers refer to.
            changes: later versions of the site.
            until_s: when the site is removed; no later message is in `log`.
        """
        self.site = site_of(geojson)
        self.log = log
        self._changes = deque(changes)
        self._until_s = until_s
        self._stored: set[int] = set()
        self.erasures = 0  # markers so far
        self._keys = keys
        self.verdicts: dict[int, tuple[LogEntry, str]] = {}  # sequence → entry, verdict
        self._oracle = Oracle(geojson)
        self._next = 0

    def advance(self, at: float) -> None:
        """Process everything with `received <= at`, and expire devices until then."""
        rows = self.log.rows
        while self._next < len(rows) and rows[self._next].received <= at:
            self._change_site(rows[self._next].received, itself=False)
            self._process(rows[self._next])
            self._next += 1
        self._change_site(min(at, self._until_s), itself=True)
        if at >= self._until_s:
            self._oracle.remove_site(self._until_s)
        self._oracle.advance(at)

    def _change_site(self, until: float, *, itself: bool) -> None:
        """Apply the changes before an instant, or also those at that instant itself."""
        while self._changes and (self._changes[0][0] < until or (itself and self._changes[0][0] == until)):
            self._oracle.change_site(*self._changes.popleft())

    def at(self, at: float) -> ExpectedCounts:
        """All counts at that instant."""
        self.advance(at)
        counts = self._oracle.counts(at)
        values = np.array([[kinds[kind] for kind in KINDS] for kinds in counts.values()], np.int32)
        rows = self.log.rows
        return ExpectedCounts(values, list(counts), rows[self._next].seq if self._next < len(rows) else 0)

    @property
    def events(self) -> list[OracleEvent]:
        """All changes of membership so far."""
        return self._oracle.events

    def is_stored(self, seq: int) -> bool:
        """Whether the fix with this sequence belongs in the history."""
        return seq in self._stored

    def _process(self, row: LogEntry) -> None:
        if row.forget is not None:
            self._erase(row, row.forget)
            return
        if row.status is not None:
            self._oracle.status(row.received, row.kind, row.device, online=row.status == "online")
            return
        verdict = self._oracle.fix(row.received, row.kind, row.device, *row.fix)
        self.verdicts[row.seq] = (row, verdict)
        if self._oracle.is_stored(verdict, row.fix.lat, row.fix.lon):
            self._stored.add(row.seq)

    def _erase(self, row: LogEntry, pseudonyms: dict[int, str]) -> None:
        self.erasures += 1
        erased = [
            device
            for kind, device in self._oracle.devices
            if kind == row.kind
            and any(
                day in self._keys and pseudonym_of(self.site, kind, device, self._keys[day]) == pseudonym
                for day, pseudonym in pseudonyms.items()
            )
        ]
        for device in erased:
            self._oracle.forget(row.received, row.kind, device)


def site_of(geojson: dict[str, Any]) -> str:
    """The id of the site of a site file."""
    found: str = next(
        each["properties"]["id"] for each in geojson["features"] if each["properties"]["role"] == "site"
    )
    return found


def pseudonym_of(site: str, kind: str, device: str, key: bytes) -> str:
    """A device's pseudonym of the day with this key."""
    return hashlib.blake2b(f"{site}.{kind}.{device}".encode(), key=key, digest_size=8).hexdigest()
