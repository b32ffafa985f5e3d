"""Upkeep of the history: compaction, expiry and holds keep exactly the rows that they should."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from headcount.errors import ObjectNotFoundError, ReplacedError
from headcount.history import compaction, replacing
from headcount.history.buffer import CountRows
from headcount.history.catalog import Catalog, Change
from headcount.history.damage import read_whole
from headcount.history.manifest import (
    PAUSES,
    SCHEMA,
    Hold,
    Manifest,
    NewerSchemaError,
    Segment,
    decoded,
    encoded,
)
from headcount.history.objects import FolderStore, ObjectStore
from headcount.history.reader import SegmentReader
from headcount.history.retention import expire, expired_kinds
from headcount.history.row_erasure import ErasedRows, erase_rows
from headcount.history.segments import counts_table, fixes_table, parquet
from headcount.history.upkeep import DELETE_AFTER_S, ORPHAN_AGE_S, Upkeep
from headcount.messages.history import EraseRequest
from headcount.privacy.retention_report import history_ages
from headcount.settings.retention_periods import RetentionPeriods, retention_periods
from history_batches import T0, pseudonym

H = 3600.0
SITES = ("ul", "north")


def fixes(
    seqs: list[int], received_s: float, *, site: str = "ul", kind: int = 0, device: int = 1
) -> pa.Table:
    """Fixes with these sequences, a second apart."""
    n = len(seqs)
    values: dict[str, np.ndarray] = {
        "site": np.full(n, SITES.index(site), np.int16),
        "partition": np.zeros(n, np.int16),
        "seq": np.array(seqs, np.int64),
        "t": received_s + np.arange(n) - 1.0,
        "received": received_s + np.arange(n),
        "device": np.frombuffer(bytes.fromhex(pseudonym(device)) * n, "=u8"),
        "kind": np.full(n, kind, np.uint8),
        "lat": 52.67 + np.arange(n) * 1e-4,
        "lon": -8.57 + np.arange(n) * 1e-4,
        "acc": np.zeros(n, np.float32),
        "verdict": np.full(n, 9, np.uint8),
    }
    return fixes_table(values, SITES)


def counts(at_s: float, number: int, partitions: int, total: int, zone: str = "library") -> pa.Table:
    """A row of counts."""
    return counts_table(
        CountRows(
            np.array([at_s]),
            ["ul"],
            [zone],
            np.full((1, 2, 4), number, np.int32),
            np.array([partitions], np.int16),
            np.array([total], np.int16),
        )
    )


def written(catalog: Catalog, dataset: str, table: pa.Table) -> Segment:
    """A segment that is not committed."""
    clock = "received" if dataset == "fixes" else "at"
    return catalog.write(dataset, table, replacing.span(table[clock]))


def committed(catalog: Catalog, dataset: str, *tables: pa.Table) -> list[Segment]:
    """Segments in the manifest."""
    segments = [written(catalog, dataset, table) for table in tables]
    catalog.commit(lambda before: before.with_segments(*segments))
    return segments


def rows_of(catalog: Catalog, segments: list[Segment]) -> list[int]:
    """The sequences of all fixes, sorted; doubled ones show."""
    return sorted(seq for each in segments for seq in read_whole(catalog.store, each)["seq"].to_pylist())


def stored(catalog: Catalog) -> list[int]:
    """The sequences of all fixes that queries see."""
    return rows_of(catalog, catalog.manifest().of("fixes"))


def held(catalog: Catalog) -> list[int]:
    """The sequences of all fixes that are kept for holds only."""
    return rows_of(catalog, [each.segment for each in catalog.manifest().held])


def a_hold(id_: str, from_s: float, to_s: float, site: str = "", datasets: tuple[str, ...] = ()) -> Hold:
    """A hold."""
    return Hold(id_, "a court's request", "admin", T0, from_s, to_s, site, datasets)


def place(catalog: Catalog, *holds: Hold) -> None:
    """Set the holds of the manifest."""
    catalog.commit(lambda before: msgspec.structs.replace(before, holds=holds))


@pytest.fixture
def catalog(store: ObjectStore) -> Catalog:
    """An empty history."""
    return Catalog(store)


def overwrite(catalog: Catalog, name: str, data: bytes) -> None:
    """Damage an object."""
    catalog.store.delete([name])
    catalog.store.put(name, data)


# --- compaction -------------------------------------------------------------------------------------
def test_small_segments_of_an_hour_become_one(catalog: Catalog) -> None:
    """After the hour, its segments are one, with all rows, their statistics, and in order of site and cell."""
    committed(catalog, "fixes", *(fixes([n, 100 + n], T0 + 10 * n, site=SITES[n % 2]) for n in range(50)))
    assert compaction.compact(catalog, T0 + 2 * H) == 50
    (segment,) = catalog.manifest().segments
    assert stored(catalog) == [*range(50), *range(100, 150)]
    assert (segment.from_s, segment.to_s, segment.rows) == (T0, T0 + 491, 100)
    assert (segment.t_from_s, segment.t_to_s, segment.sites) == (T0 - 1, T0 + 490, ("north", "ul"))
    assert len(catalog.manifest().removed) == 50
    assert compaction.compact(catalog, T0 + 2 * H) == 0


def test_late_counts_are_read_with_merged_ones(catalog: Catalog) -> None:
    """Counts that are stored after their hour was merged are in the answers, beside the merged ones."""
    committed(catalog, "counts", counts(T0, 3, 4, 4), counts(T0 + 5.0, 4, 4, 4))
    compaction.compact(catalog, T0 + 2 * H)
    committed(catalog, "counts", counts(T0 + 10.0, 5, 4, 4))
    view = SegmentReader(catalog.store).view()
    rows = view.scan("counts", columns=["at", "site", "zone"])
    assert sorted(rows["site"].to_pylist()) == ["ul"] * 3
    assert len(rows["at"].unique()) == 3


def test_partial_counts_add_up(catalog: Catalog) -> None:
    """Rows of the same instant, site and zone become one: numbers and partitions are sums."""
    at_s = [T0, T0 + 5.0]
    committed(
        catalog,
        "counts",
        counts(at_s[0], 3, 2, 4),
        counts(at_s[0], 4, 1, 4),
        counts(at_s[0], 9, 4, 4, "gym"),
        counts(at_s[1], 5, 4, 4),
    )
    compaction.compact(catalog, T0 + 2 * H)
    (segment,) = catalog.manifest().segments
    table = compaction.merged(catalog, [segment])
    found = {
        (row["zone"], row["at"].timestamp()): (
            row["person_count"],
            row["vehicle_stale"],
            row["partitions"],
            row["partitions_total"],
        )
        for row in table.to_pylist()
    }
    assert found == {
        ("library", T0): (7, 7, 3, 4),
        ("library", T0 + 5): (5, 5, 4, 4),
        ("gym", T0): (9, 9, 4, 4),
    }
    assert segment.rows == 3


def test_compaction_that_is_crossed_gives_up(catalog: Catalog) -> None:
    """If another process has replaced an input, nothing changes and the output is deleted."""
    group = committed(catalog, "fixes", fixes([1], T0), fixes([2], T0 + 1), fixes([3], T0 + 2))
    original = catalog.commit

    def crossed(change: Change) -> Manifest:
        catalog.commit = original  # type: ignore[method-assign]
        catalog.commit(lambda before: before.without({group[0].name}, T0))
        return catalog.commit(change)

    catalog.commit = crossed  # type: ignore[method-assign]
    assert not compaction.merge(catalog, group, T0)
    assert stored(catalog) == [2, 3]
    assert {each.name for each in catalog.store.list_()} == {each.name for each in group} | {"manifest.json"}


@given(
    st.lists(st.integers(1, 3_000_000), max_size=60),
    st.booleans(),
)
def test_groups_are_bounded_and_disjoint(rows: list[int], over: bool) -> None:
    """A group has at least two segments and at most MAX_ROWS rows, and no segment is in two."""
    segments = [
        Segment(f"fixes/hour=2026-11-24T13/{i}.parquet", n, 1, "", T0 + i, T0 + i + 1, ("ul",))
        for i, n in enumerate(rows)
    ]
    found = compaction.groups(segments, T0 + (2 * H if over else 200))
    names = [each.name for group in found for each in group]
    assert len(names) == len(set(names))
    for group in found:
        assert len(group) >= (2 if over else compaction.MIN_SEGMENTS)
        assert sum(each.rows for each in group) <= compaction.MAX_ROWS


def test_a_row_is_merged_a_few_times_only() -> None:
    """720 equal segments that come one after the other are written again fewer than five times each."""
    segments: dict[str, int] = {}
    copied = 0
    for n in range(720):
        segments[f"{n:05d}"] = 30_000
        for group in compaction.groups(_segments(segments), T0 + 3500.0):
            copied += _merge(segments, group, f"{n:05d}m")
    for _ in range(5):
        for i, group in enumerate(compaction.groups(_segments(segments), T0 + 2 * H)):
            copied += _merge(segments, group, f"x{len(segments)}-{i}")
    assert copied < 5 * 720 * 30_000
    assert len(segments) <= 2 * 720 * 30_000 / compaction.MAX_ROWS + 1


def _segments(rows: dict[str, int]) -> list[Segment]:
    return [
        Segment(f"fixes/hour=2026-11-24T13/{name}.parquet", n, 1, "", T0, T0 + 3000, ("ul",))
        for name, n in rows.items()
    ]


def _merge(rows: dict[str, int], group: list[Segment], name: str) -> int:
    total = sum(rows.pop(each.name.split("/")[2].removesuffix(".parquet")) for each in group)
    rows[name] = total
    return total


class _LostAnswers(FolderStore):
    """A folder whose first replacement of the manifest is applied, and reported as refused."""

    is_lost = False

    def replace(self, name: str, data: bytes, version: str | None) -> None:
        """Replace it, and lose the answer once."""
        super().replace(name, data, version)
        if self.is_lost:
            self.is_lost = False
            raise ReplacedError(self.url, f"{name} was replaced", "Read it again")


def test_a_commit_whose_answer_is_lost_loses_no_rows(tmp_path: Path) -> None:
    """A merge and an expiry that were applied, but seem not to be, delete nothing that the manifest names."""
    store = _LostAnswers(tmp_path)
    catalog = Catalog(store)
    group = committed(catalog, "fixes", fixes([1], T0), fixes([2], T0 + 5))
    store.is_lost = True
    assert compaction.merge(catalog, group, T0)
    assert stored(catalog) == [1, 2]
    store.is_lost = True
    assert erase_rows(catalog, EraseRequest(site="north"), T0) == ErasedRows()
    committed(catalog, "fixes", fixes([3], T0, site="north"), fixes([4], T0, device=2))
    store.is_lost = True
    erase_rows(catalog, EraseRequest([pseudonym(2)]), T0)
    assert stored(catalog) == [1, 2, 3]


# --- expiry and holds -------------------------------------------------------------------------------
def test_rows_expire_by_their_data_set_and_kind(catalog: Catalog) -> None:
    """Vehicles leave their segment six hours after the hour of their newest row, everything after a day."""
    periods = retention_periods("fixes=24h,fixes.vehicle=6h")
    table = pa.concat_tables([fixes([1, 2], T0), fixes([3, 4], T0 + 5, kind=1)])
    committed(catalog, "fixes", table)
    assert expire(catalog, periods, T0 + 7 * H - 1) == 0
    assert expire(catalog, periods, T0 + 7 * H) == 2
    assert stored(catalog) == [1, 2]
    assert catalog.manifest().segments[0].kinds == ("person",)
    assert expire(catalog, periods, T0 + 25 * H - 1) == 0
    assert expire(catalog, periods, T0 + 25 * H) == 2
    assert stored(catalog) == []


def test_rows_under_a_hold_stay_and_are_in_no_query(catalog: Catalog) -> None:
    """Of an expired segment, the rows of the hold's site and span are held; a release deletes them."""
    committed(catalog, "fixes", pa.concat_tables([fixes([1, 2, 3], T0), fixes([4, 5], T0, site="north")]))
    committed(catalog, "fixes", fixes([6], T0 + 1))
    place(catalog, a_hold("h1", T0 + 1, T0 + 10, "ul"), a_hold("h2", T0 + 2, T0 + 2))
    assert expire(catalog, RetentionPeriods(), T0 + 25 * H) == 3
    assert stored(catalog) == []
    assert held(catalog) == [2, 3, 6]
    place(catalog, a_hold("h2", T0 + 2, T0 + 2))
    expire(catalog, RetentionPeriods(), T0 + 26 * H)
    assert held(catalog) == [3]
    place(catalog)
    expire(catalog, RetentionPeriods(), T0 + 26 * H)
    assert catalog.manifest().held == ()


