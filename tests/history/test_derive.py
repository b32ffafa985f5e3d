"""Derived hours: once, complete, corrected, and small."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import msgspec

import flow_oracle as oracle
from derived_rows import derived, flows_in, instants, store_counts, store_events, summary
from flow_oracle import US
from headcount.history.catalog import Catalog
from headcount.history.derive import derive
from headcount.history.objects import FolderStore
from headcount.history.stays import ZoneEvent
from headcount.history.upkeep import Upkeep
from headcount.settings.retention_periods import RetentionPeriods

#: 2026-11-24T13:00:00Z
T0 = 1_795_525_200.0


def test_flows_equal_brute_force_over_the_stored_events(tmp_path: Path) -> None:
    """Hour by hour over a day and a half, each hour equals the definition over all events."""
    catalog = Catalog(FolderStore(tmp_path))
    events = oracle.walk(random.Random(5), start_s=T0, hours=36, devices=8)
    for hour in range(37):
        now_s = T0 + hour * 3600 + 300
        new = [e for e in events if now_s - 3900 <= e.t_us / US < now_s - 300]
        half = len(new) // 2
        for part in (new[:half], new[half:]):
            if part:
                store_events(catalog, part)
        derive(catalog, now_s)
    occurrences, found = oracle.occurrences(events), flows_in(catalog)
    for hour in range(36):
        expected = oracle.flows_of(occurrences, T0 + hour * 3600)
        assert {c: n for c, (n, _) in found[T0 + hour * 3600].items()} == {
            c: n for c, (n, _) in expected.items()
        }
    assert {row["version"] for row in derived(catalog, "flows")} == {1}


def test_minutes_equal_brute_force_over_the_stored_counts(tmp_path: Path) -> None:
    """All minutes of hours that are closed, also the minute that ends with the hour; no later ones."""
    catalog = Catalog(FolderStore(tmp_path))
    rows = [
        row | {"at": row["at"] + 60_000 * shift}
        for seed, shift in enumerate([0, 10, 50, 55, 70, 118, 119])
        for row in instants(random.Random(seed), 40)
    ]
    store_counts(catalog, rows[: len(rows) // 2])
    store_counts(catalog, rows[len(rows) // 2 :])
    derive(catalog, T0 + 2 * 3600 + 300)
    expected = [row for row in summary(rows, 60) if row["at"] < T0 + 2 * 3600]
    found = [
        {name: value for name, value in row.items() if name not in ("version", "derived")}
        for row in derived(catalog, "minutes")
    ]
    key = lambda row: (row["site"], row["zone"], row["at"])  # noqa: E731
    assert sorted(found, key=key) == expected


def test_an_hour_is_derived_once_by_several_writers(tmp_path: Path) -> None:
    """Four jobs at the same time leave each hour once, and the orphans of the slower ones are deleted."""
    store_events(Catalog(FolderStore(tmp_path)), oracle.walk(random.Random(1), start_s=T0, hours=6))
    store_counts(Catalog(FolderStore(tmp_path)), instants(random.Random(1), 60))
    barrier = threading.Barrier(4)

    def run() -> None:
        own = Catalog(FolderStore(tmp_path))
        barrier.wait()
        derive(own, T0 + 7 * 3600)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    catalog = Catalog(FolderStore(tmp_path))
    manifest = catalog.manifest()
    hours = [(s.dataset, s.hour_s) for s in manifest.segments if s.dataset in ("minutes", "flows")]
    assert len(hours) == len(set(hours)) == 6
    stored = {each.name for each in catalog.store.list_() if each.name.endswith(".parquet")}
    assert stored == {segment.name for segment in manifest.segments}
    assert manifest.derived == {"minutes": T0 + 3600, "flows": T0 + 6 * 3600}


def test_late_rows_give_the_next_version(tmp_path: Path) -> None:
    """Hours and sites that late rows change have version 2 and the time of the correction, the others version 1."""
    catalog = Catalog(FolderStore(tmp_path))
    events = [e for e in oracle.walk(random.Random(2), start_s=T0, hours=4, devices=12) if e.site == "ul"]
    other = ZoneEvent("dcu", "person", "f" * 16, round((T0 + 5000) * US), "yard", True, "moved")
    late = [e for e in events if T0 + 3600 <= e.t_us / US < T0 + 3900]
    assert late
    store_events(catalog, [*(e for e in events if e not in late), other])
    store_counts(catalog, instants(random.Random(2), 30))
    assert derive(catalog, T0 + 4 * 3600 + 300) > 0
    assert derive(catalog, T0 + 4 * 3600 + 360) == 0
    before = flows_in(catalog)
    store_events(catalog, late)
    store_counts(catalog, [row | {"at": row["at"] + 1} for row in instants(random.Random(3), 5)])
    assert derive(catalog, T0 + 4 * 3600 + 600) > 0
    after, occurrences = flows_in(catalog), oracle.occurrences([*events, other])
    for hour in range(4):
        expected = oracle.flows_of(occurrences, T0 + hour * 3600)
        assert {c: n for c, (n, _) in after[T0 + hour * 3600].items()} == {
            c: n for c, (n, _) in expected.items()
        }
    for row in derived(catalog, "flows"):
        is_new = row["site"] == "ul" and after[row["at"]] != before[row["at"]]
        assert row["version"] == (2 if is_new else 1)
        assert row["derived"] == T0 + 4 * 3600 + (600 if is_new else 300)
    assert {row["version"] for row in derived(catalog, "minutes") if row["site"] == "ul"} == {2}
    assert derive(catalog, T0 + 4 * 3600 + 660) == 0


def test_compaction_and_erasure_correct_nothing(tmp_path: Path) -> None:
    """The same rows in one segment, or without those of an erased device, leave the numbers and the version."""
    catalog = Catalog(FolderStore(tmp_path))
    events = oracle.walk(random.Random(6), start_s=T0, hours=3)
    store_events(catalog, events[::2])
    store_events(catalog, events[1::2])
    derive(catalog, T0 + 4 * 3600)
    before = derived(catalog, "flows")
    for kept in (events, [e for e in events if e.device != events[0].device]):
        names = {segment.name for segment in catalog.manifest().of("events")}
        catalog.commit(lambda manifest, names=names: manifest.without(names, T0))  # type: ignore[misc]
        store_events(catalog, kept)
        assert derive(catalog, T0 + 4 * 3600) == 0
    assert derived(catalog, "flows") == before


def test_an_hour_waits_for_its_partitions(tmp_path: Path) -> None:
    """An hour is derived when every partition has reported counts after it, or an hour later."""
    from headcount.history.manifest import PartitionMark, SiteMark  # noqa: PLC0415

    catalog = Catalog(FolderStore(tmp_path))
    store_counts(catalog, instants(random.Random(1), 20))
    marks = {
        0: PartitionMark(9, {"ul": SiteMark(counts_at=T0 + 3900)}),
        1: PartitionMark(9, {"ul": SiteMark(counts_at=T0 + 3590)}),
    }
    catalog.commit(lambda before: msgspec.structs.replace(before, partitions=marks))
    assert derive(catalog, T0 + 3900) == 0
    assert derive(catalog, T0 + 3600 + 3600 + 1) == 1


def test_hours_of_old_days_are_merged(tmp_path: Path) -> None:
    """Days later, a day is one segment with the same rows, and is not derived again when its source is gone."""
    catalog = Catalog(FolderStore(tmp_path))
    start = T0 // 86_400 * 86_400
    store_events(catalog, oracle.walk(random.Random(3), start_s=start, hours=24))
    derive(catalog, start + 25 * 3600)
    before = derived(catalog, "flows")
    names = {segment.name for segment in catalog.manifest().of("events")}
    catalog.commit(lambda manifest: manifest.without(names, T0))
    assert derive(catalog, start + 5 * 86_400) == 0
    assert len(catalog.manifest().of("flows")) == 1
    key = lambda row: tuple(map(str, row.values()))  # noqa: E731
    assert sorted(derived(catalog, "flows"), key=key) == sorted(before, key=key)


def test_the_last_hour_of_a_day_is_derived_from_all_of_it(tmp_path: Path) -> None:
    """With the upkeep of each quarter of an hour, events expire after the hours that depend on them are derived."""
    catalog, start_s = Catalog(FolderStore(tmp_path)), T0 // 86_400 * 86_400
    events = oracle.walk(random.Random(9), start_s=start_s, hours=24, devices=6)
    # the first one comes early and late, and the others once
    visits = [(0, "a" * 16), (23, "a" * 16), (23, "b" * 16), (23, "c" * 16)]
    for hour, device in visits:
        for minute, is_enter in ((20, True), (30, False)):
            t_us = round((start_s + hour * 3600 + minute * 60) * US)
            events.append(ZoneEvent("north", "person", device, t_us, "lib", is_enter, "moved"))
    store_events(catalog, events)
    upkeep = Upkeep(catalog, RetentionPeriods())
    for quarter in range(90, 102):
        upkeep.run(start_s + quarter * 900 + 300)
    assert len(catalog.manifest().of("events")) == 23
    occurrences, found = oracle.occurrences(events), flows_in(catalog)
    for hour in range(24):
        expected = oracle.flows_of(occurrences, start_s + hour * 3600)
        assert {c: n for c, (n, _) in found[start_s + hour * 3600].items()} == {
            c: n for c, (n, _) in expected.items()
        }
    assert found[start_s + 23 * 3600]["north", "person", "dwell", "lib", "300"] == (3, 2)
