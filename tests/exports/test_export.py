"""Exports of the stored history, as other programs read them."""

from __future__ import annotations

import csv
import io
import itertools
import json
import stat
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import geopandas
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exports.stored import START_S, FixRow, newest, store_fixes
from headcount.errors import ExportError
from headcount.exports import tracks
from headcount.exports.export import FORMATS, export, format_of, new_file
from headcount.exports.stored_fixes import FixSelection
from headcount.history.catalog import Catalog
from headcount.history.objects import FolderStore


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[FolderStore, list[FixRow]]:
    """Three hours of fixes."""
    store = FolderStore(tmp_path_factory.mktemp("history"))
    return store, store_fixes(store)


def exported(store: FolderStore, name: str, selection: FixSelection | None = None) -> bytes:
    """An export in a format."""
    chosen, sink = selection or FixSelection(), io.BytesIO()
    export(store, chosen.segments(newest(store)), chosen, sink, name, lambda *_: None)
    return sink.getvalue()


def seconds(text: str) -> float:
    """A time in ISO 8601 as Unix seconds."""
    return datetime.fromisoformat(text).timestamp()


def in_order(rows: list[FixRow]) -> list[FixRow]:
    """Rows in the order of their time and device."""
    return sorted(rows, key=lambda row: (row.t, row.device, row.lat))


def from_text(row: dict[str, Any]) -> FixRow:
    """A row of CSV or JSON."""
    acc = row.get("acc")
    times = {name: seconds(row[name]) for name in ("t", "received")}
    return FixRow(
        **row
        | times
        | {"lat": float(row["lat"]), "lon": float(row["lon"]), "acc": float(acc) if acc else None}
    )


def test_csv_and_json_hold_the_stored_values(stored: tuple[FolderStore, list[FixRow]]) -> None:
    """CSV, NDJSON and GeoJSON have all columns of all fixes, with every digit."""
    store, rows = stored
    table = list(csv.DictReader(io.StringIO(exported(store, "csv").decode())))
    assert in_order(list(map(from_text, table))) == in_order(rows)
    lines = [json.loads(line) for line in exported(store, "ndjson").splitlines()]
    assert in_order(list(map(from_text, lines))) == in_order(rows)
    features = json.loads(exported(store, "geojson"))["features"]
    flat = [
        each["properties"] | dict(zip(("lon", "lat"), each["geometry"]["coordinates"], strict=True))
        for each in features
    ]
    assert in_order(list(map(from_text, flat))) == in_order(rows)


@pytest.mark.parametrize("name", ["geojson", "geoparquet", "geoparquet2", "csv", "gpx", "mfjson", "parquet"])
def test_a_selection_without_fixes_is_a_valid_file(
    stored: tuple[FolderStore, list[FixRow]], name: str
) -> None:
    """A file of each format is valid without any fix."""
    data = exported(stored[0], name, FixSelection(devices=frozenset({"0" * 16})))
    if name.endswith("json"):
        assert json.loads(data)["features"] == []
    elif name == "gpx":
        assert data.rstrip().endswith(b"</gpx>")
    elif name == "csv":
        assert data == b"t,device,kind,lat,lon,acc,received,site,verdict\n"
    elif name == "parquet":
        assert pq.read_table(io.BytesIO(data)).num_rows == 0
    else:
        assert len(geopandas.read_parquet(io.BytesIO(data))) == 0


@pytest.mark.parametrize("name", ["geoparquet", "geoparquet2"])
def test_geoparquet_in_geopandas_and_duckdb(
    stored: tuple[FolderStore, list[FixRow]], name: str, tmp_path: Path
) -> None:
    """GeoPandas and DuckDB read the points, the reference system and every other value of both versions."""
    store, rows = stored
    path = tmp_path / "fixes.parquet"
    path.write_bytes(exported(store, name))
    frame = geopandas.read_parquet(path)
    assert frame.crs.to_string() == "OGC:CRS84"
    assert in_order(list(frame_rows(frame))) == in_order(rows)
    points = duckdb.read_parquet(str(path)).project("typeof(geometry), st_aswkb(geometry)").fetchall()
    assert all(kind.startswith("GEOMETRY") for kind, _ in points)
    assert shapely.from_wkb([bytes(wkb) for _, wkb in points]).tolist() == frame.geometry.tolist()


def frame_rows(frame: geopandas.GeoDataFrame) -> list[FixRow]:
    """The rows of a frame."""
    return [
        FixRow(
            each.t.timestamp(),
            each.device,
            each.kind,
            each.geometry.y,
            each.geometry.x,
            None if each.acc != each.acc else each.acc,  # NaN
            each.received.timestamp(),
            each.site,
            each.verdict,
        )
        for each in frame.itertuples()
    ]


