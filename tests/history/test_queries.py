"""Answers from the segments, against the same question put to plain Python lists."""

from __future__ import annotations

import math
import random
import shutil
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from headcount.errors import QueryError
from headcount.history import count_queries, queries
from headcount.history.queries import StoredFix
from headcount.history.query_areas import area_of, centre_of
from history_batches import T0, Row, batch, damage_pages, random_rows, reading, segment_files, values, write
from stored_history import stored
from waiting import wait_until

SITE, OTHER = "ul", "north"


def fixes(data: Path, **options: Any) -> list[StoredFix]:
    """The answer of a folder's history."""
    return queries.fixes(reading(data), site=SITE, **options)


def counts_at(data: Path, at_s: float) -> Any:
    """The answer of a folder's history."""
    return count_queries.counts_at(reading(data), at_s, site=SITE)


def zones_history(data: Path, *arguments: Any) -> Any:
    """The answer of a folder's history."""
    return count_queries.zones_history(reading(data), *arguments, site=SITE)


#: Asked while two hours are written beside each of them.
QUESTIONS = 40
SEED = random.SystemRandom().randrange(2**32)


@pytest.fixture(scope="module")
def seed() -> int:
    """The seed of the module's history; shown where a test fails."""
    print(f"history of seed {SEED}")
    return SEED


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory, seed: int) -> tuple[Path, list[Row]]:
    """Three hours in several flushes, beside those of another site with the same devices."""
    data = tmp_path_factory.mktemp("data")
    rng = random.Random(seed)
    rows, others = (random_rows(rng, 1200, start=T0, span_s=3 * 3600) for _ in range(2))
    for start in range(0, 1200, 300):
        write(
            data,
            batch(rows=rows[start : start + 300]),
            batch(rows=others[start : start + 300], site=OTHER),
        )
    return data, rows


def plain(found: list[StoredFix]) -> list[tuple[object, ...]]:
    """An answer without the order of rows of the same time."""
    return sorted((f.device, f.kind, f.t, f.lat, f.lon, f.acc, f.verdict) for f in found)


def expected(rows: list[Row], keep: Callable[[Row], bool]) -> list[tuple[object, ...]]:
    """The same from the rows."""
    return sorted((r.device, r.kind, r.t, r.lat, r.lon, r.acc, r.verdict) for r in rows if keep(r))


