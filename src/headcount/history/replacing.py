"""Replace segments by their remaining rows: what expires or is erased, unless it is under a legal hold.

Rows under a hold move to held segments, which no query reads. A plan is made outside of the commit, because
it reads and writes segments. It is committed only if its segments and the holds are still those that it was
made from; otherwise its new segments are deleted, and the caller plans again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headcount.history.catalog import Catalog
from headcount.history.damage import read_whole
from headcount.history.manifest import PAUSES, HeldSegment, Hold, Manifest, Segment
from headcount.history.reader import CLOCKS

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Replacement:
    """A segment, and the segments that take its place."""

    segment: Segment
    kept: Segment | None = None
    held: tuple[HeldSegment, ...] = ()

    @property
    def held_rows(self) -> int:
        """The number of rows that are kept only for a hold."""
        return sum(each.segment.rows for each in self.held)

    @property
    def dropped_rows(self) -> int:
        """The number of rows that are deleted."""
        return self.segment.rows - self.held_rows - (self.kept.rows if self.kept else 0)

    @property
    def written(self) -> set[str]:
        """The names of the new segments."""
        names = {each.segment.name for each in self.held} | ({self.kept.name} if self.kept else set())
        return names - {self.segment.name}


def drop(catalog: Catalog, segment: Segment, holds: Sequence[Hold]) -> Replacement:
    """Plan to drop a whole segment; it is read only if a hold covers a part of it.

    Raises:
        DamagedSegmentError: it is damaged.
    """
    if not any(hold.touches(segment) for hold in holds):
        return Replacement(segment)
    covering = next((hold for hold in holds if hold.covers(segment)), None)
    if covering is not None:
        return Replacement(segment, held=(HeldSegment(segment, covering.id),))
    table = read_whole(catalog.store, segment)
    return split(catalog, segment, table, np.ones(len(table), np.bool_), holds)


def split(
    catalog: Catalog, segment: Segment, table: pa.Table, gone: Mask, holds: Sequence[Hold]
) -> Replacement:
    """Write the rows of a segment that remain, and those that are gone but under a hold."""

    def written(mask: Mask) -> Segment:
        return write_like(catalog, [segment], table.filter(pa.array(mask)))

    kept = None if gone.all() else written(~gone)
    held = []
    for hold in holds:  # a row belongs to the first hold that it is under
        under = gone & _under(hold, segment, table)
        gone = gone & ~under
        if under.any():
            held.append(HeldSegment(written(under), hold.id))
    return Replacement(segment, kept, tuple(held))


def write_like(catalog: Catalog, segments: Sequence[Segment], table: pa.Table) -> Segment:
    """Write rows of segments of one data set as a new segment with the statistics of its rows."""
    dataset = segments[0].dataset
    t_span = span(table["t"]) if dataset in {"fixes", PAUSES} else (0.0, 0.0)
    boxes = [each.box for each in segments if each.box is not None]
    # a box that is larger than needed prunes less, and is right
    box = (
        reduce(lambda a, b: (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])), boxes)
        if len(boxes) == len(segments)
        else None
    )
    new = catalog.write(dataset, _plain(table), span(table[CLOCKS[dataset][0]]), t_span_s=t_span, box=box)
    return msgspec.structs.replace(new, sources=segments[0].sources)


def span(times: pa.ChunkedArray) -> tuple[float, float]:
    """The smallest and largest of timestamps, Unix seconds."""
    found = pc.min_max(times.cast(pa.timestamp("us", "UTC")).cast(pa.int64())).as_py()
    return found["min"] / 1e6, found["max"] / 1e6


def apply(catalog: Catalog, plan: Sequence[Replacement], holds: Sequence[Hold], now_s: float) -> bool:
    """Commit a plan; False: segments or holds have changed since it was made, and nothing was replaced."""
    done = False
    written = set().union(*(each.written for each in plan))

    def change(before: Manifest) -> Manifest | None:
        nonlocal done
        known = before.names()
        if written and written <= known:  # an earlier attempt, whose answer was lost
            done = True
            return None
        done = before.holds == tuple(holds) and {each.segment.name for each in plan} <= known
        if not done:
            return None
        after = before.without({each.segment.name for each in plan}, now_s)
        staying = {each.segment.name for one in plan for each in one.held}
        return msgspec.structs.replace(
            after.with_segments(*(each.kept for each in plan if each.kept is not None)),
            held=(*after.held, *(each for one in plan for each in one.held)),
            removed=tuple(each for each in after.removed if each.name not in staying),
        )

    if plan:
        catalog.commit(change)
        if not done:
            catalog.discard(written)
    return done


def _under(hold: Hold, segment: Segment, table: pa.Table) -> Mask:
    """The rows that are under a hold."""
    if not hold.touches(segment):
        return np.zeros(len(table), np.bool_)
    times = table[CLOCKS[segment.dataset][0]].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    mask: Mask = (times >= round(hold.from_s * 1e6)) & (times <= round(hold.to_s * 1e6))
    if hold.site:
        mask &= pc.equal(table["site"].cast(pa.string()), hold.site).to_numpy()
    return mask


def _plain(table: pa.Table) -> pa.Table:
    """Pseudonyms as plain texts: their dictionaries are built per row group, and hold only its names."""
    changed: dict[str, Any] = {
        name: table[name].cast(pa.string())
        for name in table.column_names
        if name == "device" and pa.types.is_dictionary(table[name].type)
    }
    for name, column in changed.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table
