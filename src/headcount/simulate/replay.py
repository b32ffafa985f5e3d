"""`headcount replay`: count a recording offline with the same engine."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headcount.counting.device_table import PseudonymSource
from headcount.counting.engine import Engine, StepResult
from headcount.counting.events import Events
from headcount.counting.fix_columns import I4, I8, FixColumns
from headcount.counting.hash_index import NO_SLOT
from headcount.counting.site import Site
from headcount.counting.zone_lookup import ZoneLookup
from headcount.messages.topics import KINDS
from headcount.simulate.clocks import MAX_GAP_S, arrivals
from headcount.simulate.traces import Trace

UNKNOWN = -2


@dataclass(frozen=True, slots=True)
class ReplayTick:
    """The counts at one instant."""

    at_s: float
    site: Site  # the version that is counted
    counts: I4  # [zones, kinds, numbers], the count itself alone without bounds
    rows: int  # number of rows counted so far


class Recorder(Protocol):
    """Receives what a replay leads to besides counts, while the slots of its devices are valid."""

    pseudonyms: PseudonymSource

    def add_fixes(self, engine: Engine, fixes: FixColumns, slots: I4, result: StepResult) -> None:
        """Take counted fixes, with `seq` as their place in the order of receipt, and the events that they led to."""

    def add_events(self, engine: Engine, site: Site, events: Events) -> None:
        """Take events that no fix led to."""


class Replay:
    """Counts a trace at the multiples of `every_s`.

    At each instant all rows with `received <= at` are counted, in the order of their receipt. Without a column
    `received`, a row was received at the largest `t` of the rows so far: the clock never goes back. If no device
    is present and no row follows within `MAX_GAP_S`, the instants up to the next row are skipped.
    """

    def __init__(
        self,
        trace: Trace,
        site: Site,
        every_s: float,
        changes: Sequence[tuple[float, Site]] = (),
        *,
        bounds: bool = True,
        recorder: Recorder | None = None,
    ) -> None:
        """Count `trace` in the zones of `site`, and of other versions from the instants in `changes` on.

        Without `bounds`, low, high and stale are not computed, which takes half the time.
        """
        self._bounds = bounds
        self._changes = deque(changes)
        self._every_s = every_s
        self._recorder = recorder
        self._engine = Engine(site, names=None if recorder is None else recorder.pseudonyms)
        received_s = arrivals(trace)
        if trace.received_s is None or not np.isfinite(trace.received_s).any():
            received_s = np.fmax.accumulate(received_s)
        rows: slice | I8 = slice(None)  # in the order of receipt
        if not (np.isfinite(received_s).all() and (received_s[1:] >= received_s[:-1]).all()):
            rows = np.argsort(received_s, kind="stable")
            rows = rows[np.isfinite(received_s[rows])]
        self._received_s = received_s[rows]
        self._columns = [column[rows] for column in (trace.t_s, trace.lat_deg, trace.lon_deg, trace.acc_m)]
        # of each kind, all devices, and after those one that stands for rows without a usable id
        self._names = [name.encode() for name in trace.devices]
        self._codes = (trace.kind * np.int32(len(self._names)) + trace.device)[rows]
        unusable = len(KINDS) * len(self._names)
        self._codes[trace.device[rows] < 0] = unusable
        #: The slot of each code, UNKNOWN until it is needed.
        self._slots: I4 = np.full(unusable + 1, UNKNOWN, dtype=np.int32)
        self._slots[-1] = NO_SLOT
        self._generation = self._engine.generation

    def __len__(self) -> int:
        """The number of rows that are counted."""
        return len(self._received_s)

    def run(self) -> Iterator[ReplayTick]:
        """The counts from the first row on, until no device is present or one tick after the last row."""
        if not len(self):
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
                old = self._engine.zones.site
                left, entered = self._engine.change_site(ZoneLookup(site), change_s)
                self._record(old, left)
                self._record(site, entered)
                start = max(start, before)
            self._count(start, stop)
            start = stop
            engine = self._engine
            self._record(engine.zones.site, engine.advance(at_s))
            counts = engine.counts(at_s) if self._bounds else engine.present()[:, :, np.newaxis]
            yield ReplayTick(at_s, self._engine.zones.site, counts, stop)
            tick += 1
            if not counts[0, :, 0].any():
                if tick > last:
                    return
                if sorted_s[stop] - at_s > MAX_GAP_S:
                    tick = math.ceil(sorted_s[stop] / self._every_s)

    def _count(self, start: int, stop: int) -> None:
        """Count rows, by their places in the order of receipt."""
        part = slice(start, max(start, stop))
        what = np.zeros(len(self._received_s[part]), dtype=np.uint8)
        t_s, lat_deg, lon_deg, acc_m = (column[part] for column in self._columns)
        received_s, seq = self._received_s[part], np.arange(part.start, part.stop) + 1
        fixes = FixColumns(what, received_s, t_s, lat_deg, lon_deg, acc_m, seq)
        slots = self._slots_of(self._codes[part])
        result = self._engine.step(fixes, slots)
        if self._recorder is not None:
            self._recorder.add_fixes(self._engine, fixes, slots, result)

    def _record(self, site: Site, events: Events) -> None:
        if self._recorder is not None and len(events):
            self._recorder.add_events(self._engine, site, events)

    def _slots_of(self, codes: I4) -> I4:
        """The slots of devices, each looked up once as long as slots remain valid."""
        if self._generation != self._engine.generation:
            self._generation = self._engine.generation
            self._slots[:-1] = UNKNOWN
        slots = self._slots[codes]
        unknown = np.flatnonzero(slots == UNKNOWN)
        if len(unknown):
            new = np.unique(codes[unknown]).tolist()
            devices = len(self._names)
            keys = [b"%b.%b" % (KINDS[code // devices].encode(), self._names[code % devices]) for code in new]
            self._slots[new] = self._engine.slots(keys)
            slots = self._slots[codes]
        return slots
