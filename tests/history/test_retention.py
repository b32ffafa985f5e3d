"""A day, and not more."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from headcount.history.catalog import Catalog
from headcount.history.hours import folder, hour_name, hour_start
from headcount.history.objects import FolderStore
from headcount.history.retention import KEEP_S, drop_expired, expired
from history_batches import T0, batch, random_rows, segment_files, stored_fixes, values, write


def catalog(data: Path) -> Catalog:
    """The history in a data folder."""
    return Catalog(FolderStore(folder(data)))


@given(st.floats(0, 4e9), st.floats(0, 4e9), st.integers(0, 48))
def test_an_hour_goes_when_its_last_row_is_a_day_old(now_s: float, t_s: float, keep_h: int) -> None:
    """A row's hour is dropped only when every row it could hold is old enough, and then always."""
    name = hour_name(t_s)
    gone = expired([name], now_s, keep_h * 3600.0) == [name]
    if gone:
        assert now_s - t_s >= keep_h * 3600
    if now_s - t_s >= (keep_h + 1) * 3600:
        assert gone


def test_names_of_others_are_left_alone() -> None:
    """Only hour folders are ever dropped."""
    names = ["hour=1970-01-01T00", "hour=", "hour=1970-01-01T24", "notes", "hour=1970-01-01T00.bak"]
    assert expired(names, T0) == ["hour=1970-01-01T00"]
    assert hour_start("hour=1970-01-01T01") == 3600.0


def test_whole_hours_are_dropped(tmp_path: Path) -> None:
    """Fixes and counts of the expired hour are gone, those of the next one stay, and twice is once."""
    rows = random_rows(random.Random(1), 100, start=T0 + 3600 - 30)
    counts = [(T0 + 3590, values(2, 0)), (T0 + 3600, values(2, 0))]
    write(tmp_path, batch(rows=rows, counts=counts))
    assert drop_expired(catalog(tmp_path), T0 + 3600 + KEEP_S - 1) == []
    gone = drop_expired(catalog(tmp_path), T0 + 3600 + KEEP_S)
    assert [name.split("/")[1] for name in gone] == ["hour=2026-11-24T13"] * 2
    assert len(segment_files(tmp_path, "counts")) == 1
    assert {row for _, row in stored_fixes(tmp_path)} == {row for row in rows if row.received >= T0 + 3600}
    assert drop_expired(catalog(tmp_path), T0 + 3600 + KEEP_S) == []


def test_an_empty_history_has_nothing_to_drop(tmp_path: Path) -> None:
    """A missing folder is no error."""
    assert drop_expired(catalog(tmp_path), T0) == []


def test_what_was_dropped_does_not_come_back(tmp_path: Path) -> None:
    """Rows that are delivered again after their hour was dropped are still known as written."""
    rows = random_rows(random.Random(2), 20)
    write(tmp_path, batch(rows=rows))
    drop_expired(catalog(tmp_path), T0 + 3600 + KEEP_S)
    write(tmp_path, batch(rows=rows))
    assert stored_fixes(tmp_path) == []