def test_a_hold_that_is_placed_meanwhile_is_respected(catalog: Catalog) -> None:
    """A plan that was made before the hold is not committed, and its segments are deleted."""
    (segment,) = committed(catalog, "fixes", fixes([1, 2], T0))
    plan = [replacing.drop(catalog, segment, ())]
    place(catalog, a_hold("h1", T0, T0 + 1))
    assert not replacing.apply(catalog, plan, (), T0)
    assert stored(catalog) == [1, 2]


@given(st.floats(0, 2e9), st.integers(1, 24), st.integers(0, 4000))
def test_a_segment_expires_with_its_newest_row(now_s: float, hours: int, length_s: int) -> None:
    """No row is deleted before its period is over, and each is at most an hour after it."""
    segment = Segment("fixes/hour=2026-11-24T13/x.parquet", 1, 1, "", 1e9, 1e9 + length_s, ("ul",))
    gone = expired_kinds(segment, retention_periods(f"fixes={hours}h"), now_s) is None
    newest_s = 1e9 + length_s
    assert not gone or now_s - newest_s >= hours * 3600
    assert gone or now_s - newest_s < (hours + 1) * 3600


@pytest.mark.parametrize(
    "text",
    [
        "fixes=25h",
        "fixes=0h",
        "fixes",
        "places=1h",
        "fixes.boat=1h",
        "counts.person=2h",
        "minutes=1h",
        "fixes=1m",
    ],
)
def test_impossible_periods_are_refused(text: str) -> None:
    """Unknown names and units, kinds where rows have none, and periods beyond the life of the keys."""
    with pytest.raises(ValueError, match=text):
        retention_periods(text)


