"""Spark reads the stored history and the exports with geometry as they are; `make spark` unpacks it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import shapely

from exports.stored import FixRow, newest, store_fixes
from headcount.exports.export import export, new_file
from headcount.exports.stored_fixes import FixSelection
from headcount.history.objects import FolderStore

SCRIPT = Path(__file__).with_name("spark_reads.py")
SPARK = Path(os.environ.get("HEADCOUNT_SPARK", Path.home() / ".cache/headcount/spark-4.3.0"))


@pytest.fixture(scope="module")
def rows() -> list[FixRow]:
    """The stored fixes."""
    return []


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, rows: list[FixRow]) -> Any:
    """The rows that a Spark session reads of the stored files and of both versions of GeoParquet."""
    if not (SPARK / "ready").exists():
        pytest.skip(f"no Spark in {SPARK}; `make spark` unpacks it")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    folder = tmp_path_factory.mktemp("spark")
    store, chosen = FolderStore(folder / "history"), FixSelection()
    rows += store_fixes(store)
    segments = chosen.segments(newest(store))
    for name in ("geoparquet", "geoparquet2"):
        with new_file(folder / f"{name}.parquet") as sink:
            export(store, segments, chosen, sink, name, lambda *_: None)
    stored = [f"{store.url}/{segment.name}" for segment in segments]
    exports = [str(folder / f"{name}.parquet") for name in ("geoparquet", "geoparquet2")]
    variables = os.environ | {"SPARK_HOME": str(SPARK / "deps"), "PYTHONPATH": str(SPARK)}
    run = subprocess.run(
        [sys.executable, SCRIPT, *stored, "--", *exports],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.slow
def test_spark_reads_stored_files(found: Any, rows: list[FixRow]) -> None:
    """Every value of the stored files is read, times and decimals with every digit."""
    expected = [
        [str(round(r.t * 1e6)), r.device, r.kind, f"{r.lat:.7f}", f"{r.lon:.7f}", r.site, r.verdict]
        for r in rows
    ]
    assert sorted(found["stored"]) == sorted(expected)


@pytest.mark.slow
def test_spark_reads_geoparquet(found: Any, rows: list[FixRow]) -> None:
    """Version 1.1 is WKB with a box to filter by; version 2.0 has Spark's own type of geometry."""
    points = {
        version: sorted(
            (device, *shapely.get_coordinates(shapely.from_wkb(wkb))[0]) for device, wkb in each["points"]
        )
        for version, each in found.items()
        if version != "stored"
    }
    assert found["1.1"]["type"] == "binary"
    assert points["1.1"] == sorted((r.device, r.lon, r.lat) for r in rows if -8.575 <= r.lon <= -8.57)
    assert found["2.0"]["type"] == "geometry(4326)"
    assert points["2.0"] == sorted((r.device, r.lon, r.lat) for r in rows)
