"""An API with features: counts now and over time, and fixes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

import history_batches
from api_fixture import Api, open_api

COLLECTIONS = ("ul.zones", "ul.counts", "ul.history", "ul.fixes")


def stored(data: Path, now_s: float) -> None:
    """Counts of the last ten minutes, and fixes, two of them of the same instant."""
    minute_s = now_s // 60 * 60
    counts = [
        (at_s, np.full((4, 2, 4), n % 7, "<i4").tobytes())
        for n, at_s in enumerate(np.arange(minute_s - 600, minute_s, 10.0).tolist())
    ]
    ages_s = (5.0, 50.0, 50.0, 500.0, 5000.0)
    rows = [
        history_batches.Row(
            n + 1,
            now_s - age_s,
            now_s - age_s,
            f"{n:016x}",
            "person",
            52.672 + n / 1e4,
            -8.572,
            5.0,
            "accepted",
        )
        for n, age_s in enumerate(ages_s)
    ]
    data.mkdir(exist_ok=True)
    zones = ("site", "library", "z1", "z2")
    batch = history_batches.batch(rows=sorted(rows, key=lambda row: row.t), counts=counts, zones=zones)
    history_batches.write(data, batch, now_s=now_s)


@asynccontextmanager
async def features_api(folder: Path) -> AsyncIterator[Api]:
    """An API with counts now and over time, and fixes; its client gives a reason for reading them."""
    stored(folder / "data", float(int(time.time())) + 0.25)
    async with open_api(folder) as api:
        api.http.headers["headcount-reason"] = "conformance test"
        await api.count({"site": (412, 3), "library": (7, 0)})
        yield api