# --- erasure ----------------------------------------------------------------------------------------
def test_a_device_is_erased_and_its_held_rows_are_reported(catalog: Catalog) -> None:
    """Its rows leave every answer and the store, except those under a hold, until that is released."""
    one, other = pseudonym(1), fixes([3, 4], T0, device=2)
    committed(catalog, "fixes", pa.concat_tables([fixes([1, 2], T0), other]), fixes([5], T0 + 9, device=2))
    place(catalog, a_hold("h1", T0 + 1, T0 + 1))
    request = EraseRequest([one])
    for _ in range(2):  # repeating it gives the same
        found = erase_rows(catalog, request, T0)
        assert (stored(catalog), held(catalog), found.held) == ([3, 4, 5], [2], 1)
    assert not any(bytes.fromhex(one).hex().encode() in data for data in _visible(catalog))
    place(catalog)
    expire(catalog, RetentionPeriods(), T0)
    assert (stored(catalog), held(catalog)) == ([3, 4, 5], [])


def _visible(catalog: Catalog) -> list[bytes]:
    kept = {each.segment.name for each in catalog.manifest().held}
    return [
        catalog.store.get(each.name)
        for each in catalog.store.list_()
        if each.name.endswith(".parquet") and each.name not in kept
    ]


def test_a_site_is_erased_from_all_data_sets(catalog: Catalog) -> None:
    """Rows of other sites stay, and segments of the site alone are deleted without being read."""
    (alone, _, _) = committed(
        catalog,
        "fixes",
        fixes([1], T0, site="north"),
        pa.concat_tables([fixes([2], T0, site="north"), fixes([3], T0)]),
        fixes([4], T0),
    )
    committed(catalog, "counts", counts(T0, 1, 1, 1))
    assert erase_rows(catalog, EraseRequest(site="north"), T0) == ErasedRows(2, 0)
    assert stored(catalog) == [3, 4]
    assert alone.name not in {each.name for each in catalog.store.list_()}
    assert erase_rows(catalog, EraseRequest(site="ul"), T0) == ErasedRows(3, 0)
    assert catalog.manifest().segments == ()


