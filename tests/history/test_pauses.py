"""Pauses: which fixes they are, that queries read them instead of older fixes, and that they follow the fixes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.history import queries
from headcount.history.at_instant import PresenceRules
from headcount.history.catalog import Catalog
from headcount.history.derive import derive_pauses
from headcount.history.hours import HOUR_S
from headcount.history.manifest import PAUSES
from headcount.history.objects import FolderStore
from headcount.history.pauses import PAUSE_US, before_pauses, last_of_quarters
from headcount.history.reader import HistoryView, SegmentReader
from headcount.history.replacing import span
from headcount.history.retention import expire
from headcount.history.row_erasure import erase_rows
from headcount.messages.history import EraseRequest
from headcount.settings.retention_periods import retention_periods
from history_batches import T0, Row, pseudonym
from small_site import feature, site_of, square
from stored_history import table_of

SITE = site_of(feature(square(2, 2, 4), role="zone", id="p1", type="car_park", hold_s={"vehicle": 43_200}))
LATER_S = T0 + 8 * HOUR_S


def fix(seq: int, t: float, device: int, kind: str = "vehicle", verdict: str = "accepted") -> Row:
    """A fix in the car park."""
    return Row(seq, t, t + 0.2, pseudonym(device), kind, 50.003, 0.003, 5.0, verdict)


def commit(catalog: Catalog, rows: list[Row]) -> None:
    """Store rows of one hour as a segment."""
    table = table_of(rows)
    box = (0.003, 50.003, 0.003, 50.003)
    segment = catalog.write("fixes", table, span(table["received"]), t_span_s=span(table["t"]), box=box)
    catalog.commit(lambda before: before.with_segments(segment))


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """A history: a car that is parked at T0 + 600, another one that reports all the time for three hours."""
    catalog = Catalog(FolderStore(tmp_path))
    for hour in range(3):
        moving = [fix(1000 * hour + n, T0 + hour * HOUR_S + n * 10, 2) for n in range(350)]
        parked = [fix(5000 + n, T0 + n * 10, 1) for n in range(60)] if hour == 0 else []
        commit(catalog, moving + parked)
    return catalog


class RecordingReader(SegmentReader):
    """Records the names of the segments that are read."""

    names: list[str]

    def each(self, segment, *arguments):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN201
        """Read a segment."""
        self.names.append(segment.name)
        return super().each(segment, *arguments)


def devices_at(catalog: Catalog, at_s: float) -> tuple[set[str], list[str]]:
    """The devices at an instant, and the data sets and hours that were read for it."""
    reader = RecordingReader(catalog.store)
    reader.names = []
    found = queries.fixes_at(reader.view(), site="ul", rules=PresenceRules(SITE), at_s=at_s)
    return {each.device for each in found}, [name.rpartition("/")[0] for name in reader.names]


@given(st.integers(0, 2**32))
def test_pauses_are_the_fixes_without_a_near_successor(seed: int) -> None:
    """Of each device, an accepted or used fix that none of its sort follows within PAUSE_S; no pause is lost early."""
    rng = random.Random(seed)
    n = rng.choice([0, 1, 5, 60])
    device, t_us = np.array([rng.randrange(4) for _ in range(n)], np.int64), np.zeros(n, np.int64)
    t_us[:] = [rng.choice([0, PAUSE_US, rng.randrange(10 * PAUSE_US)]) + 10**15 for _ in range(n)]
    is_accepted = np.array([rng.random() < 0.5 for _ in range(n)], np.bool_)
    is_used = is_accepted | np.array([rng.random() < 0.5 for _ in range(n)], np.bool_)

    def is_pause(i: int) -> bool:
        return any(
            which[i]
            and not any(
                which[j] and device[j] == device[i] and t_us[i] < t_us[j] <= t_us[i] + PAUSE_US
                for j in range(n)
            )
            for which in (is_accepted, is_used)
        )

    expected = [is_pause(i) for i in range(n)]
    assert before_pauses(device, t_us, is_accepted, is_used).tolist() == expected
    early = last_of_quarters(device, t_us, is_accepted, is_used)
    assert (early | ~np.array(expected, np.bool_)).all()


def test_a_query_reads_pauses_instead_of_older_fixes(catalog: Catalog) -> None:
    """A car that is parked for hours is found, and of the hours before only pauses are read."""
    at_s = T0 + 2.5 * HOUR_S
    before, names = devices_at(catalog, at_s)
    assert before == {pseudonym(1), pseudonym(2)}
    assert {name.split("/")[0] for name in names} == {"fixes"}
    assert derive_pauses(catalog, LATER_S) >= 3
    found, names = devices_at(catalog, at_s)
    assert found == before
    assert {name.split("T")[1] for name in names if name.startswith("fixes")} == {"15"}
    assert {name.split("T")[1] for name in names if name.startswith(PAUSES)} >= {"13", "14"}
    stored = catalog.manifest().of(PAUSES)
    assert sum(each.rows for each in stored) == 4  # the last one of each device and hour


def test_changed_fixes_are_read_until_their_pauses_are_derived_again(catalog: Catalog) -> None:
    """A late segment makes the hour's pauses out of date; deriving them twice does nothing the second time."""
    derive_pauses(catalog, LATER_S)
    commit(catalog, [fix(9000, T0 + 700, 3)])
    at_s = T0 + 2.5 * HOUR_S
    found, names = devices_at(catalog, at_s)
    assert found == {pseudonym(1), pseudonym(2), pseudonym(3)}
    assert {name.split("T")[1] for name in names if name.startswith("fixes")} == {"13", "15"}
    assert derive_pauses(catalog, LATER_S) == 1
    assert derive_pauses(catalog, LATER_S) == 0
    found, names = devices_at(catalog, at_s)
    assert found == {pseudonym(1), pseudonym(2), pseudonym(3)}
    assert {name.split("T")[1] for name in names if name.startswith("fixes")} == {"15"}


