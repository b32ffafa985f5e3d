"""Counts by the minute equal a brute-force summary of the instants."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from derived_rows import T0_MS, Row, instants, summary, table_of
from headcount.history.minutes import minutes, steps
from headcount.history.segments import parquet


def rows_of(table: pa.Table) -> list[Row]:
    """Rows with times in seconds."""
    return [row | {"at": round(row["at"].timestamp())} for row in table.to_pylist()]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 80))
def test_minutes_equal_brute_force(seed: int, n: int) -> None:
    """Minimum, maximum, last and sum of the complete instants of each minute, whatever parts they are stored in."""
    rows = instants(random.Random(seed), n)
    assert rows_of(minutes(table_of(rows))) == summary(rows, 60)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 80), st.sampled_from([60, 120, 180, 420, 3600, 86_400]))
def test_any_step_of_minutes_equals_brute_force(seed: int, n: int, step_s: int) -> None:
    """A step that is made of minutes is the same as one that is made of instants."""
    rows = instants(random.Random(seed), n)
    assert rows_of(steps(minutes(table_of(rows)), step_s)) == summary(rows, step_s)


def test_a_zone_year_takes_less_than_six_megabytes() -> None:
    """A day of 10 zones in which people and cars come and go, as it is stored, times 365."""
    rng, zones, instants_of_day = np.random.default_rng(1), 10, 8640
    at_ms = T0_MS // 86_400_000 * 86_400_000 + 10_000 * np.arange(1, instants_of_day + 1)
    columns: dict[str, Any] = {"at": pa.array(np.tile(at_ms, zones), pa.timestamp("ms", "UTC"))}
    columns |= {"site": ["ul"] * (zones * instants_of_day)}
    columns |= {"zone": np.repeat([f"zone-{zone}" for zone in range(zones)], instants_of_day)}
    for kind, peaks in (("person", [20, 100, 400, 1500]), ("vehicle", [2, 20, 200])):
        counts = [_visitors(rng, int(rng.choice(peaks)), instants_of_day) for _ in range(zones)]
        columns[f"{kind}_count"] = pa.array(np.concatenate(counts), pa.int32())
    for name in ("partitions", "partitions_total"):
        columns[name] = pa.array(np.full(zones * instants_of_day, 16), pa.int16())
    size = len(parquet(minutes(pa.table(columns))))
    print(f"{size / zones * 365 / 1e6:.2f} MB a zone-year")
    assert size / zones * 365 < 6e6


def _visitors(rng: np.random.Generator, peak: int, n: int) -> list[int]:
    """The number of visitors every 10 s: they arrive around noon, and stay for half an hour on average."""
    arrivals = rng.poisson(np.maximum(peak * np.exp(-((np.arange(n) / 360 - 13) ** 2) / 12), 0.2) / 180)
    present, found = 0, []
    for arrived in arrivals.tolist():
        present += arrived - int(rng.binomial(present, 1 / 180))
        found.append(present)
    return found