def test_an_erasure_that_is_crossed_by_a_merge_is_complete(catalog: Catalog) -> None:
    """The output of a merge that another process commits meanwhile is erased from, too."""
    group = committed(catalog, "fixes", fixes([1, 2], T0), fixes([3], T0 + 5, device=2))
    original = catalog.commit

    def crossed(change: Change) -> Manifest:
        catalog.commit = original  # type: ignore[method-assign]
        compaction.merge(catalog, group, T0)
        return catalog.commit(change)

    catalog.commit = crossed  # type: ignore[method-assign]
    assert erase_rows(catalog, EraseRequest([pseudonym(1)]), T0).rows == 2
    assert stored(catalog) == [3]


def test_a_damaged_segment_does_not_stop_an_erasure(catalog: Catalog) -> None:
    """It is set aside, and the rows of the others are erased."""
    segments = committed(catalog, "fixes", fixes([1], T0), fixes([2], T0 + 1))
    overwrite(catalog, segments[0].name, _flipped(catalog.store.get(segments[0].name)))
    assert erase_rows(catalog, EraseRequest([pseudonym(1)]), T0).rows == 1
    assert [each.segment.name for each in catalog.manifest().damaged] == [segments[0].name]


def test_the_report_reads_all_rows_with_holds_and_kinds(catalog: Catalog) -> None:
    """It judges each kind by its own limit, also rows that no manifest names, and held rows by none."""
    now_s = T0 + 20 * H
    committed(catalog, "fixes", fixes([1], T0), fixes([2], T0 + 60, kind=1))
    (kept,) = committed(catalog, "fixes", fixes([3], T0 - 50 * H))
    written(catalog, "fixes", fixes([4], T0 - 30 * H))
    hold = a_hold("h1", T0 - 51 * H, T0 - 49 * H)
    place(catalog, hold)
    assert replacing.apply(catalog, [replacing.drop(catalog, kept, [hold])], [hold], now_s)
    found = history_ages(catalog, retention_periods("fixes.vehicle=6h"), now_s)
    ages_ = {each.store: each for each in found if each.age_s is not None}
    assert {store: (round((each.age_s or 0) / H), each.kept) for store, each in ages_.items()} == {
        "history: fixes, person": (20, True),
        "history: fixes, vehicle": (20, False),
        "history: fixes to delete, person": (50, False),
        "history: under legal holds": (70, True),
    }
    assert ages_["history: under legal holds"].note.endswith("h1 by admin: a court's request")


