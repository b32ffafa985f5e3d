"""A history of made-up rows: in segments, not yet in one, or both; and what it holds as plain Python."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from headcount.history.buffer import StoredColumns
from headcount.history.catalog import Catalog
from headcount.history.compaction import compact
from headcount.history.derive import derive_pauses
from headcount.history.hours import HOUR_S
from headcount.history.objects import FolderStore
from headcount.history.reader import HistoryView, SegmentReader
from headcount.history.segments import fixes_table
from headcount.messages.fixes import VERDICTS
from headcount.messages.topics import KINDS
from history_batches import Row

Exit = tuple[str, str, float]  # kind, device, t


def table_of(rows: Sequence[Row], site: str = "ul") -> pa.Table:
    """Fixes as the table of a segment."""
    column: StoredColumns = {
        "site": np.zeros(len(rows), np.int16),
        "partition": np.zeros(len(rows), np.int16),
        "seq": np.array([r.seq for r in rows], np.int64),
        "t": np.array([r.t for r in rows]),
        "received": np.array([r.received for r in rows]),
        "device": np.frombuffer(b"".join(bytes.fromhex(r.device) for r in rows), "=u8"),
        "kind": np.array([KINDS.index(r.kind) for r in rows], np.uint8),
        "lat": np.array([r.lat for r in rows]),
        "lon": np.array([r.lon for r in rows]),
        "acc": np.array([r.acc for r in rows], np.float32),
        "verdict": np.array([VERDICTS.index(r.verdict) for r in rows], np.uint8),
    }
    return fixes_table(column, [site])


def exits_table(exits: Sequence[Exit], site: str = "ul") -> pa.Table:
    """Exits from the site as the table of a segment of events."""
    return pa.table(
        {
            "t": pa.array([round(t * 1e6) for _, _, t in exits], pa.timestamp("us", "UTC")),
            "site": [site] * len(exits),
            "zone": ["site"] * len(exits),
            "type": ["exit"] * len(exits),
            "reason": ["silent"] * len(exits),
            "kind": [kind for kind, _, _ in exits],
            "device": [device for _, device, _ in exits],
        }
    )


def stored(
    folder: Path,
    rows: Sequence[Row],
    rng: random.Random,
    *,
    exits: Sequence[Exit] = (),
    others: Sequence[Row] = (),
    segments: int = 4,
) -> HistoryView:
    """A view of rows that wait, or are spread over segments: compacted or not, with their pauses or without.

    Some rows are in both.

    Args:
        folder: for the segments.
        rows: of the site `ul`.
        rng: decides where each row is.
        exits: of devices from the site.
        others: rows of the site `north`, in the same segments.
        segments: how many there are at most in an hour.
    """
    catalog = Catalog(FolderStore(folder))
    groups: dict[tuple[float, int], list[tuple[Row, str]]] = {}
    waiting = []
    everything = [*((row, "ul") for row in rows), *((row, "north") for row in others)]
    for row, site in everything:
        place = rng.randrange(segments + 1)
        if place == segments or rng.random() < 0.1:
            waiting.append((row, site))
        if place < segments:
            groups.setdefault((row.received // HOUR_S, place), []).append((row, site))
    for group in groups.values():
        parts = [table_of([r for r, s in group if s == site], site) for site in ("north", "ul")]
        found = [row for row, _ in group]
        segment = catalog.write(
            "fixes",
            pa.concat_tables([part for part in parts if len(part)], promote_options="permissive"),
            (min(r.received for r in found), max(r.received for r in found)),
            t_span_s=(min(r.t for r in found), max(r.t for r in found)),
            box=(
                min(r.lon for r in found),
                min(r.lat for r in found),
                max(r.lon for r in found),
                max(r.lat for r in found),
            ),
        )
        catalog.commit(lambda before, segment=segment: before.with_segments(segment))  # type: ignore[misc]
    later_s = max((row.received for row, _ in everything), default=0.0) + 3 * HOUR_S
    if rng.random() < 0.3:
        derive_pauses(catalog, later_s)  # out of date if segments are merged then
    if rng.random() < 0.5:
        compact(catalog, later_s)
    if rng.random() < 0.5:
        derive_pauses(catalog, later_s)
    tail = {}
    if waiting:
        tail["fixes"] = pa.concat_tables(
            [table_of([row], site) for row, site in waiting], promote_options="permissive"
        )
    if exits:
        tail["events"] = exits_table(exits)
    reader = SegmentReader(FolderStore(folder))
    return HistoryView(reader, catalog.manifest(), tail, ends_s=math.inf)
