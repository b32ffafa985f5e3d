"""`headcount replay`: count a recording offline with the same engine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headcount.counting.engine import Engine
from headcount.counting.fix_columns import I4, I8, FixColumns
from headcount.counting.site import Site
from headcount.messages.topics import KINDS
from headcount.simulate.clocks import MAX_GAP_S, arrivals
from headcount.simulate.traces import Trace


@dataclass(frozen=True, slots=True)
class ReplayTick:
    """The counts at one instant."""

    at_s: float
    counts: I4  # [zones, kinds, numbers]
    rows: int  # number of rows counted so far


class Replay:
    """Counts a trace at the multiples of `every_s`.

    At each instant all rows with `received <= at` are counted, in the order of the file. Without a column
    `received`, it is `t`; a file that is not sorted by time (buses that send a backlog) then has rows that are
    counted before earlier rows of the file. Such a device is counted again from its first row, so that the
    result always follows the definition. If no device is present and no row follows within `MAX_GAP_S`, the
    instants up to the next row are skipped.
    """

    def __init__(self, trace: Trace, site: Site, every_s: float) -> None:
        """Count `trace` in the zones of `site`."""
        self._trace = trace
        self._every_s = every_s
        self._engine = Engine(site)
        self._received_s = arrivals(trace)
        order = np.argsort(self._received_s, kind="stable")
        self._order: I8 = order[np.isfinite(self._received_s[order])]
        names = np.array([name.encode() for name in trace.devices], dtype=object)
        prefix = np.array([f"{kind}.".encode() for kind in KINDS], dtype=object)
        known = trace.device >= 0
        self._keys = np.full(len(trace), b"", dtype=object)
        self._keys[known] = prefix[trace.kind[known]] + names[trace.device[known]]
        #: number of the device of each row, by id and kind
        self._who = np.where(known, trace.device.astype(np.int64) * len(KINDS) + trace.kind, -1)
        self._last_row: I8 = np.full(len(KINDS) * len(names) + 1, -1, dtype=np.int64)
        self._counted = np.zeros(len(trace), dtype=np.bool_)

    def __len__(self) -> int:
        """The number of rows that are counted."""
        return len(self._order)

    def run(self) -> Iterator[ReplayTick]:
        """The counts from the first row on, until no device is present or one tick after the last row."""
        if not len(self._order):
            return
        sorted_s = self._received_s[self._order]
        tick, last = (math.ceil(at_s / self._every_s) for at_s in (sorted_s[0], sorted_s[-1]))
        start = 0
        while tick <= last + 1:
            at_s = tick * self._every_s
            stop = int(np.searchsorted(sorted_s, at_s, side="right"))
            self._count(np.sort(self._order[start:stop]))
            start = stop
            self._engine.advance(at_s)
            counts = self._engine.counts(at_s)
            yield ReplayTick(at_s, counts, stop)
            tick += 1
            if not counts[0, :, 0].any():
                if tick > last:
                    return
                if sorted_s[stop] - at_s > MAX_GAP_S:
                    tick = math.ceil(sorted_s[stop] / self._every_s)

    def _count(self, rows: I8) -> None:
        """Add these rows to the counts, in the order of the file."""
        who = self._who[rows]
        late = rows < self._last_row[who]
        self._counted[rows] = True
        if late.any():
            again = np.unique(who[late])
            self._engine.forget(np.unique(self._keys[rows[late]]).tolist())
            earlier = np.flatnonzero(self._counted & np.isin(self._who, again))
            rows = np.union1d(rows, earlier)
        np.maximum.at(self._last_row, self._who[rows], rows)
        self._last_row[-1] = -1  # rows without a device have no order
        trace = self._trace
        device = self._engine.slots(self._keys[rows].tolist())
        fixes = FixColumns(
            np.zeros(len(rows), dtype=np.uint8),
            self._received_s[rows],
            trace.t_s[rows],
            trace.lat_deg[rows],
            trace.lon_deg[rows],
            trace.acc_m[rows],
        )
        self._engine.step(fixes, device)
