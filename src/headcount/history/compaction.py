"""Compaction: small segments become few large ones, sorted so that they are small and a query for an area skips most.

Writers commit segments every few seconds. Those of an hour that are done are merged: the smallest first, as
long as the next one is not much larger than those before it, so a row is written again only a few times.
Inputs and output are exchanged in one commit; if an input is gone by then (another writer has compacted it,
or an erasure has replaced it), the output is deleted instead.
"""

from __future__ import annotations

import logging
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headcount.counting.fix_columns import I8
from headcount.history.catalog import Catalog
from headcount.history.damage import read_whole
from headcount.history.hours import HOUR_S
from headcount.history.manifest import Manifest, Segment
from headcount.history.reader import CLOCKS
from headcount.history.replacing import write_like
from headcount.history.segments import CELL_DEG_E7
from headcount.messages.counts import COUNT_FIELDS
from headcount.messages.topics import KINDS

_log = logging.getLogger(__name__)

#: Rows of a compacted segment: its rows are in memory while it is written, about 100 bytes each, and all their
#: times are read for positions at an instant.
MAX_ROWS = 1_000_000
#: Time after which rows of a stretch are taken to be committed. Later ones make a further segment.
CLOSED_S = 60.0
#: Segments that are merged while their hour is not over.
MIN_SEGMENTS = 16
#: A segment is merged with smaller ones if it has at most this many times their rows, or few rows.
MAX_RATIO, FEW_ROWS = 2, 20_000
#: Derived data sets have a segment for each hour, and are merged where they are derived.
DATASETS = ("fixes", "counts", "events")
_COUNT_NAMES = [f"{kind}_{number}" for kind in KINDS for number in COUNT_FIELDS]


def compact(
    catalog: Catalog,
    now_s: float,
    share: tuple[int, int] = (0, 1),
    is_over: Callable[[], bool] = lambda: False,
) -> int:
    """Merge small segments; returns the number of segments that were replaced.

    Args:
        catalog: of the history.
        now_s: Unix seconds.
        share: the number of this process, and of all that compact: it merges its share of the hours.
        is_over: whether to end after the current segment.

    Raises:
        DamagedSegmentError: a segment is damaged; set it aside and call again.
        DataFolderError, StoreError: the store cannot be read or written.
    """
    replaced = 0
    for group in groups(catalog.manifest().segments, now_s, share):
        if is_over():
            break
        if merge(catalog, group, now_s):
            replaced += len(group)
    return replaced


def groups(segments: Iterable[Segment], now_s: float, share: tuple[int, int] = (0, 1)) -> list[list[Segment]]:
    """The segments to merge, group by group."""
    hours: dict[tuple[str, float], list[Segment]] = defaultdict(list)
    for segment in segments:
        if segment.dataset in DATASETS and segment.to_s < now_s - CLOSED_S:
            hours[segment.dataset, segment.hour_s].append(segment)
    found = []
    for (dataset, start_s), members in hours.items():
        if zlib.crc32(f"{dataset}/{start_s:.0f}".encode()) % share[1] == share[0]:
            over = start_s + HOUR_S < now_s - CLOSED_S
            found += _groups(members, 2 if over else MIN_SEGMENTS)
    return found


def _groups(members: list[Segment], min_segments: int) -> list[list[Segment]]:
    """The small segments of an hour, in the order of time, cut into groups of at most MAX_ROWS."""
    small: list[Segment] = []
    rows = 0
    for segment in sorted(members, key=lambda each: each.rows):
        if segment.rows > max(MAX_RATIO * rows, FEW_ROWS) and len(small) > 1:
            break
        if segment.rows > max(MAX_RATIO * rows, FEW_ROWS):
            small, rows = [], 0  # one small segment waits for others
        small.append(segment)
        rows += segment.rows
    cut: list[list[Segment]] = []
    for segment in sorted(small, key=lambda each: (each.from_s, each.name)):
        if not cut or sum(each.rows for each in cut[-1]) + segment.rows > MAX_ROWS:
            cut.append([])
        cut[-1].append(segment)
    return [group for group in cut if len(group) >= min_segments]


