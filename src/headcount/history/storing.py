"""Store the waiting rows: write their segments, then commit them with the marks of the streams.

The manifest is replaced only if the marks are still those from which the rows were read. If another writer
has moved one of them, it has stored these rows: nothing is committed, and the new segments are deleted.
"""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np

from headcount.counting.fix_columns import F8, I8
from headcount.errors import OvertakenError
from headcount.history.buffer import CountRows, RowFlush, StoredColumns
from headcount.history.catalog import Catalog
from headcount.history.event_buffer import EventFlush
from headcount.history.hours import HOUR_S
from headcount.history.manifest import EventMark, Manifest, PartitionMark, Segment
from headcount.history.reader import HistoryView, SegmentReader
from headcount.history.segments import CELL_DEG_E7, counts_table, events_table, fixes_table, scaled
from headcount.messages.counts import Event
from headcount.messaging.jetstream import StreamInfo


def store(
    catalog: Catalog, stream: str, rows: RowFlush | None, events: EventFlush | None
) -> tuple[list[Segment], Manifest]:
    """Store rows and events; when this returns, all of them are in the history, and before, nothing.

    Args:
        catalog: of the history.
        stream: when the stream HISTORY was created.
        rows: the rows of some partitions.
        events: events of the stream EVENT.

    Returns:
        The new segments, and the manifest with them.

    Raises:
        OvertakenError: another writer has stored some of them.
        DataFolderError, StoreError: the store cannot be written; it may be that all or nothing is stored.
    """
    found: list[Segment] = []
    if rows is not None and rows.fixes is not None:
        found += write_fixes(catalog, rows.fixes, rows.sites)
    if rows is not None and rows.counts is not None:
        found += write_counts(catalog, rows.counts)
    if events is not None:
        found += write_events(catalog, events.events)

    names = {segment.name for segment in found}

    def change(before: Manifest) -> Manifest | None:
        if names and names <= before.names():  # an earlier attempt, whose answer was lost
            return None
        partitions, mark = before.partitions, before.events
        if rows is not None:
            known = {number: partitions.get(number, PartitionMark()) for number in rows.before}
            if before.stream != stream or known != rows.before:
                raise OvertakenError(catalog.store.url)
            partitions = partitions | rows.after
        if events is not None:
            if mark != events.before:
                raise OvertakenError(catalog.store.url)
            mark = events.after
        return msgspec.structs.replace(
            before, partitions=partitions, events=mark, segments=(*before.segments, *found)
        )

    try:
        return found, catalog.commit(change)
    except OvertakenError:
        catalog.discard(names)
        raise


def started(catalog: Catalog, stream: StreamInfo) -> dict[int, PartitionMark]:
    """Return the marks of the partitions, for the stream HISTORY as it is.

    Where it was created again, its sequences start again, and where its newest messages were lost, they are
    given to other messages. The marks of sites remain, by which rows are recognised that are sent again.
    """

    def change(before: Manifest) -> Manifest | None:
        last = stream.state.last_seq if before.stream == stream.created else 0
        marks = {
            number: msgspec.structs.replace(mark, stream_seq=min(mark.stream_seq, last))
            for number, mark in before.partitions.items()
        }
        if (before.stream, before.partitions) == (stream.created, marks):
            return None
        return msgspec.structs.replace(before, stream=stream.created, partitions=marks)

    return catalog.commit(change).partitions


def events_started(catalog: Catalog, stream: StreamInfo) -> EventMark:
    """Return the mark of the events, for the stream EVENT as it is; ids recognise events that come again."""

    def change(before: Manifest) -> Manifest | None:
        seq = min(before.events.seq, stream.state.last_seq) if before.events.stream == stream.created else 0
        mark = EventMark(stream.created, seq)
        return None if mark == before.events else msgspec.structs.replace(before, events=mark)

    return catalog.commit(change).events


def write_fixes(catalog: Catalog, fixes: StoredColumns, sites: list[str]) -> list[Segment]:
    """Write fixes as segments, an hour each; `site` is an index into `sites`."""
    # Rounded down: the row's hour must stay its segment's hour.
    received_s = np.floor(fixes["received"] * 1e3) / 1e3
    order = _order(fixes, received_s)
    column = {name: values[order] for name, values in fixes.items()}
    received_s, table = received_s[order], fixes_table(column, sites)
    found = []
    for part in _hours(received_s):
        t_s = np.rint(column["t"][part] * 1e6) / 1e6
        south, north = _span(np.rint(column["lat"][part] * 1e7) / 1e7)
        west, east = _span(np.rint(column["lon"][part] * 1e7) / 1e7)
        rows = table.slice(part.start, part.stop - part.start)
        box = (west, south, east, north)
        found.append(catalog.write("fixes", rows, _span(received_s[part]), t_span_s=_span(t_s), box=box))
    return found


def _order(fixes: StoredColumns, received_s: F8) -> I8:
    """The order in a segment: by hour, site, cell, device and t, as compaction has it."""
    lat, lon = (scaled(fixes[name], 1e7) // CELL_DEG_E7 for name in ("lat", "lon"))
    t_us = scaled(fixes["t"], 1e6)
    return np.lexsort((t_us, fixes["device"], lon, lat, fixes["site"], received_s // HOUR_S))


def write_counts(catalog: Catalog, counts: CountRows) -> list[Segment]:
    """Write counts as segments, an hour each."""
    at_s, table = np.rint(counts.at_s * 1e3) / 1e3, counts_table(counts)
    return [
        catalog.write("counts", table.slice(part.start, part.stop - part.start), _span(at_s[part]))
        for part in _hours(at_s)
    ]


def write_events(catalog: Catalog, events: list[Event]) -> list[Segment]:
    """Write the events whose ids are not stored yet.

    The stream refuses repeated ids, but not if it was created again, or after an hour.
    """
    if not events:
        return []
    first_s, last_s = min(event.t for event in events), max(event.t for event in events)
    view = HistoryView(SegmentReader(catalog.store), catalog.manifest())
    known = view.scan("events", columns=["id"], from_s=first_s - 1e-6, to_s=last_s + 1e-6)
    stored = set(known["id"].to_pylist())
    new = [event for event in events if event.id not in stored]
    new.sort(key=lambda event: (event.t // HOUR_S, event.site, event.t))
    t_s = np.array([event.t for event in new])
    return [catalog.write("events", events_table(new[part]), _span(t_s[part])) for part in _hours(t_s)]


def _hours(t_s: F8) -> list[slice]:
    """Where the hour of `t_s` changes; times are in the order of hours."""
    cuts = (0, *(np.flatnonzero(np.diff(t_s // HOUR_S)) + 1).tolist(), len(t_s))
    return [slice(start, stop) for start, stop in pairwise(cuts) if start < stop]


def _span(t_s: F8) -> tuple[float, float]:
    return float(t_s.min()), float(t_s.max())
