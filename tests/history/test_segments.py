"""Segments on disk: what is in them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from headcount.errors import DataFolderError
from headcount.history.hours import hour_name
from history_batches import T0, batch, random_rows, segment_files, stored_counts, stored_fixes, values, write
from read_only import read_only


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    """Every value of a row comes back: times to their precision, positions with all 7 decimals."""
    rows = random_rows(random.Random(1), 500)
    write(tmp_path, batch(2, rows, partitions=4))
    assert stored_fixes(tmp_path) == [(2, row) for row in rows]


def test_counts_come_back_as_they_were(tmp_path: Path) -> None:
    """Counts keep their order of kinds and numbers."""
    write(tmp_path, batch(counts=[(T0, values(2, 5))]))
    path = segment_files(tmp_path, "counts")[0]
    assert pq.read_schema(path).names[3:11] == [
        *("person_count", "person_low", "person_high", "person_stale"),
        *("vehicle_count", "vehicle_low", "vehicle_high", "vehicle_stale"),
    ]
    assert stored_counts(tmp_path) == {
        (T0, "site"): (list(range(5, 13)), 1, 1),
        (T0, "library"): (list(range(13, 21)), 1, 1),
    }


def test_sites_are_apart(tmp_path: Path) -> None:
    """Rows of several sites come back with their site, though partition, zones and instants are the same."""
    rows = random_rows(random.Random(7), 300, start=T0 + 3600 - 30)
    of_site = {"ul": rows[::2], "north": rows[1::2]}
    instants = (T0 + 3590, T0 + 3600)
    write(
        tmp_path,
        batch(rows=of_site["ul"], counts=[(at, values(2, 5)) for at in instants]),
        batch(rows=of_site["north"], counts=[(at, values(2, 50)) for at in instants], site="north"),
    )
    for site, first in (("ul", 5), ("north", 50)):
        assert stored_fixes(tmp_path, site) == [(0, row) for row in of_site[site]]
        expected = {(at, "site"): (list(range(first, first + 8)), 1, 1) for at in instants}
        assert expected.items() <= stored_counts(tmp_path, site).items()
    group = pq.read_metadata(segment_files(tmp_path, "fixes")[0]).row_group(0)
    assert group.column(0).total_compressed_size < 150


def test_hours_have_their_own_folders(tmp_path: Path) -> None:
    """Rows of two hours go into two segments, by `received` and `at` in UTC."""
    rows = random_rows(random.Random(2), 200, start=T0 + 3600 - 30)
    rows[0] = replace(rows[0], received=T0 + 3600 - 1e-7)
    write(tmp_path, batch(rows=rows, counts=[(T0 + 3590, values(2, 0)), (T0 + 3600, values(2, 0))]))
    for kind in ("fixes", "counts"):
        hours = [path.parent.name for path in segment_files(tmp_path, kind)]
        assert hours == ["hour=2026-11-24T13", "hour=2026-11-24T14"]
    for path in segment_files(tmp_path, "fixes"):
        received = pq.ParquetFile(path).read(columns=["received"]).column(0).to_pylist()
        assert {moment.strftime("hour=%Y-%m-%dT%H") for moment in received} == {path.parent.name}
    assert len(stored_fixes(tmp_path)) == 200


def test_names_are_dictionaries_and_blocks_are_zstd(tmp_path: Path) -> None:
    """Files are small: names are stored once per row group, everything is compressed."""
    write(tmp_path, batch(rows=random_rows(random.Random(3), 100)))
    group = pq.read_metadata(segment_files(tmp_path, "fixes")[0]).row_group(0)
    chunks = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert {chunk.compression for chunk in chunks.values()} == {"ZSTD"}
    for name in ("site", "device", "kind", "verdict"):
        assert "RLE_DICTIONARY" in chunks[name].encodings


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    """A folder that can't be written gives the folder, the problem and what to do."""
    refused = pytest.raises(DataFolderError, match=r"Permission denied|Read-only file system")
    with read_only(tmp_path / "data") as data, refused:
        write(data, batch(rows=random_rows(random.Random(6), 10)))


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    """A file where the hour's folder should be fails the flush, and nothing of it is stored."""
    path = tmp_path / "history" / "fixes" / hour_name(T0)
    path.parent.mkdir(parents=True)
    path.write_text("in the way")
    with pytest.raises(DataFolderError, match=r"hour=2026-11-24T13"):
        write(tmp_path, batch(rows=random_rows(random.Random(6), 10)))
    assert not (tmp_path / "history" / "manifest.json").exists()
