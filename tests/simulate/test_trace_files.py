"""Recordings as spreadsheets and other programs write them: read, or an error that shows what was found."""

from __future__ import annotations

import gzip
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from case_files import case
from headcount.cli.main import main
from headcount.errors import TraceError
from headcount.simulate.clocks import trace_warnings, wrong_clocks
from headcount.simulate.pacing import schedule
from headcount.simulate.replay import Replay
from headcount.simulate.traces import Trace, read_trace
from headcount.sites.files import load_site

T = 1_795_800_000.0
HEADER = "t,device,kind,lat,lon,acc"
ROWS = [f"{T + 10 * i:.0f},a,person,47.004,14.006,8" for i in range(4)]
PLAIN = "\n".join([HEADER, *ROWS]) + "\n"


def write(folder: Path, content: str | bytes, name: str = "x.csv") -> Path:
    """A file with this content."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def same_rows(trace: Trace) -> bool:
    """Whether the four rows were read."""
    return (
        trace.t_s.tolist() == [T, T + 10, T + 20, T + 30]
        and trace.devices == ("a",)
        and set(trace.lat_deg) == {47.004}
        and set(trace.lon_deg) == {14.006}
        and set(trace.acc_m) == {8.0}
    )


def replay(path: Path, *options: str) -> Result:
    """Run `headcount replay` on the small college."""
    arguments = ["replay", str(path), "--site", str(case("base.geojson")), *options]
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-32"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", ";").replace(".", ",").encode(),
        PLAIN.replace(",", "\t").encode(),
        PLAIN.replace(",", "|").encode(),
        b"sep=;\r\n" + PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode("utf-16"),
        PLAIN.replace(HEADER, " T , Device,KIND,Lat,LON,Acc").encode(),
        PLAIN.replace(HEADER, '"t","device","kind","lat","lon","acc"').encode(),
        PLAIN.replace(",", ", ").replace("person", "Person").encode(),
        PLAIN.replace(",a,", ",a ,", 1).encode(),
        gzip.compress(PLAIN.encode()),
        gzip.compress(PLAIN.encode("utf-16")),
        PLAIN.replace("1795800000,", "2026-11-27T17:20:00Z,").encode(),
        PLAIN.replace("1795800000,", "2026-11-27 17:20:00,").encode(),
        PLAIN.replace("1795800000,", "2026-11-27T18:20:00.000+01:00,").encode(),
    ],
    ids=range(23),
)
def test_csv_of_other_programs_is_read(content: bytes, tmp_path: Path) -> None:
    """Encodings, separators, decimal commas, header case, line ends and ISO times don't matter."""
    trace = read_trace(write(tmp_path, content))
    assert same_rows(trace)
    assert not trace.problem.any()


@pytest.mark.parametrize(
    "line",
    [
        '{"t":%s,"device":"a","kind":"person","lat":47.004,"lon":14.006,"acc":8}',
        '{"T":%s,"Device":"a","kind":"person","Lat":"47.004","lon":14.006,"acc":"8","vel":[]}',
        '\ufeff{"t":"%s","device":"a","kind":"person","lat":47.004,"lon":14.006,"acc":8,"alt":NaN}\0',
    ],
)
def test_ndjson_of_other_programs_is_read(line: str, tmp_path: Path) -> None:
    """Texts for numbers, the case of keys and bytes around a line don't matter."""
    text = "\n".join(line % int(T + 10 * i) for i in range(4))
    for content in (text.encode(), text.encode("utf-16")):
        assert same_rows(read_trace(write(tmp_path, content, "x.ndjson")))


def test_parquet_of_other_programs_is_read(tmp_path: Path) -> None:
    """The case of columns doesn't matter, and times may be timestamps or texts."""
    for times in (
        pa.array([int((T + 10 * i) * 1000) for i in range(4)], pa.timestamp("ms")),
        pa.array([f"2026-11-27T17:20:{10 * i:02}Z" for i in range(4)]),
    ):
        columns = {
            "T": times,
            "Device": ["a"] * 4,
            "kind": ["person"] * 4,
            "LAT": ["47.004"] * 4,
            "lon": [14.006] * 4,
        }
        pyarrow.parquet.write_table(pa.table(columns | {"acc": [8.0] * 4}), tmp_path / "x.parquet")
        assert same_rows(read_trace(tmp_path / "x.parquet"))


