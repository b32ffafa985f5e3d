"""`headcount replay`: count a recording offline with the same engine."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from headcount.counting.engine import Engine
from headcount.counting.fix_columns import I4, I8, FixColumns
from headcount.counting.site import Site
from headcount.counting.zone_lookup import ZoneLookup
from headcount.messages.topics import KINDS
from headcount.simulate.clocks import MAX_GAP_S, arrivals
from headcount.simulate.traces import Trace


@dataclass(frozen=True, slots=True)
class ReplayTick:
    """The counts at one instant."""

    at_s: float
    site: Site  # the version that is counted
    counts: I4  # [zones, kinds, numbers]
    rows: int  # number of rows counted so far


class Replay:
    """Counts a trace at the multiples of `every_s`.

    At each instant all rows with `received <= at` are counted, in the order of their receipt. Without a column
    `received`, a row was received at the largest `t` of the rows so far: the clock never goes back. If no device
    is present and no row follows within `MAX_GAP_S`, the instants up to the next row are skipped.
    """

    def __init__(
        self, trace: Trace, site: Site, every_s: float, changes: Sequence[tuple[float, Site]] = ()
    ) -> None:
        """Count `trace` in the zones of `site`, and of other versions from the instants in `changes` on."""
        self._changes = deque(changes)
        self._trace = trace
        self._every_s = every_s
        self._engine = Engine(site)
        received_s = arrivals(trace)
        if trace.received_s is None or not np.isfinite(trace.received_s).any():
            received_s = np.fmax.accumulate(received_s)
        order = np.argsort(received_s, kind="stable")
        self._order: I8 = order[np.isfinite(received_s[order])]
        self._received_s = received_s[self._order]
        names = np.array([name.encode() for name in trace.devices], dtype=object)
        prefix = np.array([f"{kind}.".encode() for kind in KINDS], dtype=object)
        known = trace.device >= 0
        self._keys = np.full(len(trace), b"", dtype=object)
        self._keys[known] = prefix[trace.kind[known]] + names[trace.device[known]]

    def __len__(self) -> int:
        """The number of rows that are counted."""
        return len(self._order)

    def run(self) -> Iterator[ReplayTick]:
        """The counts from the first row on, until no device is present or one tick after the last row."""
        if not len(self._order):
            return
        sorted_s = self._received_s
        tick, last = (math.ceil(at_s / self._every_s) for at_s in (sorted_s[0], sorted_s[-1]))
        start = 0
        while tick <= last + 1:
            at_s = tick * self._every_s
            stop = int(np.searchsorted(sorted_s, at_s, side="right"))
            while self._changes and self._changes[0][0] <= at_s:
                change_s, site = self._changes.popleft()
                before = int(np.searchsorted(sorted_s, change_s, side="right"))
                self._count(start, before)
                self._engine.change_site(ZoneLookup(site), change_s)
                start = max(start, before)
            self._count(start, stop)
            start = stop
            self._engine.advance(at_s)
            counts = self._engine.counts(at_s)
            yield ReplayTick(at_s, self._engine.zones.site, counts, stop)
            tick += 1
            if not counts[0, :, 0].any():
                if tick > last:
                    return
                if sorted_s[stop] - at_s > MAX_GAP_S:
                    tick = math.ceil(sorted_s[stop] / self._every_s)

    def _count(self, start: int, stop: int) -> None:
        """Count rows, by their places in the order of receipt."""
        rows, trace = self._order[start:stop], self._trace
        fixes = FixColumns(
            np.zeros(len(rows), dtype=np.uint8),
            self._received_s[start:stop],
            trace.t_s[rows],
            trace.lat_deg[rows],
            trace.lon_deg[rows],
            trace.acc_m[rows],
        )
        self._engine.step(fixes, self._engine.slots(self._keys[rows].tolist()))
