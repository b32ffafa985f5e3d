"""Quarters of an hour from minutes and counts, and their places on the local clock."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from headcount.history.catalog import Catalog
from headcount.history.forecast import SLOT_S, SLOTS
from headcount.history.minutes import COUNT_COLUMNS, minutes
from headcount.history.objects import FolderStore
from headcount.history.quarter_hours import QuarterHours, local_slot, means, on_local_clock
from headcount.history.reader import SegmentReader

DUBLIN, UTC = ZoneInfo("Europe/Dublin"), ZoneInfo("UTC")
#: 2026-11-24T13:00:00Z
T0 = 1_795_525_200


def instants(seed: int, from_s: int, to_s: int) -> pa.Table:
    """Counts of two zones of two sites each 10 s; some are missing, some come in two rows."""
    rng = np.random.default_rng(seed)
    rows = []
    for at_s in range(from_s, to_s, 10):
        for site, zone in (("ul", "site"), ("ul", "library"), ("other", "site")):
            if rng.random() < 0.1:
                continue
            person, vehicle = (int(each) for each in rng.integers(0, 50, 2))
            if rng.random() < 0.5:
                rows.append((at_s * 1000, site, zone, person, vehicle, 2, 2))
            else:
                rows += [
                    (at_s * 1000, site, zone, person, 0, 1, 2),
                    (at_s * 1000, site, zone, 0, vehicle, 1, 2),
                ]
    types = [
        pa.timestamp("ms", "UTC"),
        pa.string(),
        pa.string(),
        pa.int32(),
        pa.int32(),
        pa.int16(),
        pa.int16(),
    ]
    columns = zip(*rows, strict=True)
    return pa.table(
        [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)], names=COUNT_COLUMNS
    )


@pytest.mark.parametrize("max_rows", [1_000_000, 1])
@pytest.mark.parametrize("seed", range(4))
def test_quarters_equal_brute_force(tmp_path: Path, seed: int, max_rows: int) -> None:
    """Each quarter has the mean of its instants, in derived hours, across their border, and in the newest one."""
    table = instants(seed, T0 + 5, T0 + 3 * 3600 + 1000)
    now_s = T0 + 3 * 3600 + 990.0
    catalog = Catalog(FolderStore(tmp_path))
    at_s = np.array(table["at"].cast(pa.int64()).to_pylist()) // 1000
    segments = [catalog.write("counts", table, (float(at_s[0]), float(at_s[-1])))]
    for hour in range(2):
        start = T0 + hour * 3600
        of_hour = table.filter(pa.array((at_s > start - 60) & (at_s <= start + 3540)))
        segments.append(catalog.write("minutes", minutes(of_hour), (float(start), start + 3540.0)))

    def change(before: object) -> object:
        before.derived["minutes"] = T0 + 7200.0  # type: ignore[attr-defined]
        return before.with_segments(*segments)  # type: ignore[attr-defined]

    catalog.commit(change)  # type: ignore[arg-type]
    expected: dict[int, list[int]] = {}
    people: dict[int, int] = {}
    for at, site, zone, person, *_ in zip(*(table[name].to_pylist() for name in COUNT_COLUMNS), strict=True):
        if (site, zone) == ("ul", "library"):
            people[int(at.timestamp())] = people.get(int(at.timestamp()), 0) + person
    for at, person in people.items():
        expected.setdefault(-(-at // SLOT_S), []).append(person)
    quarters = QuarterHours(max_rows)
    newest = int(now_s // SLOT_S)
    for _ in range(2):
        found = quarters.zones(SegmentReader(FolderStore(tmp_path)).view(), "ul", now_s)
        assert sorted(found) == ["library", "site"]
        series, last = means(found["library"], 0, newest, UTC)
        assert last == newest - 1
        for quarter, values in expected.items():
            if quarter <= newest:
                assert series[quarter - newest - 1] == pytest.approx(np.mean(values))


@pytest.mark.parametrize(("start_s", "hours"), [(1_774_742_400, 23), (1_792_882_800, 25)])
def test_days_on_which_the_clock_changes(start_s: int, hours: int) -> None:
    """Noon stays noon: a skipped hour is unknown, and of a repeated one the later counts are used."""
    first = start_s // SLOT_S + 1
    quarters = np.arange(first, first + 4 * hours + 48)
    series, last = on_local_clock(quarters, quarters.astype(float), int(quarters[-1]), DUBLIN)
    assert len(series) == SLOTS + 48
    assert (last + 1) % SLOTS == 48
    assert series[-1] == quarters[-1]
    assert int(np.isnan(series).sum()) == (4 if hours == 23 else 0)
    assert local_slot(first, DUBLIN) % SLOTS == 0