def header(text: str) -> str:
    """The rows below another header."""
    return PLAIN.replace(HEADER, text)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (case("ms.csv").read_bytes(), "row 1: t is 1795800000000, which is in milliseconds: divide by 1000"),
        (PLAIN.replace("17958000", "17958000000000"), "row 1: t is 1795800000000000, which is in microseconds"),
        (PLAIN.replace("17958000", "17958000000000000"), "which is in nanoseconds: divide by 1000000000"),
        (PLAIN.replace("17958000", "-17958000"), "row 1: t is -1795800000, before 1970"),
        (PLAIN.replace("17958000", "27.11.2026 17:20:"), "row 1: t is '27.11.2026 17:20:00', not a time (Unix seconds"),
        (header("timestamp,device,kind,lat,lon,acc"), "column t: is missing; the header is timestamp, device, kind, lat, lon, acc: rename timestamp to t"),
        (header("t,device,kind,Latitude,lon,acc"), "column lat: is missing; the header is t, device, kind, latitude, lon, acc: rename latitude to lat"),
        ("\n".join(ROWS), "column t: is missing; the header is 1795800000, a, person, 47.004, 14.006, 8"),
        (header("t,device,kind,lat,lon,T"), "column t: is there twice"),
        (header("t device kind lat lon acc"), "column t: is missing; the header is t device kind lat lon acc"),
        (b"PK\x03\x04rest", "is a workbook or a zip archive: save or unpack it as CSV"),
        (b"\xff\xfet\0,\0\x00\xd8x\0", "is not valid UTF-16"),
        (gzip.compress(PLAIN.encode())[:-20], "is not a valid csv file"),
        (b"", "is not a valid csv file"),
        (PLAIN.replace(",person", ",dog"), "row 1: the kind is neither person nor vehicle: 'dog'"),
        (PLAIN.replace(",a,", ",the phone,"), "row 1: the device is not 1 to 64 characters from A-Z a-z 0-9 _ -: 'the phone'"),
    ],
    ids=range(16),
)  # fmt: skip
def test_files_that_are_not_read_show_what_was_found(
    content: bytes | str, problem: str, tmp_path: Path
) -> None:
    """The error has the row or column, the value, and its unit or encoding; no traceback."""
    path = write(tmp_path, content)
    with pytest.raises(TraceError) as raised:
        read_trace(path)
    assert problem in str(raised.value)
    result = replay(path)
    assert result.exit_code == 2
    assert problem in result.stderr
    assert result.stdout == ""


def test_one_row_in_milliseconds(tmp_path: Path) -> None:
    """A row in another unit is broken, and the others are read."""
    trace = read_trace(write(tmp_path, PLAIN + ROWS[0].replace("1795800000", "1795800000000") + "\n"))
    assert trace.problem.tolist() == [0, 0, 0, 0, 6]
    (error,) = trace.errors()
    assert str(error).endswith("row 5: t is 1795800000000, which is in milliseconds: divide by 1000")


@given(st.binary(max_size=60), st.sampled_from(["x.csv", "x.ndjson", "x.csv.gz", "x.parquet"]))
def test_any_bytes_are_a_recording_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str
) -> None:
    """Nothing but a TraceError is raised."""
    folder = tmp_path_factory.mktemp("any")
    for content in (data, HEADER.encode() + b"\n" + data):
        with suppress(TraceError):
            read_trace(write(folder, content, name))


@pytest.mark.parametrize("name", ["utf16", "semi", "upper", "iso"])
def test_replay_of_the_cases(name: str) -> None:
    """The files that users sent are counted."""
    result = replay(case(f"{name}.csv"))
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[0] == {"at": "2026-11-27T17:20:00.000Z", "zone": "site", "person": 1, "vehicle": 0}
    assert len(lines) == 9
    assert ("in UTF-16, and was read as such" in result.stderr) == (name == "utf16")