# --- objects ----------------------------------------------------------------------------------------
def test_an_object_of_no_manifest_is_deleted_after_an_hour(catalog: Catalog) -> None:
    """It is first removed by a commit and deleted later, with what a killed writer was writing; the rest stays."""
    (named,) = committed(catalog, "fixes", fixes([1], T0))
    orphan = written(catalog, "fixes", fixes([2], T0))
    half = f"{orphan.name[:-12]}{'0' * 4}.parquet.17.new"
    catalog.store.put(half, b"PAR1")
    catalog.store.put(f"{orphan.name.rpartition('/')[0]}/._x.parquet", b"foreign")
    now_s = max(each.modified_s for each in catalog.store.list_())
    upkeep = Upkeep(catalog, RetentionPeriods({"fixes": 1e12}))
    upkeep.run(now_s + ORPHAN_AGE_S - 1)
    assert catalog.manifest().removed == ()
    upkeep.run(now_s + 2 * ORPHAN_AGE_S)
    assert {each.name for each in catalog.manifest().removed} == {orphan.name, half}
    upkeep.run(now_s + 2 * ORPHAN_AGE_S + DELETE_AFTER_S + 1)
    left = {each.name.rpartition("/")[2] for each in catalog.store.list_() if PAUSES not in each.name}
    assert left == {named.name.rpartition("/")[2], "._x.parquet", "manifest.json"}
    assert catalog.manifest().removed == ()


