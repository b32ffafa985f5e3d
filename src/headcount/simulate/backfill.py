"""Recordings into the stored history: fixes, counts and events as if they had been received live."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pyarrow as pa

from headcount.counting.device_table import PseudonymSource
from headcount.counting.engine import Engine, StepResult
from headcount.counting.events import Events
from headcount.counting.fix_columns import B1, F8, I4, I8, FixColumns
from headcount.counting.site import Site
from headcount.errors import ImportedError
from headcount.history.buffer import CountRows, StoredColumns
from headcount.history.catalog import Catalog
from headcount.history.derive import FLOWS, MINUTES, Derivation, with_version
from headcount.history.flows import needed_from_s
from headcount.history.hours import HOUR_S
from headcount.history.manifest import Manifest, Segment
from headcount.history.reader import HistoryView, SegmentReader
from headcount.history.segments import counts_table, events_table
from headcount.history.storing import write_counts, write_events, write_fixes
from headcount.messages.counts import COUNT_FIELDS, Event
from headcount.messages.fixes import VERDICTS
from headcount.messages.times import DAY_S
from headcount.messages.topics import KINDS
from headcount.settings.retention_periods import RetentionPeriods
from headcount.simulate.clocks import arrivals
from headcount.simulate.replay import Replay, ReplayTick
from headcount.simulate.traces import Trace
from headcount.worker.event_messages import event_messages, pseudonyms_on
from headcount.worker.history_rows import MAX_ACC_M

#: The partition of rows that were not received live.
BACKFILL_PARTITION = -1
#: Counts are computed at whole minutes.
COUNT_STEP_S = 60.0
#: Sequences of rows begin at a multiple of this, so that those of two recordings differ.
MAX_ROWS = 1 << 27
#: A recording is recognised when it comes again within this time.
REMEMBER_S = 400 * DAY_S

Progress = Callable[[float, float], None]


@dataclass(slots=True)
class BackfillResult:
    """The number of rows by what happened to them."""

    verdicts: I8 = field(default_factory=lambda: np.zeros(len(VERDICTS), np.int64))  # rows by verdict
    fixes: int = 0  # stored
    expired: int = 0  # fixes for the history that are older than fixes are kept
    newer: int = 0  # rows that are too new
    hours: int = 0  # with new counts
    counted_hours: int = 0  # that had counts already, which stay


def days_of(trace: Trace) -> list[int]:
    """The days on which rows were received, as days since 1970."""
    arrival_s = arrivals(trace)
    days: list[int] = np.unique(arrival_s[np.isfinite(arrival_s)] // DAY_S).astype(int).tolist()
    return days


def backfill(
    catalog: Catalog,
    trace: Trace,
    versions: Sequence[tuple[float, Site]],
    pseudonyms: PseudonymSource,
    *,
    periods: RetentionPeriods,
    now_s: float,
    from_s: float | None = None,
    until_s: float,
    progress: Progress,
) -> BackfillResult:
    """Store a recording, completely or not at all, and once.

    Fixes are judged and counted by the counting rules; those that belong in the history are stored under
    pseudonyms. Counts and events are stored for the hours for which the site has no counts yet: the rows of an
    hour that was counted live stay as they are. Rows that would have expired are not stored; for hours whose
    counts would have, their minutes and flows are.

    Args:
        catalog: of the history.
        trace: the recording.
        versions: of the site, with the instants from which they count; the first one counts before, too.
        pseudonyms: of the site's devices.
        periods: how long rows are kept.
        now_s: Unix seconds.
        from_s: the recording is known to be complete from here until `until_s`: where it has no rows, counts
            are zero. None: nothing is counted before its first row and after its last one.
        until_s: rows that were received at this instant or later are left out.
        progress: called with the instant that is counted and the completed share.

    Raises:
        ImportedError: the same rows were stored earlier.
        DataFolderError, StoreError: the store cannot be read or written.
    """
    site, digest = versions[0][1], trace.digest(versions[0][1].id)
    before = catalog.manifest()
    if digest in before.imported:
        raise ImportedError(trace.source, before.imported[digest])
    late = arrivals(trace) >= until_s
    trace = trace.part(~late)
    first_seq = (int(digest[:9], 16) * MAX_ROWS) & ((1 << 63) - 1)
    counted = _counted_hours(catalog, before, site.id, arrivals(trace))
    hours = _HourWriter(catalog, site.id, counted, periods, now_s, pseudonyms, first_seq)
    counting = Replay(trace, site, COUNT_STEP_S, versions[1:], recorder=hours)
    ticks = counting.run() if from_s is None else _without_gaps(counting, site, from_s, until_s)
    for tick in ticks:
        hours.add_counts(tick)
        progress(tick.at_s, tick.rows / max(1, len(counting)))
    hours.finish()
    hours.result.newer = int(late.sum())

    def change(manifest: Manifest) -> Manifest:
        if digest in manifest.imported:
            raise ImportedError(trace.source, manifest.imported[digest])
        imported = {key: at_s for key, at_s in manifest.imported.items() if at_s > now_s - REMEMBER_S}
        with_rows = manifest.with_segments(*hours.segments)
        return msgspec.structs.replace(with_rows, imported=imported | {digest: now_s})

    try:
        catalog.commit(change)
    except ImportedError:
        catalog.store.delete(each.name for each in hours.segments)
        raise
    return hours.result


def _without_gaps(counting: Replay, site: Site, from_s: float, until_s: float) -> Iterator[ReplayTick]:
    """The ticks of a replay, and before and after them those with zeros."""
    nothing = np.zeros((len(site.zones), len(KINDS), len(COUNT_FIELDS)), np.int32)
    next_s, last = -(-from_s // COUNT_STEP_S) * COUNT_STEP_S, None
    for last in counting.run():
        while next_s < last.at_s:
            yield ReplayTick(next_s, site, nothing, 0)
            next_s += COUNT_STEP_S
        if last.at_s < until_s:
            yield last
        next_s += COUNT_STEP_S
    while next_s < until_s and (last is None or not last.counts.any()):
        yield ReplayTick(next_s, site, nothing, len(counting))
        next_s += COUNT_STEP_S


def _counted_hours(catalog: Catalog, manifest: Manifest, site: str, arrival_s: F8) -> set[float]:
    """The starts of the hours of a recording for which a site has counts."""
    known = arrival_s[np.isfinite(arrival_s)]
    if not len(known):
        return set()
    from_s, to_s = float(known.min()) - HOUR_S, float(known.max()) + HOUR_S
    view, found = HistoryView(SegmentReader(catalog.store), manifest), set[float]()
    for dataset in ("counts", "minutes"):
        rows = view.scan(dataset, columns=["at"], site=site, from_s=from_s, to_s=to_s)
        if len(rows):
            at_s = rows["at"].cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).to_numpy() // 1000
            found |= set((np.unique(at_s // HOUR_S) * HOUR_S).tolist())
    return found


class _HourWriter:
    """Collects the rows of an hour while it is counted, and writes its segments when it is over."""

    def __init__(
        self,
        catalog: Catalog,
        site: str,
        counted: set[float],
        periods: RetentionPeriods,
        now_s: float,
        pseudonyms: PseudonymSource,
        first_seq: int,
    ) -> None:
        self.pseudonyms = pseudonyms
        self.segments: list[Segment] = []
        self.result = BackfillResult()
        self._catalog, self._site, self._counted = catalog, site, counted
        self._periods, self._now_s, self._first_seq = periods, now_s, first_seq
        self._hour_s: float | None = None
        self._fixes: list[StoredColumns] = []
        self._counts: list[ReplayTick] = []
        self._events: list[Event] = []
        self._past_events: deque[Event] = deque()  # of earlier hours, for the flows of old ones

    def add_fixes(self, engine: Engine, fixes: FixColumns, slots: I4, result: StepResult) -> None:
        """Take the fixes that belong in the history, and the events that they led to."""
        self.result.verdicts += np.bincount(result.verdicts, minlength=len(VERDICTS))
        seq = fixes.seq + self._first_seq
        which = np.flatnonzero(result.stored)
        if len(which):
            received_s = fixes.received_s[which]
            self._fixes.append(
                {
                    "site": np.zeros(len(which), np.int16),
                    "partition": np.full(len(which), BACKFILL_PARTITION, np.int16),
                    "seq": seq[which],
                    "t": fixes.t_s[which],
                    "received": received_s,
                    "device": pseudonyms_on(engine, slots[which], (received_s // DAY_S).astype(np.int32)),
                    "kind": engine.kinds(slots[which]),
                    "lat": fixes.lat_deg[which],
                    "lon": fixes.lon_deg[which],
                    "acc": np.clip(np.nan_to_num(fixes.acc_m[which], posinf=0.0), 0, MAX_ACC_M).astype("<f4"),
                    "verdict": result.verdicts[which],
                }
            )
        zones = engine.zones.site.zones
        self._events += event_messages(engine, result.events, self._site, zones, seq)

    def add_events(self, engine: Engine, site: Site, events: Events) -> None:
        """Take events that no fix led to."""
        self._events += event_messages(engine, events, self._site, site.zones, np.zeros(0, np.int64))

    def add_counts(self, tick: ReplayTick) -> None:
        """Take the counts at an instant; everything received up to it has been added."""
        hour_s = tick.at_s // HOUR_S * HOUR_S
        if self._hour_s is not None and hour_s != self._hour_s:
            self._write()
        self._hour_s = hour_s
        self._counts.append(tick)

    def finish(self) -> None:
        """Write the last rows."""
        self._write()

    def _write(self) -> None:
        """Write the rows of the hour; fixes of the minute before the next hour's first instant are in them."""
        fixes, self._fixes = self._fixes, []
        events, self._events = self._events, []
        counts, self._counts = self._counts, []
        if fixes:
            columns = {name: np.concatenate([part[name] for part in fixes]) for name in fixes[0]}
            kept = columns["received"] // HOUR_S * HOUR_S + HOUR_S > self._now_s - self._periods.longest_s(
                "fixes"
            )
            self._write_fixes(columns, kept)
        if self._hour_s is None or self._hour_s in self._counted:
            self.result.counted_hours += self._hour_s in self._counted
            return
        self.result.hours += 1
        rows = _count_rows(counts, self._site)
        if self._is_kept("counts"):
            self.segments += write_counts(self._catalog, rows)
        else:
            self._write_derived(MINUTES, counts_table(rows))
        if self._is_kept("events"):
            self.segments += write_events(self._catalog, events)
            self._past_events += events
            return
        self._past_events += events
        while self._past_events and self._past_events[0].t < needed_from_s(self._hour_s):
            self._past_events.popleft()
        self._write_derived(FLOWS, events_table(self._past_events))

    def _is_kept(self, dataset: str) -> bool:
        return self._hour_s is not None and self._hour_s + HOUR_S > self._now_s - self._periods.longest_s(
            dataset
        )

    def _write_fixes(self, columns: StoredColumns, kept: B1) -> None:
        count = int(kept.sum())
        self.result.fixes += count
        self.result.expired += len(kept) - count
        if count:
            chosen = {name: column[kept] for name, column in columns.items()}
            self.segments += write_fixes(self._catalog, chosen, [self._site])

    def _write_derived(self, how: Derivation, rows: pa.Table) -> None:
        """Derive the rows of an hour whose source has expired."""
        if self._hour_s is None or not self._is_kept(how.dataset) or not len(rows):
            return
        table = how.table(rows, self._hour_s)
        if len(table):
            at_s = table["at"].cast(pa.int64()).to_numpy() / 1e3
            span_s = float(at_s.min()), float(at_s.max())
            self.segments.append(
                self._catalog.write(how.dataset, with_version(table, 1, self._now_s), span_s)
            )


def _count_rows(ticks: list[ReplayTick], site: str) -> CountRows:
    lengths = [len(tick.site.zones) for tick in ticks]
    total = sum(lengths)
    return CountRows(
        at_s=np.repeat([tick.at_s for tick in ticks], lengths),
        site=[site] * total,
        zone=[zone.id for tick in ticks for zone in tick.site.zones],
        values=np.concatenate([tick.counts for tick in ticks]).astype(np.int32),
        partitions=np.ones(total, np.int16),
        partitions_total=np.ones(total, np.int16),
    )
