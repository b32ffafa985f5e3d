"""Bloom filters of segments, as written by pyarrow and read by DuckDB."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headcount.history.bloom_filters import BloomFilters, xxh64


def test_the_hash_is_xxh64() -> None:
    """The values are those of the reference implementation."""
    assert xxh64(b"") == 0xEF46DB3751D8E999
    assert xxh64(b"0123456789abcdef") == 0x5C5B90C34E376D0B


def test_filters_hold_what_was_written() -> None:
    """Every name is found in its row group, and of other names at most a few."""
    # the last group is smaller, and so is its filter
    names = [f"{each:016x}" for each in np.random.default_rng(1).integers(0, 2**63, 3100).tolist()]
    sink = pa.BufferOutputStream()
    options = {"device": {"ndv": 1000, "fpp": 0.01}}
    pq.write_table(pa.table({"device": names}), sink, row_group_size=1000, bloom_filter_options=options)
    data = sink.getvalue().to_pybytes()
    metadata = pq.ParquetFile(pa.BufferReader(data)).metadata
    chunks = [metadata.row_group(group).column(0) for group in range(4)]
    filters = BloomFilters(
        [data[c.bloom_filter_offset : c.bloom_filter_offset + c.bloom_filter_length] for c in chunks]
    )
    held = np.array([filters.may_hold(name.encode()) for name in names])
    own = np.arange(3100) // 1000
    assert held[np.arange(3100), own].all()
    assert held.sum() - 3100 < 3100 * 3 * 0.03