@pytest.mark.parametrize("later_s", [0.0, DELETE_AFTER_S + 1])
def test_a_commit_that_comes_too_late_is_refused(catalog: Catalog, later_s: float) -> None:
    """A segment that was taken for an orphan cannot be committed, before and after it is deleted."""
    segment = written(catalog, "fixes", fixes([1], T0))
    now_s = next(iter(catalog.store.list_())).modified_s + 2 * ORPHAN_AGE_S
    upkeep = Upkeep(catalog, RetentionPeriods())
    upkeep.run(now_s)
    if later_s:
        upkeep.run(now_s + later_s)
    with pytest.raises(ObjectNotFoundError):
        catalog.commit(lambda before: before.with_segments(segment))
    assert catalog.manifest().segments == ()


# --- damage -----------------------------------------------------------------------------------------
def _empty(_: bytes) -> bytes:
    return b""


def _truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flipped(data: bytes) -> bytes:
    return data[:40] + bytes([data[40] ^ 1]) + data[41:]


def _foreign(_: bytes) -> bytes:
    return parquet(pa.table({"site": ["ul"], "other": [1]}))


@pytest.mark.parametrize("damage", [_empty, _truncated, _flipped, _foreign])
def test_a_damaged_segment_is_set_aside(catalog: Catalog, damage: Callable[[bytes], bytes]) -> None:
    """Compaction names it, leaves it out, and merges the others; it expires like them."""
    segments = committed(catalog, "fixes", *(fixes([n], T0 + n) for n in range(4)))
    name = segments[2].name
    overwrite(catalog, name, damage(catalog.store.get(name)))
    upkeep = Upkeep(catalog, RetentionPeriods())
    upkeep.run(T0 + 2 * H)
    manifest = catalog.manifest()
    assert [each.segment for each in manifest.damaged] == [segments[2]]
    assert upkeep.stats.damaged == 1
    assert len(manifest.of("fixes")) == 1
    assert stored(catalog) == [0, 1, 3]
    upkeep.run(T0 + 25 * H)
    assert catalog.manifest().damaged == ()
    upkeep.run(T0 + 26 * H)
    assert [each.name for each in catalog.store.list_()] == ["manifest.json"]


# --- schema -----------------------------------------------------------------------------------------
def test_an_older_manifest_is_migrated_step_by_step() -> None:
    """A synthetic version 1 goes through both steps to version 3; version 4 is refused."""
    steps = {
        1: lambda values: {**values, "commits": values["count"]},
        2: lambda values: {"number": values["commits"], "stream": "x"},
    }
    assert decoded(b'{"count": 7}', 3, steps) == Manifest(schema=3, number=7, stream="x")
    with pytest.raises(NewerSchemaError):
        decoded(b'{"schema": 4, "segments": "of another form"}', 3, steps)


def test_the_version_is_always_written() -> None:
    """A manifest of this release is recognised as such by the next one."""
    assert msgspec.json.decode(encoded(Manifest()))["schema"] == SCHEMA