def test_replay_with_all_numbers() -> None:
    """With `--all`, each count has its bounds and the stale devices."""
    result = replay(case("iso.csv"), "--all")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[1] == {
        "at": "2026-11-27T17:20:00.000Z",
        "zone": "lib",
        "person": {"count": 1, "low": 1, "high": 1, "stale": 0},
        "vehicle": {"count": 0, "low": 0, "high": 0, "stale": 0},
    }


def test_a_recording_without_rows(tmp_path: Path) -> None:
    """It is no error, but a warning."""
    result = replay(write(tmp_path, HEADER + "\n"))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "the file has no rows" in result.stderr


def test_replay_skips_gaps_with_a_warning() -> None:
    """One wrong clock costs some lines, not 90 million: times without any device are skipped."""
    result = replay(case("epoch_first.csv"))
    assert result.exit_code == 0
    assert "row 1 of b is from 1970-01-01T00:00:00.000Z, far from the rows around it" in result.stderr
    at = [json.loads(line)["at"] for line in result.stdout.splitlines()]
    assert len(at) < 100
    assert (at[0][:4], at[-1]) == ("1970", "2026-11-27T17:22:00.000Z")


def recording(folder: Path, times: list[float], **more: Any) -> Path:
    """A recording with these times."""
    lines = [f"{t},d{i % 3},person,47.004,14.006,8" for i, t in enumerate(times)]
    return write(folder, "\n".join([HEADER, *lines]), **more)


@pytest.mark.parametrize("wrong", [0.0, 315_532_800.0, T - 1024 * 7 * 86_400, T + 3e8, 2.5 * T])
@pytest.mark.parametrize("place", [0, 1, 7, 19, 20])
def test_a_wrong_clock_anywhere(wrong: float, place: int, tmp_path: Path) -> None:
    """Wherever the row stands, and whether its clock is late or early, the tools end soon."""
    times = [T + 10 * i for i in range(20)]
    times.insert(place, wrong)
    trace = read_trace(recording(tmp_path, times))
    (warning,) = trace_warnings(trace)
    assert f"row {place + 1} of d{place % 3} is from" in warning
    site = load_site(case("base.geojson"))
    assert sum(1 for _ in Replay(trace, site, 60.0).run()) < 100
    plan = schedule(trace)
    assert plan.due_s[-1] <= 190.0
    right = np.delete(plan.t_s, place)
    assert right.tolist() == [10.0 * i for i in range(20)]


def test_a_device_that_starts_without_a_clock(tmp_path: Path) -> None:
    """Many rows with a wrong clock are named by the gap, and both tools skip it."""
    trace = read_trace(recording(tmp_path, [100.0 + i for i in range(20)] + [T + i for i in range(20)]))
    assert trace_warnings(trace) == [
        "there is no row between 1970-01-01T00:01:59.000Z and 2026-11-27T17:20:00.000Z: is a clock wrong?"
    ]
    assert sum(1 for _ in Replay(trace, load_site(case("base.geojson")), 60.0).run()) < 100
    assert schedule(trace).due_s[-1] < 60.0


def test_pauses_are_no_wrong_clocks(tmp_path: Path) -> None:
    """Nights, weekends and sparse recordings have no warning; a pause of days is skipped by both tools."""
    days = [T + 86_400 * day + 10 * i for day in (0, 1, 4) for i in range(10)]
    trace = read_trace(recording(tmp_path, days))
    assert trace_warnings(trace) == []
    ticks = [tick.at_s for tick in Replay(trace, load_site(case("base.geojson")), 60.0).run()]
    gaps = np.diff(ticks)
    assert gaps.min() == 60.0
    assert (gaps > 86_400).sum() == 1
    plan = schedule(trace)
    assert 86_400 < plan.due_s[-1] < 2 * 86_400 + 100
    assert not wrong_clocks(np.array([T + 86_400.0 * 3 * i for i in range(30)])).any()
    assert not wrong_clocks(np.array([T, 0.0])).any()
