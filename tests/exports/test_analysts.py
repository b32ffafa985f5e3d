"""DuckDB, Polars and GeoPandas read the stored files as they are."""

from __future__ import annotations

from typing import Any

import duckdb
import geopandas
import pandas as pd
import polars as pl
import pytest

from exports.stored import newest, store_fixes
from headcount.history.objects import FolderStore

#: Microseconds since 1970, device, kind, latitude, longitude, accuracy (0 = unknown), site.
Value = tuple[int, str, str, float, float, float, str]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[Value]]:
    """Stored files, and the values that are in them."""
    store = FolderStore(tmp_path_factory.mktemp("history"))
    rows = store_fixes(store)
    files = [f"{store.url}/{segment.name}" for segment in newest(store).of("fixes")]
    return files, sorted(
        (round(r.t * 1e6), r.device, r.kind, r.lat, r.lon, r.acc or 0.0, r.site) for r in rows
    )


def test_duckdb(stored: tuple[list[str], list[Value]]) -> None:
    """DuckDB reads every value."""
    files, values = stored
    columns = "epoch_us(t), device, kind, lat::double, lon::double, acc, site"
    assert sorted(duckdb.read_parquet(files).project(columns).fetchall()) == values


def test_polars(stored: tuple[list[str], list[Value]]) -> None:
    """Polars reads every value."""
    files, values = stored
    frame = pl.read_parquet(files).select(
        pl.col("t").dt.epoch("us"), "device", "kind", pl.col("lat", "lon").cast(pl.Float64), "acc", "site"
    )
    assert sorted(frame.rows()) == values


def test_geopandas(stored: tuple[list[str], list[Value]]) -> None:
    """GeoPandas makes points of what pandas reads."""
    files, values = stored
    table = pd.concat([pd.read_parquet(file) for file in files])
    points = geopandas.points_from_xy(table["lon"].astype(float), table["lat"].astype(float), crs="OGC:CRS84")
    frame = geopandas.GeoDataFrame(table, geometry=points)
    columns: list[Any] = [frame["t"].astype("int64"), frame["device"], frame["kind"]]
    columns += [frame.geometry.y, frame.geometry.x, frame["acc"], frame["site"]]
    assert sorted(zip(*(column.tolist() for column in columns), strict=True)) == values