def test_unused_fixes_are_derived_once(tmp_path: Path) -> None:
    """An hour whose fixes are all late has a segment of pauses, so it is not derived again and again."""
    catalog = Catalog(FolderStore(tmp_path))
    commit(catalog, [fix(1, T0 + 700, 3, verdict="late")])
    assert derive_pauses(catalog, LATER_S) == 1
    assert derive_pauses(catalog, LATER_S) == 0


def test_damaged_pauses_make_no_answer_incomplete(catalog: Catalog) -> None:
    """The fixes are read instead."""
    derive_pauses(catalog, LATER_S)
    name = catalog.manifest().of(PAUSES)[0].name
    catalog.store.delete([name])
    catalog.store.put(name, b"")
    found, names = devices_at(catalog, T0 + 2.5 * HOUR_S)
    assert found == {pseudonym(1), pseudonym(2)}
    assert any(each.startswith("fixes") and each.endswith("T13") for each in names)


def test_pauses_are_erased_and_expire_with_the_fixes(catalog: Catalog) -> None:
    """No copy of a device's position outlives it, and copies do not count as rows."""
    derive_pauses(catalog, LATER_S)
    found = erase_rows(catalog, EraseRequest([pseudonym(1)]), LATER_S)
    assert found.rows == 60
    devices = {
        name
        for each in catalog.manifest().of(PAUSES)
        for name in HistoryView(SegmentReader(catalog.store), catalog.manifest())
        .scan(PAUSES, columns=["device"])["device"]
        .to_pylist()
        if each
    }
    assert devices == {pseudonym(2)}
    derive_pauses(catalog, LATER_S)
    assert expire(catalog, retention_periods("fixes=24h,fixes.vehicle=6h"), T0 + 7 * HOUR_S) == 350
    assert [each.hour_s for each in catalog.manifest().of(PAUSES)] == [T0 + HOUR_S, T0 + 2 * HOUR_S]
