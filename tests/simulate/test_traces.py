"""Trace files: all formats give the same columns, and broken rows keep their places."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from headcount.errors import TraceError
from headcount.simulate.traces import PROBLEMS, Trace, read_trace

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "traces"

ROWS = [
    (1000.5, "a-1", "person", 52.67, -8.57, 5.0),
    (999.0, "b_2", "vehicle", 52.68, -8.58, 0.0),
    (1001.0, "a-1", "person", 0.0, 0.0, 12.5),
]


def write_csv(path: Path, lines: list[str]) -> Path:
    """Write lines to a file."""
    path.write_text("\n".join(lines) + "\n")
    return path


def columns_of(trace: Trace) -> list[tuple[float, str, int, float, float, float]]:
    """The rows of a trace as tuples (t, device, kind index, lat, lon, acc)."""
    names = [trace.devices[code] for code in trace.device]
    return list(
        zip(
            trace.t_s.tolist(),
            names,
            trace.kind.tolist(),
            trace.lat_deg.tolist(),
            trace.lon_deg.tolist(),
            trace.acc_m.tolist(),
            strict=True,
        )
    )


def write_all(folder: Path) -> list[Path]:
    """Write ROWS in every supported format."""
    names = ["t", "device", "kind", "lat", "lon", "acc"]
    table = pa.table(
        {name: list(column) for name, column in zip(names, zip(*ROWS, strict=True), strict=True)}
    )
    pyarrow.parquet.write_table(table, folder / "x.parquet")
    pyarrow.csv.write_csv(table, folder / "x.csv")
    (folder / "x.csv.gz").write_bytes(gzip.compress((folder / "x.csv").read_bytes()))
    lines = "\n".join(
        f'{{"device":"{d}","t":{t},"kind":"{k}","lat":{lat},"lon":{lon},"acc":{acc},"more":[1]}}'
        for t, d, k, lat, lon, acc in ROWS
    )
    (folder / "x.ndjson").write_text(lines)
    (folder / "x.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return sorted(folder.iterdir())


def test_every_format_gives_the_same_columns(tmp_path: Path) -> None:
    """CSV, NDJSON and Parquet, compressed or not, give equal columns in the order of the file."""
    expected = [(t, d, ["person", "vehicle"].index(k), lat, lon, acc) for t, d, k, lat, lon, acc in ROWS]
    for path in write_all(tmp_path):
        trace = read_trace(path)
        assert columns_of(trace) == expected, path
        assert trace.received_s is None
        assert not trace.problem.any()


def test_broken_rows_keep_their_places_in_csv(tmp_path: Path) -> None:
    """Each broken row keeps its place with t NaN and its problem; valid rows are not affected."""
    path = write_csv(
        tmp_path / "x.csv",
        [
            "t,device,kind,lat,lon,acc",
            "1,a,person,1,2,",
            "2,b",
            "3,c d,person,1,2,",
            "4,e,dog,3,4,",
            "xx,e,vehicle,3,4,",
            ",e,vehicle,3,4,",
            "5,e,vehicle,nan,4,",
            "6,e,vehicle,3,4,far",
            "7,e,vehicle,3,4,1,2",
            "1e3,e,vehicle,3,4, 7 ",
        ],
    )
    trace = read_trace(path)
    assert trace.problem.tolist() == [0, 5, 3, 4, 1, 1, 1, 0, 5, 0]
    assert np.isnan(trace.t_s[[1, 2, 3, 4, 5, 6, 8]]).all()
    assert trace.acc_m[7] == 0.0
    assert (trace.t_s[0], trace.t_s[-1], trace.acc_m[-1]) == (1.0, 1000.0, 7.0)
    assert [(error.where, error.problem) for error in trace.errors()] == [
        ("row 2", "it has 2 fields, the header has 6"),
        ("row 3", f"{PROBLEMS[3]}: 'c d'"),
        ("row 4", "the kind is neither person nor vehicle: 'dog'"),
        ("row 5", "t is 'xx', not a time (Unix seconds or ISO 8601)"),
        ("row 6", "t is empty"),
        ("row 7", "lat is 'nan', not a number"),
        ("row 9", "it has 7 fields, the header has 6"),
    ]


def test_broken_lines_keep_their_places_in_ndjson(tmp_path: Path) -> None:
    """Lines that are not JSON objects or have wrong types are problems of their own only."""
    good = '{"t":1,"device":"a","kind":"person","lat":1,"lon":2}'
    path = tmp_path / "x.ndjson"
    path.write_bytes(
        b"\n".join(
            [
                good.encode(),
                b"{not json",
                b'{"t":"soon","device":"a","kind":"person","lat":1,"lon":2}',
                b"\xff\xfe",
                b"[" * 100_000,
                b'{"t":1,"device":"a","kind":"person","lon":2}',
                good.encode(),
            ]
        )
    )
    trace = read_trace(path)
    assert trace.problem.tolist() == [0, 5, 1, 5, 5, 1, 0]
    assert [error.problem for error in trace.errors()] == [
        "it is not JSON: Expecting property name enclosed in double quotes at byte 1",
        "t is 'soon', not a time (Unix seconds or ISO 8601)",
        "it is UTF-16: send UTF-8",
        "it is nested too deeply",
        "lat is empty",
    ]


def test_invalid_utf_8_breaks_only_its_row(tmp_path: Path) -> None:
    """Invalid UTF-8 in a CSV file is a problem of its row only."""
    path = tmp_path / "x.csv"
    path.write_bytes(b"t,device,kind,lat,lon\n\xff,a,person,1,2\n1,\xfe,person,1,2\n1,a,person,1,2\n")
    assert read_trace(path).problem.tolist() == [1, 3, 0]


def test_received_and_default_kind(tmp_path: Path) -> None:
    """`received` is read if present, and --kind replaces a missing kind."""
    path = write_csv(tmp_path / "x.csv", ["device,lon,lat,t,received", "a,2,1,5,7.25", "a,2,1,6,"])
    trace = read_trace(path, kind="vehicle")
    assert trace.received_s is not None
    assert trace.received_s[0] == 7.25
    assert np.isnan(trace.received_s[1])
    assert trace.kind.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("x.csv", "t,device,kind,lat\n1,a,person,2\n", "column lon"),
        ("x.csv", "t,device,lat,lon\n1,a,2,3\n", "column kind"),
        ("x.csv", "", "file"),
        ("x.ndjson", '{"t":1,"device":"a","kind":"person","lat":1}\n', "column lon"),
        ("x.parquet", "no parquet", "file"),
        ("x.csv.gz", "no gzip", "file"),
        ("x.txt", "", "name"),
    ],
)
def test_an_invalid_file_is_an_error(tmp_path: Path, name: str, content: str, where: str) -> None:
    """A missing column, another format or an unknown ending is a TraceError with the place."""
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    assert caught.value.where == where


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """A missing file is a TraceError."""
    for name in ("x.csv", "x.ndjson", "x.parquet"):
        with pytest.raises(TraceError):
            read_trace(tmp_path / name)


def test_a_table_without_rows_is_a_trace(tmp_path: Path) -> None:
    """A header without rows, or an empty NDJSON file, is a trace without fixes."""
    assert len(read_trace(write_csv(tmp_path / "x.csv", ["t,device,kind,lat,lon"]))) == 0
    (tmp_path / "x.ndjson").write_text("")
    assert len(read_trace(tmp_path / "x.ndjson")) == 0


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared traces are not here")
@pytest.mark.parametrize(
    ("name", "rows", "devices"),
    [
        ("capmetro_2015-03-08.csv.gz", 12_354, 140),
        ("capmetro_2017-03-21.csv.gz", 45_386, 329),
        ("csusb_sumo.csv.gz", 270_702, 800),
        ("liverpool_bus14.csv", 1_533, 8),
    ],
)
def test_real_traces_are_read_whole(name: str, rows: int, devices: int) -> None:
    """All rows of the real recordings are read, and none is broken."""
    trace = read_trace(SHARED / name)
    assert (len(trace), len(trace.devices), int(trace.problem.sum())) == (rows, devices, 0)