def great_circle_m(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Distance by the dot product of unit vectors: another formula than the one under test."""

    def unit(lat: float, lon: float) -> tuple[float, float, float]:
        y, x = math.radians(lat), math.radians(lon)
        return math.cos(y) * math.cos(x), math.cos(y) * math.sin(x), math.sin(y)

    u, v = unit(*a), unit(*b)
    return 6_371_008.8 * 2 * math.asin(min(1.0, math.dist(u, v) / 2))


lats, lons = st.floats(52.665, 52.695), st.floats(-8.585, -8.545)


@given(st.tuples(lats, lats), st.tuples(lons, lons))
def test_a_box_is_exact(
    history: tuple[Path, list[Row]], ys: tuple[float, float], xs: tuple[float, float]
) -> None:
    """A bounding box gives exactly the rows in it, edges included, for any digits of its corners."""
    data, rows = history
    (south, north), (west, east) = sorted(ys), sorted(xs)
    found = fixes(data, area=area_of(bbox=(west, south, east, north)), limit=5000)
    assert plain(found) == expected(rows, lambda r: south <= r.lat <= north and west <= r.lon <= east)


def test_a_box_of_one_point_holds_it(history: tuple[Path, list[Row]]) -> None:
    """The edge of a box counts as inside."""
    data, rows = history
    row = rows[17]
    assert row.device in {
        f.device for f in fixes(data, area=area_of(bbox=(row.lon, row.lat, row.lon, row.lat)))
    }


@given(lats, lons, st.floats(0.1, 3000))
def test_near_is_exact(history: tuple[Path, list[Row]], lat: float, lon: float, radius_m: float) -> None:
    """A circle gives the rows within the distance, save for the last tenth of a millimetre."""
    data, rows = history
    found = plain(fixes(data, area=area_of(near=(lat, lon, radius_m)), limit=5000))
    surely = expected(rows, lambda r: great_circle_m((lat, lon), (r.lat, r.lon)) <= radius_m - 1e-4)
    perhaps = expected(rows, lambda r: great_circle_m((lat, lon), (r.lat, r.lon)) <= radius_m + 1e-4)
    assert set(surely) <= set(found) <= set(perhaps)


@given(st.lists(st.tuples(lons, lats), min_size=3, max_size=8), st.booleans())
def test_within_is_exact(
    history: tuple[Path, list[Row]], points: list[tuple[float, float]], hull: bool
) -> None:
    """A polygon, convex or with dents, gives the rows that it covers; GeoJSON and shapely agree."""
    data, rows = history
    middle = (sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points))
    star = sorted(points, key=lambda p: math.atan2(p[1] - middle[1], p[0] - middle[0]))
    shape = shapely.MultiPoint(points).convex_hull if hull else shapely.Polygon(star)
    if shape.geom_type != "Polygon" or not shape.is_valid or shape.area == 0:
        return
    found = plain(fixes(data, area=area_of(within=shapely.geometry.mapping(shape)), limit=5000))
    assert found == expected(rows, lambda r: bool(shapely.covers(shape, shapely.Point(r.lon, r.lat))))
    assert found == plain(fixes(data, area=area_of(within=shape), limit=5000))


@pytest.mark.parametrize(
    ("lat", "lon", "radius_m"),
    [(89.9999, 10.0, 50.0), (-90.0, 0.0, 20.0), (0.0, 179.9999, 50.0), (0.0, 0.0, 2e7)],
)
def test_near_holds_at_poles_and_the_180th_meridian(
    tmp_path: Path, lat: float, lon: float, radius_m: float
) -> None:
    """A circle over a pole or over the 180th meridian finds what lies on its other side."""
    rng = random.Random(9)
    base = random_rows(rng, 400)
    rows = [
        replace(
            row,
            lat=round(max(-90.0, min(90.0, lat + rng.uniform(-0.001, 0.001))), 7),
            lon=round(
                (lon + rng.choice([rng.uniform(-0.001, 0.001), rng.uniform(-180, 180)]) + 180) % 360 - 180, 7
            ),
        )
        for row in base
    ]
    write(tmp_path, batch(rows=rows))
    found = plain(fixes(tmp_path, area=area_of(near=(lat, lon, radius_m)), limit=5000))
    assert found == expected(rows, lambda r: great_circle_m((lat, lon), (r.lat, r.lon)) <= radius_m)
    assert found


@given(
    st.floats(-600, 4 * 3600),
    st.floats(0, 7200),
    st.sampled_from([("person",), ("vehicle",), ("person", "vehicle")]),
)
def test_spans_and_kinds_are_exact(
    history: tuple[Path, list[Row]], start: float, length: float, kinds: tuple[Any, ...]
) -> None:
    """From and to are event times, both inclusive, and rows that came in late are found."""
    data, rows = history
    start, end = round(T0 + start, 3), round(T0 + start + length, 3)
    found = fixes(data, from_s=start, to_s=end, kinds=kinds, limit=5000)
    assert plain(found) == expected(rows, lambda r: start <= r.t <= end and r.kind in kinds)


def test_devices_are_exact(history: tuple[Path, list[Row]]) -> None:
    """Only rows of the named pseudonyms come, of all of them; of none, none."""
    data, rows = history
    names = sorted({row.device for row in rows})[:3]
    found = fixes(data, devices=[*names, "0" * 16, "' OR 1"], limit=5000)
    assert plain(found) == expected(rows, lambda r: r.device in names)
    assert fixes(data, devices=[], limit=5000) == []


def test_a_fix_that_was_delivered_again_is_answered_once(tmp_path: Path) -> None:
    """Of rows with the same device, time and position the first comes; other positions of that time come too."""
    once = Row(1, T0, T0 + 1, "a" * 16, "person", 52.67, -8.58, 3.0, "accepted")
    again = replace(once, seq=2, received=T0 + 90, verdict="out_of_order")
    moved = replace(once, seq=3, received=T0 + 95, lat=52.68, verdict="out_of_order")
    next_day = replace(again, seq=4, received=T0 + 99, device="b" * 16)
    write(tmp_path, batch(rows=[once, again]))
    write(tmp_path, batch(rows=[moved, next_day]))
    all_ = [once, moved, next_day]
    assert plain(fixes(tmp_path)) == expected(all_, lambda _: True)
    # the pseudonyms of one device on two days
    assert plain(fixes(tmp_path, devices=["a" * 16, "b" * 16])) == expected([once, moved], lambda _: True)


def test_many_copies_hide_no_older_fix(tmp_path: Path) -> None:
    """A fix that is stored hundreds of times takes one of the rows wanted."""
    old = Row(1, T0, T0 + 1, "a" * 16, "person", 52.67, -8.58, 3.0, "accepted")
    new = replace(old, seq=2, t=T0 + 5, received=T0 + 5)
    copies = [replace(new, seq=3 + i, received=T0 + 9 + i, verdict="out_of_order") for i in range(300)]
    write(tmp_path, batch(rows=[old, new, *copies]))
    assert plain(fixes(tmp_path, limit=2)) == expected([old, new], lambda _: True)
    assert plain(fixes(tmp_path, limit=1)) == expected([new], lambda _: True)


def test_the_limit_keeps_the_newest(history: tuple[Path, list[Row]]) -> None:
    """More rows than the limit: the newest ones, newest first."""
    data, rows = history
    found = [f.t for f in fixes(data, area=area_of(near=(52.68, -8.565, 5000)), limit=10)]
    assert found == sorted((r.t for r in rows), reverse=True)[:10]


@pytest.mark.parametrize(
    ("area", "parameter"),
    [
        ({"bbox": (0, 0, 1, 1), "near": (0, 0, 1)}, "bbox, within, near"),
        ({"bbox": (0, 2, 1, 1)}, "bbox"),
        ({"bbox": (math.nan, 0, 1, 1)}, "bbox"),
        ({"near": (91, 0, 1)}, "near"),
        ({"near": (0, 0, 0)}, "near"),
        ({"near": (0, 0, math.nan)}, "near"),
        ({"within": {"type": "Point", "coordinates": [0, 0]}}, "within"),
        ({"within": {"type": "Polygon", "coordinates": []}}, "within"),
        (
            {"within": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 1], [1, 0], [0, 0]]]}},
            "within",
        ),
        ({"within": {"type": "Polygon", "coordinates": [[[0, 0], [200, 0], [0, 1], [0, 0]]]}}, "within"),
        ({"within": "POLYGON ((0 0, 1 0, 1 1, 0 0))"}, "within"),
        ({"within": {"type": "Nonsense"}}, "within"),
        ({"within": object()}, "within"),
        ({"within": shapely.Point(0, 0).buffer(1, quad_segs=3000)}, "within"),
    ],
)
def test_an_impossible_area_is_named(area: dict[str, Any], parameter: str) -> None:
    """An impossible area raises an error with its parameter."""
    with pytest.raises(QueryError) as caught:
        area_of(**area)
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 10**9}, "limit"),
        ({"from_s": math.nan}, "from"),
        ({"to_s": math.inf}, "to"),
        ({"to_s": 1e300}, "to"),
    ],
)
def test_an_impossible_parameter_is_named(tmp_path: Path, options: dict[str, Any], parameter: str) -> None:
    """An impossible query raises an error with its parameter, even for an empty history."""
    with pytest.raises(QueryError) as caught:
        fixes(tmp_path, **options)
    assert caught.value.parameter == parameter


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory, seed: int) -> tuple[Path, dict[float, int]]:
    """Three hours of counts every 10 s with gaps: at -> first number; some instants are incomplete.

    Another site with the same zones has counts at these instants and between them.
    """
    data = tmp_path_factory.mktemp("data")
    rng = random.Random(seed)
    firsts = {T0 + 10 * i: rng.randrange(1000) for i in range(1080) if rng.random() < 0.9}
    whole = {at: first for at, first in firsts.items() if rng.random() < 0.9}
    instants = sorted(firsts)
    for start in range(0, len(instants), 250):
        part = instants[start : start + 250]
        reports = [(at, values(2, firsts[at])) for at in part]
        others = [(at, values(2, 0)) for at in part if at in whole]
        write(
            data,
            batch(0, counts=reports, partitions=2),
            batch(1, counts=others, partitions=2),
            batch(0, counts=[(at + 5 * (i % 2), values(2, 9000)) for i, at in enumerate(part)], site=OTHER),
        )
        write(data, now_s=T0 + 1e6)  # what is still missing is given up
    return data, whole


@given(st.floats(-100, 11_000), st.floats(0, 11_000), st.sampled_from([10.0, 60.0, 45.5, 3600.0]))
def test_buckets_hold_what_was_stored(
    counted: tuple[Path, dict[float, int]], start: float, length: float, step_s: float
) -> None:
    """Each bucket has the last, least, largest and mean count of its whole instants."""
    data, whole = counted
    start, end = round(T0 + start, 3), round(T0 + start + length, 3)
    buckets: dict[int, list[int]] = defaultdict(list)
    for at in sorted(whole):
        if start <= at <= end:
            # The sum of values(2, first) and values(2, 0) of zone `library`: 8 + 8 + first.
            buckets[-(-round(at * 1000) // round(step_s * 1000))].append(16 + whole[at])
    found = zones_history(data, ["library"], start, end, step_s)["library"]
    assert [round(b.at / step_s) for b in found] == sorted(buckets)
    for bucket in found:
        people = buckets[round(bucket.at / step_s)]
        assert (bucket.person.count, bucket.person.min, bucket.person.max) == (
            people[-1],
            min(people),
            max(people),
        )
        assert bucket.person.mean == pytest.approx(sum(people) / len(people))
        assert (bucket.vehicle.count, bucket.vehicle.max) == (people[-1] + 8, max(people) + 8)


@given(st.floats(-100, 40 * 3600))
def test_counts_at_are_the_newest_whole_ones(counted: tuple[Path, dict[float, int]], offset: float) -> None:
    """`counts_at` finds the newest whole instant at or before, not older than a day."""
    data, whole = counted
    at = T0 + offset
    before = [t for t in whole if at - 86_400 <= t <= at]
    found = counts_at(data, at)
    if not before:
        assert found is None
        return
    assert found is not None
    assert found[0] == max(before)
    assert [z.zone for z in found[1]] == ["site", "library"]
    assert found[1][0].person.count == whole[found[0]]
    assert found[1][1].vehicle.stale == whole[found[0]] + 15 + 15


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ((T0, T0 + 60, 0.0), "step"),
        ((T0, T0 + 60, math.nan), "step"),
        ((T0, T0 + 86_400, 1.0), "step"),
        ((T0, T0 - 1, 60.0), "to"),
        ((math.nan, T0, 60.0), "from"),
        ((T0, math.inf, 60.0), "to"),
    ],
)
def test_an_impossible_span_is_named(
    tmp_path: Path, arguments: tuple[float, float, float], parameter: str
) -> None:
    """A span or step without sense gives the parameter."""
    with pytest.raises(QueryError) as caught:
        zones_history(tmp_path, ["site"], *arguments)
    assert caught.value.parameter == parameter


def test_counts_on_the_grid_are_those_of_the_site(counted: tuple[Path, dict[float, int]]) -> None:
    """All instants that are multiples of the step come, with the numbers of the site that was asked for."""
    data, whole = counted
    found = count_queries.counts_on_grid(reading(data), T0, T0 + 10_800, 60.0, site=SITE)
    assert {at: zones["site"][0] for at, zones in found.items()} == {
        at: first for at, first in whole.items() if at % 60 == 0
    }


def test_cells_are_those_of_the_site(tmp_path: Path) -> None:
    """Devices of another site in the same cell are not in its number."""
    here = [Row(1 + i, T0, T0 + 1, f"{i:016x}", "person", 52.67, -8.58, 3.0, "accepted") for i in range(5)]
    there = [replace(row, seq=row.seq + 10, device=f"{row.seq:016x}") for row in here[:3]]
    write(tmp_path, batch(rows=here), batch(rows=there, site=OTHER))
    cells = partial(queries.cells, reading(tmp_path), from_s=T0, to_s=T0 + 300)
    for site, devices in ((SITE, [5]), (OTHER, [3]), ("elsewhere", [])):
        assert [cell.devices for cell in cells(site=site, k=1)] == devices
    assert cells(site=OTHER, k=4) == []


def test_an_empty_history_answers_with_nothing(tmp_path: Path) -> None:
    """A missing folder and an unknown zone are no errors."""
    assert fixes(tmp_path) == []
    assert zones_history(tmp_path, ["site"], T0, T0 + 60, 10) == {"site": []}
    assert counts_at(tmp_path, T0) is None
    write(tmp_path, batch(counts=[(T0, values(2, 0))]))
    assert zones_history(tmp_path, ["' OR 1=1 --"], T0, T0 + 60, 10) == {"' OR 1=1 --": []}


def test_an_hour_that_vanishes_during_a_query_is_left_out(tmp_path: Path) -> None:
    """Retention deletes an hour after the manifest was read: the query answers with the other hours."""
    write(tmp_path, batch(rows=random_rows(random.Random(1), 100, start=T0 + 3600 - 30)))
    gone, _ = (path.parent for path in segment_files(tmp_path, "fixes"))
    view = reading(tmp_path)
    shutil.rmtree(gone)
    assert 0 < len(queries.fixes(view, site=SITE)) < 100


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "not Parquet": lambda path: path.write_bytes(b"PAR1 not at all"),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "damaged pages": damage_pages,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_segment_does_not_fail_other_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """The rows of all other segments are in the answer, and the damaged one is named once in the log."""
    rows = random_rows(random.Random(1), 510)
    write(tmp_path, batch(rows=rows[:10]))
    whole = fixes(tmp_path)
    write(tmp_path, batch(rows=rows[10:]))
    damaged = segment_files(tmp_path, "fixes")[-1]
    DAMAGE[how](damaged)
    assert fixes(tmp_path) == whole
    assert fixes(tmp_path) == whole
    assert [record.getMessage().startswith(f"{damaged} cannot be read") for record in caplog.records] == [
        True
    ]


def test_a_restored_segment_is_read_again(tmp_path: Path) -> None:
    """A damaged segment that is replaced by a sound one is in the next answer."""
    write(tmp_path, batch(rows=random_rows(random.Random(1), 200)))
    whole, (segment,) = fixes(tmp_path), segment_files(tmp_path, "fixes")
    backup = segment.read_bytes()
    damage_pages(segment)
    assert fixes(tmp_path) == []
    segment.write_bytes(backup)
    assert fixes(tmp_path) == whole


def test_foreign_files_are_ignored(tmp_path: Path) -> None:
    """Files that a copy or a restored backup leaves among the segments change no answer."""
    write(tmp_path, batch(rows=random_rows(random.Random(1), 10)))
    whole, (segment,) = fixes(tmp_path), segment_files(tmp_path, "fixes")
    for name in ("._000000000001.parquet", "000000000001 (copy).parquet", "export.parquet", ".DS_Store"):
        (segment.parent / name).write_bytes(segment.read_bytes())
    (segment.parents[1] / "hour=2026-11-24T13.bak").mkdir()
    assert fixes(tmp_path) == whole


class Writer:
    """Writes hours of `ROWS` fixes each and drops all but the two newest, as many hours as it is allowed to.

    The accuracy of a fix is the number of its hour.
    """

    ROWS = 50

    def __init__(self, data: Path) -> None:
        """Write below a data folder."""
        self.hours = 0
        self.allowed = threading.Semaphore(0)
        self._data = data

    def write(self, hours: int) -> None:
        """Write that many hours."""
        for hour in range(hours):
            self.allowed.acquire()
            rows = random_rows(random.Random(hour), self.ROWS, start=T0 + 3600 * hour)
            write(
                self._data, batch(rows=[replace(r, seq=r.seq + 1000 * hour, acc=float(hour)) for r in rows])
            )
            self.hours = hour + 1
            for old in sorted((self._data / "history" / "fixes").iterdir())[:-2]:
                shutil.rmtree(old)


def test_an_answer_holds_whole_hours_while_hours_come_and_go(tmp_path: Path) -> None:
    """Queries succeed while hours are written and dropped, and find an hour's rows all or not at all."""
    writer = Writer(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(writer.write, 2 * QUESTIONS)
        for number in range(QUESTIONS):
            before = 2 * number
            wait_until(lambda n=before: writer.hours == n or writing.done())  # type: ignore[misc]
            writer.allowed.release(2)
            found = Counter(
                int(fix.acc) for fix in fixes(tmp_path, area=area_of(near=(52.68, -8.565, 10_000)))
            )
            assert set(found.values()) <= {writer.ROWS}
            assert found.keys() <= set(range(before - 2, writer.hours + 1))
    writing.result()
    assert len(fixes(tmp_path)) == 2 * writer.ROWS


@given(st.integers(1, 400), st.booleans())
def test_pages_hold_each_fix_once(history: tuple[Path, list[Row]], size: int, is_disjoint: bool) -> None:
    """The pages of an answer, one after the other, hold the rows of the answer in one piece."""
    data, _ = history
    area = area_of(near=(52.68, -8.565, 600))
    area = area.outside() if is_disjoint else area
    pages, after = list[StoredFix](), None
    while page := fixes(data, area=area, limit=size, after=after):
        pages += page
        after = queries.key(page[-1])
    assert pages == fixes(data, area=area, limit=5000)


@given(lats, lons, st.integers(1, 40), st.sampled_from([50.0, 800.0, 2e7]))
def test_the_nearest_devices_are_found(
    history: tuple[Path, list[Row]], lat: float, lon: float, k: int, radius_m: float
) -> None:
    """The k nearest devices come with their nearest fix, nearest first."""
    data, rows = history
    centre = centre_of((lat, lon, radius_m))
    found = queries.nearest(reading(data), site=SITE, centre=centre, k=k)
    nearest: dict[tuple[str, str], float] = {}
    for row in rows:
        distance_m = great_circle_m((lat, lon), (row.lat, row.lon))
        if distance_m <= radius_m:
            device = (row.kind, row.device)
            nearest[device] = min(distance_m, nearest.get(device, math.inf))
    assert [m for _, m in found] == pytest.approx(sorted(nearest.values())[:k], abs=1e-3)
    for fix, distance_m in found:
        assert nearest[fix.kind, fix.device] == pytest.approx(distance_m, abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_rows_are_answered_once_wherever_they_are(tmp_path: Path, seed: int) -> None:
    """Rows in segments, not yet in one, or in both, of two sites: boxes over the 180th meridian are exact."""
    rng = random.Random(seed)
    rows = [
        replace(row, lon=round((row.lon + 8.565 + 180 + 180) % 360 - 180, 7))
        for row in random_rows(rng, 150, span_s=2 * 3600)
    ]
    view = stored(tmp_path, rows, rng, others=random_rows(rng, 50))
    box = (179.995, 52.672, -179.995, 52.686)
    found = queries.fixes(view, site=SITE, area=area_of(bbox=box), limit=5000)
    assert plain(found) == expected(
        rows, lambda r: (r.lon >= 179.995 or r.lon <= -179.995) and 52.672 <= r.lat <= 52.686
    )
    assert {fix.lon < 0 for fix in found} == {True, False}