def merge(catalog: Catalog, group: Sequence[Segment], now_s: float) -> bool:
    """Replace segments of one data set by one; False: they are not all in the manifest any more."""
    names = {each.name for each in group}
    if not catalog.manifest().has(names):
        return False
    output = write_like(catalog, group, merged(catalog, group))
    done = False

    def change(before: Manifest) -> Manifest | None:
        nonlocal done
        done = output.name in before.names()  # an earlier attempt, whose answer was lost
        if done or not before.has(names):
            return None
        done = True
        return before.without(names, now_s).with_segments(output)

    catalog.commit(change)
    if not done:
        catalog.discard([output.name])
    return done


def merged(catalog: Catalog, group: Sequence[Segment]) -> pa.Table:
    """The rows of segments in the order in which they are stored; counts of an instant and zone are added up."""
    tables = [_common(read_whole(catalog.store, each)) for each in group]
    table = pa.concat_tables(tables, promote_options="default").unify_dictionaries()
    del tables
    dataset = group[0].dataset
    if dataset == "counts":
        return _added_up(table)
    keys = fix_keys(table) if dataset == "fixes" else _keys(table, CLOCKS[dataset][0])
    order = pa.array(np.lexsort(tuple(reversed(keys))).astype(np.int32))
    names, columns = table.column_names, list(table.columns)
    del table, keys
    for i, column in enumerate(columns):  # one by one: the rows are in memory little more than once
        columns[i] = column.take(order)
    return pa.table(dict(zip(names, columns, strict=True)))


def _common(table: pa.Table) -> pa.Table:
    """The table with dictionaries of one type, whatever the type of the indices was when it was written."""
    names = pa.dictionary(pa.int32(), pa.string())
    for i, column in enumerate(table.columns):
        if pa.types.is_dictionary(column.type) and column.type != names:
            table = table.set_column(i, table.column_names[i], column.cast(names))
    return table


def fix_keys(table: pa.Table) -> list[I8]:
    """Site, coarse cell, device, then time.

    The rows of an area are in few row groups; and neighbouring rows of one device differ so little that a fix
    takes about a fifth less than in an order by cell and time.
    """
    lat, lon = (
        _array(table[name]).view(pa.int32() if name == "lat" else pa.int64()).to_numpy().astype(np.int64)
        // CELL_DEG_E7
        for name in ("lat", "lon")
    )
    device, t = codes(table["device"]), _numbers(table["t"])
    return [codes(table["site"]), lat, lon, device, t, _numbers(table["received"])]


def _keys(table: pa.Table, clock: str) -> list[I8]:
    names = [name for name in ("zone", "kind") if name in table.column_names]
    return [codes(table["site"]), *(codes(table[name]) for name in names), _numbers(table[clock])]


def _added_up(table: pa.Table) -> pa.Table:
    """Counts with one row for each site, zone and instant."""
    at, site, zone = _numbers(table["at"]), codes(table["site"]), codes(table["zone"])
    order = np.lexsort((at, zone, site))
    keys = np.stack([site[order], zone[order], at[order]])
    starts = np.flatnonzero(np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(axis=0)])
    first = pa.array(order[starts])

    def reduced(name: str) -> pa.ChunkedArray:
        if name in {*_COUNT_NAMES, "partitions"}:
            values = table[name].to_numpy()
            return pa.chunked_array([np.add.reduceat(values[order], starts).astype(values.dtype)])
        if name == "partitions_total":
            return pa.chunked_array([np.maximum.reduceat(table[name].to_numpy()[order], starts)])
        return table[name].take(first)

    return pa.table({name: reduced(name) for name in table.column_names})


def _array(column: pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found


def _numbers(times: pa.ChunkedArray) -> I8:
    values: NDArray[np.int64] = times.cast(pa.int64()).to_numpy()
    return values


def codes(names: pa.ChunkedArray) -> I8:
    """A number from 0 for each name, in the order of names."""
    texts = _array(names)
    if not pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_encode()
    rank = pc.rank(texts.dictionary, tiebreaker="dense").to_numpy().astype(np.int64)
    codes: NDArray[np.int64] = rank[texts.indices.to_numpy()]
    return codes
