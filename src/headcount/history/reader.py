"""Read rows from the segments that a manifest names."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headcount.history.manifest import Manifest
from headcount.history.objects import ObjectStore

#: The column by which the rows of a data set are cut into hours, and its unit in a second.
CLOCKS = {
    "fixes": ("received", 1e3),
    "counts": ("at", 1e3),
    "events": ("t", 1e6),
    "minutes": ("at", 1e3),
    "flows": ("at", 1e3),
}


def scan(
    store: ObjectStore,
    manifest: Manifest,
    dataset: str,
    *,
    columns: Sequence[str],
    site: str | None = None,
    from_s: float | None = None,
    to_s: float | None = None,
) -> pa.Table:
    """The rows of a data set whose clock (see CLOCKS) is within a span (inclusive), segment by segment.

    Raises:
        DataFolderError, StoreError: a segment cannot be read.
    """
    clock, per_s = CLOCKS[dataset]
    wanted = list(dict.fromkeys([*columns, clock, "site"]))
    tables = []
    for segment in manifest.of(dataset, from_s, to_s, site):
        with store.open(segment.name) as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read(wanted)
        ticks = table[clock].cast(pa.int64())
        mask = pc.is_valid(ticks)
        if site is not None:
            mask = pc.and_(mask, pc.equal(table["site"].cast(pa.string()), site))
        if from_s is not None:
            mask = pc.and_(mask, pc.greater_equal(ticks, round(from_s * per_s)))
        if to_s is not None:
            mask = pc.and_(mask, pc.less_equal(ticks, round(to_s * per_s)))
        tables.append(table.filter(mask).select(list(columns)))
    if not tables:
        return pa.table({name: pa.array([], pa.null()) for name in columns})
    return pa.concat_tables(tables, promote_options="permissive")