def test_the_bounding_boxes_of_geoparquet(stored: tuple[FolderStore, list[FixRow]]) -> None:
    """The box of the file covers its points, and readers filter by the column `bbox`."""
    store, rows = stored
    data = exported(store, "geoparquet")
    column = json.loads(pq.read_metadata(io.BytesIO(data)).metadata[b"geo"])["columns"]["geometry"]
    assert column["bbox"] == [
        min(row.lon for row in rows),
        min(row.lat for row in rows),
        max(row.lon for row in rows),
        max(row.lat for row in rows),
    ]
    box = (-8.575, 52.672, -8.57, 52.675)
    some = geopandas.read_parquet(io.BytesIO(data), bbox=box)
    inside = [row for row in rows if box[0] <= row.lon <= box[2] and box[1] <= row.lat <= box[3]]
    assert len(some) == len(inside) > 0


def test_native_geometry_has_statistics(stored: tuple[FolderStore, list[FixRow]]) -> None:
    """A column of version 2.0 has Parquet's logical type GEOMETRY, and statistics of its points."""
    file = pq.ParquetFile(io.BytesIO(exported(stored[0], "geoparquet2")))
    index = file.schema_arrow.names.index("geometry")
    assert "Geometry" in str(file.schema.column(index).logical_type)
    assert file.metadata.row_group(0).column(index).geo_statistics.geospatial_types == [1]


def test_polars_reads_plain_parquet(stored: tuple[FolderStore, list[FixRow]]) -> None:
    """Polars reads the plain Parquet with all values."""
    store, rows = stored
    frame = pl.read_parquet(io.BytesIO(exported(store, "parquet")))
    found = [
        FixRow(**row | {name: row[name].timestamp() for name in ("t", "received")})
        for row in frame.to_dicts()
    ]
    assert in_order(found) == in_order(rows)


def test_gdal_reads_gpx(stored: tuple[FolderStore, list[FixRow]], tmp_path: Path) -> None:
    """GDAL reads a track for each device, with its points in the order of time."""
    store, rows = stored
    path = tmp_path / "tracks.gpx"
    path.write_bytes(exported(store, "gpx", FixSelection(site="ul")))
    expected = by_device(rows, "ul")
    lines = pyogrio.read_dataframe(path, layer="tracks")
    assert dict(zip(lines["name"], lines["type"], strict=True)) == {
        device: track[0].kind for device, track in expected.items()
    }
    points = pyogrio.read_dataframe(path, layer="track_points")
    found = defaultdict(list)
    for each in points.itertuples():
        found[lines["name"][each.track_fid]].append((each.geometry.y, each.geometry.x))
    assert dict(found) == {name: [(row.lat, row.lon) for row in track] for name, track in expected.items()}


def by_device(rows: list[FixRow], site: str) -> dict[str, list[FixRow]]:
    """The fixes of each device of a site, in the order of time, each time once."""
    found: defaultdict[str, dict[float, FixRow]] = defaultdict(dict)
    for row in in_order([row for row in rows if row.site == site]):
        found[row.device].setdefault(row.t, row)
    return {device: list(track.values()) for device, track in found.items()}


def test_mobility_db_reads_moving_features(stored: tuple[FolderStore, list[FixRow]]) -> None:
    """MEOS, the library of MobilityDB, reads a device's track of the JSON of moving features."""
    pymeos = pytest.importorskip("pymeos")
    store, rows = stored
    features = json.loads(exported(store, "mfjson", FixSelection(site="ul")))["features"]
    expected = by_device(rows, "ul")
    assert {each["id"] for each in features} == expected.keys()
    pymeos.pymeos_initialize()
    for each in features:
        text = json.dumps(each["temporalGeometry"]).replace('Z"', '+00"')  # MEOS ends the process at a Z
        track = pymeos.TGeomPoint.from_mfjson(text)
        assert [moment.timestamp() for moment in track.timestamps()] == [
            row.t for row in expected[each["id"]]
        ]
        assert [(point.y, point.x) for point in map(shapely.Point, track.values())] == [
            (row.lat, row.lon) for row in expected[each["id"]]
        ]