# --- all of it, interleaved -------------------------------------------------------------------------
class Interleaved(RuleBasedStateMachine):
    """Commits, compaction, expiry and holds, each crossed by others between plan and commit."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__()
        store.delete([each.name for each in store.list_()])
        self.catalog = Catalog(store)
        self.rng = random.Random(1)
        self.seq = 0
        self.now_s = T0 + 10 * H
        self.visible: dict[int, tuple[float, str]] = {}  # seq → received, site
        self.devices: dict[int, int] = {}  # seq → device
        self.expired: dict[int, tuple[float, str]] = {}  # that were visible when they expired
        self.holds: list[Hold] = []
        self.planned: list[list[Segment]] = []

    @rule(
        hour=st.integers(0, 3),
        site=st.sampled_from(SITES),
        rows=st.integers(1, 4),
        device=st.integers(1, 3),
    )
    def commit(self, hour: int, site: str, rows: int, device: int) -> None:
        """Another writer commits rows of some hour."""
        received_s = self.now_s // H * H - hour * H + self.rng.randrange(3000)
        seqs = list(range(self.seq, self.seq + rows))
        self.seq += rows
        committed(self.catalog, "fixes", fixes(seqs, received_s, site=site, device=device))
        self.devices |= dict.fromkeys(seqs, device)
        self.visible |= {seq: (received_s + i, site) for i, seq in enumerate(seqs)}

    @rule()
    def plan_compaction(self) -> None:
        """A process chooses what to merge."""
        self.planned += compaction.groups(self.catalog.manifest().segments, self.now_s + 2 * H)

    @rule()
    def compact_as_planned(self) -> None:
        """It merges, whatever has happened since."""
        for group in self.planned:
            compaction.merge(self.catalog, group, self.now_s)
        self.planned = []

    @rule(from_h=st.integers(-30, 0), length_h=st.integers(0, 8), site=st.sampled_from(["", *SITES]))
    def add_hold(self, from_h: int, length_h: int, site: str) -> None:
        """A hold is placed."""
        from_s = self.now_s + from_h * H
        self.holds.append(a_hold(f"h{self.rng.random()}", from_s, from_s + length_h * H, site))
        place(self.catalog, *self.holds)

    @rule()
    def release(self) -> None:
        """A hold is released."""
        if self.holds:
            self.holds.pop(self.rng.randrange(len(self.holds)))
            place(self.catalog, *self.holds)

    @rule(device=st.integers(1, 3))
    def erase(self, device: int) -> None:
        """A device is erased; what is under a hold stays for it."""
        theirs = {seq for seq in self.visible if self.devices[seq] == device}
        rows = {seq: self.visible.pop(seq) for seq in theirs}
        self.expired |= {seq: row for seq, row in rows.items() if self._is_held(row)}
        found = erase_rows(self.catalog, EraseRequest([pseudonym(device)]), self.now_s)
        held_ = [seq for seq in held(self.catalog) if self.devices[seq] == device]
        assert found.held == len(held_)
        assert found.rows == len(rows) - sum(map(self._is_held, rows.values()))

    @rule(hours=st.integers(1, 9))
    def expire(self, hours: int) -> None:
        """Time passes, and rows expire, except held ones."""
        self.now_s += hours * H
        expire(self.catalog, RetentionPeriods(), self.now_s)
        old = {seq for seq, (at_s, _) in self.visible.items() if at_s <= self.now_s - 25 * H}
        self.expired |= {seq: self.visible.pop(seq) for seq in old}
        left = set(stored(self.catalog))
        # those of segments that have expired before the last row could
        self.expired |= {
            seq: self.visible.pop(seq)
            for seq in set(self.visible) - left
            if self.visible[seq][0] <= self.now_s - 24 * H
        }
        self.expired = {seq: row for seq, row in self.expired.items() if self._is_held(row)}
        assert set(held(self.catalog)) == set(self.expired)

    def _is_held(self, row: tuple[float, str]) -> bool:
        return any(hold.from_s <= row[0] <= hold.to_s and hold.site in ("", row[1]) for hold in self.holds)

    @invariant()
    def exactly_the_rows(self) -> None:
        """Queries see every row that has not expired, once."""
        assert stored(self.catalog) == sorted(self.visible)


def test_steps_that_cross_each_other_keep_exactly_the_expected_rows(store: ObjectStore) -> None:
    """After any sequence of steps, queries see each row that is not expired or erased, once; holds the others."""
    examples = 25 if isinstance(store, FolderStore) else 4
    run_state_machine_as_test(
        lambda: Interleaved(store),  # type: ignore[arg-type]
        settings=settings(max_examples=examples, stateful_step_count=30),
    )
