"""Recordings in the stored history: what the counting rules make of them, once."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headcount.counting.site import Site
from headcount.devices.pseudonyms import Pseudonyms
from headcount.errors import ImportedError
from headcount.history.catalog import Catalog
from headcount.history.derive import derive
from headcount.history.objects import FolderStore
from headcount.history.reader import HistoryView, SegmentReader
from headcount.messages.fixes import VERDICTS
from headcount.messages.times import DAY_S
from headcount.settings.retention_periods import RetentionPeriods
from headcount.simulate.backfill import BackfillResult, backfill
from headcount.simulate.crowd import Crowd
from headcount.simulate.past_day import recording, store_past_day
from headcount.simulate.replay import Replay
from headcount.simulate.traces import Trace
from headcount.sites.files import bundled_site, load_site

pytestmark = pytest.mark.slow
#: 2026-11-24T14:20:00Z
NOW_S = 1_795_530_000.0
KEYS = {int(NOW_S // DAY_S) - back: bytes([back]) * 32 for back in range(3)}
#: Counts of both kinds by instant and zone.
Counts = dict[tuple[float, str], tuple[int, int]]
FLOW_COLUMNS = ("at", "kind", "table", "zone", "other")


@pytest.fixture(scope="module")
def site() -> Site:
    """The bundled campus."""
    return load_site(bundled_site("ul"))


@pytest.fixture(scope="module")
def trace(site: Site) -> Trace:
    """A day of a small crowd, whose last devices are on the other side of the world."""
    found = recording(Crowd(site, 150, 40, 3), NOW_S - DAY_S, NOW_S)
    lat = found.lat_deg.copy()
    lat[-20:] = -40.0
    return dataclasses.replace(found, lat_deg=lat)


@pytest.fixture(scope="module")
def expected(trace: Trace, site: Site) -> Counts:
    """The counts of the day by a replay."""
    return replayed(trace, site)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """An empty history."""
    return Catalog(FolderStore(tmp_path))


def stored(
    catalog: Catalog, trace: Trace, site: Site, now_s: float = NOW_S, **more: object
) -> BackfillResult:
    """Store a recording."""
    arguments = {
        "periods": RetentionPeriods(),
        "now_s": now_s,
        "until_s": now_s,
        "progress": lambda *_: None,
    } | more
    return backfill(catalog, trace, [(0.0, site)], Pseudonyms(KEYS).on(site.id), **arguments)  # type: ignore[arg-type]


def rows(catalog: Catalog, dataset: str, *columns: str) -> pa.Table:
    """All rows of a data set."""
    return HistoryView(SegmentReader(catalog.store), catalog.manifest()).scan(dataset, columns=columns)


def counts_of(catalog: Catalog, dataset: str = "counts", suffix: str = "count") -> Counts:
    """Stored counts of both kinds by instant and zone."""
    table = rows(catalog, dataset, "at", "zone", f"person_{suffix}", f"vehicle_{suffix}")
    at = (table["at"].cast(pa.int64()).to_numpy() / 1e3).tolist()
    rest = (table[name].to_pylist() for name in table.column_names[1:])
    return {(at_s, zone): (people, cars) for at_s, zone, people, cars in zip(at, *rest, strict=True)}


def replayed(trace: Trace, site: Site) -> Counts:
    """The counts of a replay."""
    return {
        (tick.at_s, zone.id): (numbers[0][0], numbers[1][0])
        for tick in Replay(trace, site, 60.0).run()
        for zone, numbers in zip(tick.site.zones, tick.counts.tolist(), strict=True)
    }


def test_counts_and_fixes_are_those_of_the_rules(
    catalog: Catalog, trace: Trace, site: Site, expected: Counts
) -> None:
    """Counts are those of `headcount replay`; fixes on site are stored under the pseudonyms of their days."""
    result = stored(catalog, trace, site)
    assert counts_of(catalog) == expected
    assert max(people for people, _ in expected.values()) > 50
    fixes = rows(catalog, "fixes", "device", "t", "lat", "verdict", "partition")
    refused = sum(result.verdicts[VERDICTS.index(name)] for name in ("outside", "implausible"))
    assert len(fixes) == result.fixes == len(trace) - result.newer - refused
    assert pc.min(fixes["lat"].cast(pa.float64())).as_py() > 52
    pseudonyms = Pseudonyms(KEYS).on(site.id)
    known = {
        pseudonyms.of(f"{kind}.{name}".encode(), day)
        for day in KEYS
        for name, kind in zip(trace.devices, ["person"] * 150 + ["vehicle"] * 40, strict=True)
    }
    assert set(fixes["device"].cast(pa.string()).unique().to_pylist()) <= known
    assert set(fixes["partition"].to_pylist()) == {-1}


def test_the_same_rows_are_stored_once(catalog: Catalog, trace: Trace, site: Site) -> None:
    """A recording that comes again, in another order, is refused; no segment is added or left behind."""
    stored(catalog, trace, site)
    before = catalog.manifest()
    order = np.argsort(trace.lat_deg)
    columns = ("device", "kind", "t_s", "lat_deg", "lon_deg", "acc_m", "vel_mps", "problem")
    again = dataclasses.replace(trace, **{name: getattr(trace, name)[order] for name in columns})
    with pytest.raises(ImportedError, match="the same fixes were imported on 2026-11-24 14:20:00 UTC"):
        stored(catalog, again, site)
    assert catalog.manifest() == before
    names = {each.name for each in catalog.store.list_()}
    assert names == {each.name for each in before.segments} | {"manifest.json"}


def test_an_import_that_is_killed_leaves_no_rows(
    catalog: Catalog, trace: Trace, site: Site, expected: Counts
) -> None:
    """Before the commit there are no rows; afterwards, all of them."""

    def killed(_: float, share: float) -> None:
        if share > 0.9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored(catalog, trace, site, progress=killed)
    assert catalog.manifest().segments == ()
    stored(catalog, trace, site)
    assert counts_of(catalog) == expected


def test_counts_of_an_hour_stay(catalog: Catalog, trace: Trace, site: Site) -> None:
    """Where the site has counts, a second recording adds fixes, and neither counts nor events."""
    stored(catalog, trace, site)
    counts, events = counts_of(catalog), len(rows(catalog, "events", "id"))
    other = recording(Crowd(site, 20, 5, 4), NOW_S - DAY_S, NOW_S)
    result = stored(catalog, other, site)
    assert (result.hours, result.counted_hours) == (0, 25)
    assert counts_of(catalog) == counts
    assert len(rows(catalog, "events", "id")) == events
    assert result.fixes > 0


def test_old_days_have_minutes_and_flows(
    catalog: Catalog, trace: Trace, site: Site, expected: Counts
) -> None:
    """Rows that would have expired are not stored; minutes and flows are those of a history of that day."""
    stored(catalog, trace, site)
    derive(catalog, NOW_S + 7200)
    minutes, flows = (
        counts_of(catalog, "minutes", "last"),
        rows(catalog, "flows", *FLOW_COLUMNS, "events"),
    )
    old = Catalog(FolderStore(Path(catalog.store.url) / "old"))
    result = stored(old, trace, site, now_s=NOW_S + 40 * DAY_S)
    assert (result.fixes, result.expired) == (
        0,
        result.verdicts[VERDICTS.index("accepted")] + result.verdicts[VERDICTS.index("inaccurate")],
    )
    assert {each.dataset for each in old.manifest().segments} == {"minutes", "flows"}
    found = counts_of(old, "minutes", "last")
    assert found == minutes == expected
    key = [(name, "ascending") for name in FLOW_COLUMNS]
    new = rows(old, "flows", *FLOW_COLUMNS, "events")
    assert new.sort_by(key).equals(flows.sort_by(key))
    assert len(new) > 100


def test_rows_that_are_too_new_are_left_out(catalog: Catalog, trace: Trace, site: Site) -> None:
    """Rows received at the limit or later are counted as such, and have no effect."""
    until_s = NOW_S - 3600
    result = stored(catalog, trace, site, until_s=until_s)
    assert result.newer == int((trace.t_s >= until_s).sum()) > 0
    assert counts_of(catalog) == replayed(trace.part(trace.t_s < until_s), site)


def test_without_a_key_pseudonyms_are_random(trace: Trace, site: Site, tmp_path: Path) -> None:
    """Without keys, a device has one pseudonym a day, which another import does not repeat."""
    found = []
    for name in ("a", "b"):
        own = Catalog(FolderStore(tmp_path / name))
        plain = Pseudonyms({}).on(site.id)
        backfill(
            own,
            trace,
            [(0.0, site)],
            plain,
            periods=RetentionPeriods(),
            now_s=NOW_S,
            until_s=NOW_S,
            progress=lambda *_: None,
        )
        found.append(set(rows(own, "fixes", "device")["device"].cast(pa.string()).to_pylist()))
    assert len(found[0]) == len(found[1]) > 150
    assert not found[0] & found[1]


def test_the_day_before_a_demonstration(catalog: Catalog, site: Site) -> None:
    """The day ends now with the crowd of `headcount simulate`, each hour is counted, and nights are quiet."""
    stop = threading.Event()
    crowd = {"people": 200, "vehicles": 50, "seed": 1}
    fixes = store_past_day(
        catalog.store, site, Pseudonyms(KEYS), NOW_S, periods=RetentionPeriods(), stop=stop, **crowd
    )
    assert fixes == len(rows(catalog, "fixes", "t")) > 10_000
    found = {at_s: people for (at_s, zone), (people, _) in counts_of(catalog).items() if zone == "site"}
    assert {at_s // 3600 for at_s in found} == {NOW_S // 3600 - back for back in range(25)}
    assert 24 * 60 - 2 <= len(found) <= 24 * 60
    by_clock = {round(34_200 - (NOW_S - at_s)) % DAY_S // 3600: people for at_s, people in found.items()}
    assert by_clock[3] < 20
    assert by_clock[11] > 60
    live = Crowd(site, **crowd)
    people_live = int(live.on_site()[:200].sum())
    assert abs(found[max(found)] - people_live) < 20


def test_a_stopped_demonstration_has_no_part_of_a_day(catalog: Catalog, site: Site) -> None:
    """When the demonstration ends, so does the simulation of its past."""
    stop = threading.Event()
    stop.set()
    crowd = {"people": 200, "vehicles": 50, "seed": 1}
    assert (
        store_past_day(
            catalog.store, site, Pseudonyms(KEYS), NOW_S, periods=RetentionPeriods(), stop=stop, **crowd
        )
        == 0
    )
    assert catalog.manifest().segments == ()