finite = st.floats(0, 1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    site=st.sampled_from([None, "ul", "other", "none"]),
    kind=st.sampled_from([None, "person", "vehicle"]),
    span=st.tuples(st.none() | finite, st.none() | finite),
    corners=st.none() | st.tuples(finite, finite, finite, finite),
    as_area=st.booleans(),
    devices=st.sets(st.integers(0, 39), max_size=3),
)
def test_selections(
    stored: tuple[FolderStore, list[FixRow]],
    site: str | None,
    kind: Any,
    span: tuple[float | None, float | None],
    corners: tuple[float, float, float, float] | None,
    as_area: bool,
    devices: set[int],
) -> None:
    """An export has exactly the fixes that a filter row by row finds."""
    store, rows = stored
    known = sorted({row.device for row in rows})
    some = frozenset(known[each] for each in devices)
    from_s, to_s = (None if share is None else START_S + share * 3 * 3600 for share in span)
    box = None
    if corners is not None:
        (west, east), (south, north) = sorted(corners[:2]), sorted(corners[2:])
        box = (-8.58 + west * 0.02, 52.67 + south * 0.01, -8.58 + east * 0.02, 52.67 + north * 0.01)
    area = shapely.box(*box) if box and as_area else None
    chosen = FixSelection(site, from_s, to_s, kind, some, None if as_area else box, area)
    found = [json.loads(line) for line in exported(store, "ndjson", chosen).splitlines()]
    expected = [
        row
        for row in rows
        if site in {None, row.site}
        and kind in {None, row.kind}
        and (not some or row.device in some)
        and (from_s is None or row.t >= round(from_s, 6))
        and (to_s is None or row.t <= round(to_s, 6))
        and (box is None or (box[0] <= row.lon <= box[2] and box[1] <= row.lat <= box[3]))
    ]
    assert in_order(list(map(from_text, found))) == in_order(expected)


def test_a_late_fix_that_was_delivered_twice_is_exported_once(tmp_path: Path) -> None:
    """Of rows with the same device, time and position, in one or in several segments, there is one in an export."""
    store = FolderStore(tmp_path)
    rows, catalog = store_fixes(store, hours=2), Catalog(store)
    for segment in newest(store).segments:
        table = pq.read_table(io.BytesIO(store.get(segment.name)))
        some = table.slice(0, 50).set_column(
            table.column_names.index("verdict"), "verdict", pa.array(["late"] * 50)
        )
        again = catalog.write("fixes", some, (segment.from_s, segment.to_s))
        catalog.commit(lambda before, again=again: before.with_segments(again))  # type: ignore[misc]
    found = [json.loads(line) for line in exported(store, "ndjson").splitlines()]
    keys = sorted((row["t"], row["device"], row["lat"]) for row in found)
    assert len(keys) == len(set(keys)) == len(rows)


def test_a_box_over_the_antimeridian() -> None:
    """A box whose west is greater than its east holds the longitudes outside of the two."""
    chosen = FixSelection(box=(179.0, -1.0, -179.0, 1.0))
    lon = np.array([178.0, 179.5, -179.5, -178.0, 0.0])
    batch = pa.record_batch({"t": pa.array([0] * 5, pa.timestamp("us", "UTC"))})
    assert chosen.rows(batch, np.zeros(5), lon).tolist() == [False, True, True, False, False]


def test_tracks_have_a_limit(
    stored: tuple[FolderStore, list[FixRow]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More fixes than fit into memory are refused for tracks, with a remedy."""
    monkeypatch.setattr(tracks, "MAX_ROWS", 500)
    with pytest.raises(ExportError, match=r"more than 500 fixes .* Select fewer devices"):
        exported(stored[0], "gpx")


def test_a_file_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    """A file has its name only after everything is written, is private, and replaces no other."""
    path = tmp_path / "fixes.csv"
    with pytest.raises(ZeroDivisionError), new_file(path) as file:
        file.write(b"half" * (1 // 0))
    assert list(tmp_path.iterdir()) == []
    with new_file(path) as file:
        file.write(b"all")
        assert not path.exists()
    assert path.read_bytes() == b"all"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ExportError, match="File exists"), new_file(path) as file:
        file.write(b"other")
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"all"]


def test_the_ending_chooses_the_format() -> None:
    """Each ending names a format; another one is refused with the known ones."""
    endings = [".csv", ".ndjson", ".geojson", ".gpx", ".mfjson", ".parquet"]
    found = [format_of(Path("a" + ending)) for ending in endings]
    assert found == ["csv", "ndjson", "geojson", "gpx", "mfjson", "geoparquet"]
    assert set(itertools.chain(found, ["parquet", "geoparquet2"])) == FORMATS.keys()
    with pytest.raises(ExportError, match=r"a\.xlsx does not end with \.csv"):
        format_of(Path("a.xlsx"))
