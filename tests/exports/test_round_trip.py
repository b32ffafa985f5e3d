"""Exports read as recordings."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import pytest

from exports.stored import FixRow, newest, store_fixes
from headcount.errors import TraceError
from headcount.exports.export import ENDINGS, export, new_file
from headcount.exports.stored_fixes import FixSelection
from headcount.history.objects import FolderStore
from headcount.messages.topics import KINDS
from headcount.simulate.traces import Trace, read_trace


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[FolderStore, list[FixRow]]:
    """An hour of fixes."""
    store = FolderStore(tmp_path_factory.mktemp("history"))
    return store, store_fixes(store, hours=1)


def written(store: FolderStore, name: str, path: Path) -> Path:
    """The fixes of one site as a file."""
    chosen = FixSelection(site="ul")
    with new_file(path) as sink:
        export(store, chosen.segments(newest(store)), chosen, sink, name, lambda *_: None)
    return path


def rows_of(trace: Trace) -> list[tuple[object, ...]]:
    """The rows of a recording in the order of their time."""
    columns = (trace.t_s, trace.device, trace.kind, trace.lat_deg, trace.lon_deg, trace.acc_m)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return sorted((t, trace.devices[device], KINDS[kind], *more) for t, device, kind, *more in rows)


@pytest.mark.parametrize("name", [*sorted(set(ENDINGS.values())), "parquet", "geoparquet2"])
def test_each_format_is_read_with_every_value(
    name: str, stored: tuple[FolderStore, list[FixRow]], tmp_path: Path
) -> None:
    """A file of each format has the exported rows, under the same digest."""
    store, rows = stored
    ending = next((each for each, other in ENDINGS.items() if other == name), ".parquet")
    trace = read_trace(written(store, name, tmp_path / f"fixes{ending}"))
    assert not trace.problem.any()
    expected = {
        (r.device, r.kind, r.t): (r.t, r.device, r.kind, r.lat, r.lon, r.acc or 0.0)
        for r in rows
        if r.site == "ul"
    }
    assert rows_of(trace) == sorted(expected.values())
    plain = read_trace(written(store, "csv", tmp_path / "plain.csv"))
    assert trace.digest("ul") == plain.digest("ul") != trace.digest("other")


def test_another_reference_system_is_refused(
    stored: tuple[FolderStore, list[FixRow]], tmp_path: Path
) -> None:
    """GeoParquet in metres is refused with the remedy, and in EPSG:4326 it is read."""
    path = written(stored[0], "geoparquet", tmp_path / "fixes.parquet")
    frame = geopandas.read_parquet(path)
    frame.to_crs("EPSG:4326").to_parquet(tmp_path / "degrees.parquet")
    assert rows_of(read_trace(tmp_path / "degrees.parquet")) == rows_of(read_trace(path))
    frame.to_crs("EPSG:2157").to_parquet(tmp_path / "metres.parquet")
    with pytest.raises(TraceError, match="column geometry: is not in WGS 84: transform it to EPSG:4326"):
        read_trace(tmp_path / "metres.parquet")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.geojson", "{", "file: is not valid JSON"),
        ("a.geojson", '{"type": "Point"}', "file: is not a GeoJSON FeatureCollection"),
        ("a.mfjson", "[1]", "file: is not a GeoJSON FeatureCollection"),
        ("a.gpx", "<gpx><trk>", "file: is not valid XML"),
        ("a.gpx", '<!DOCTYPE a [<!ENTITY b "c">]><gpx>&b;</gpx>', "file: has a document type"),
    ],
)
def test_files_of_another_form(name: str, content: str, problem: str, tmp_path: Path) -> None:
    """A file of another form is refused with its name and the problem."""
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(TraceError, match=problem):
        read_trace(path, "person")


def test_a_feature_of_another_form_is_a_row_with_a_problem(tmp_path: Path) -> None:
    """Lines, null geometries and numbers among the features are reported by their row; the others are read."""
    point = {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [-8.57, 52.67]},
        "properties": {"t": "2026-11-24T13:00:00Z", "device": "a", "kind": "person"},
    }
    line = point | {"geometry": {"type": "LineString", "coordinates": [[0, 0], [1, 1]]}}
    features = [point, line, point | {"geometry": None}, 7, point | {"properties": None}]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    trace = read_trace(path)
    assert (trace.problem == 0).tolist() == [True, False, False, False, False]
    assert [str(error).partition(": ")[2] for error in trace.errors()][:3] == [
        f"row {row}: it is neither a point nor a moving point" for row in (2, 3, 4)
    ]
