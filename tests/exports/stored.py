"""A stored history of generated fixes, and the same fixes as rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from headcount.history.catalog import Catalog
from headcount.history.hours import HOUR_S
from headcount.history.manifest import Manifest
from headcount.history.objects import ObjectStore
from headcount.history.segments import fixes_table
from headcount.messages.fixes import VERDICTS
from headcount.messages.topics import KINDS

SITES = ("other", "ul")
#: 2026-11-24T13:00:00Z
START_S = 1_795_525_200.0


@dataclass(frozen=True, slots=True)
class FixRow:
    """A stored fix."""

    t: float  # with 6 decimals
    device: str
    kind: str
    lat: float  # with 7 decimals
    lon: float
    acc: float | None  # a multiple of 0.5
    received: float  # with 3 decimals
    site: str
    verdict: str


def store_fixes(store: ObjectStore, hours: int = 3, rows: int = 400, seed: int = 1) -> list[FixRow]:
    """Store `rows` fixes of each of some hours, a segment an hour; returns all."""
    rng, catalog, found = np.random.default_rng(seed), Catalog(store), list[FixRow]()
    devices = rng.integers(1, 1 << 62, 40).astype(np.uint64)
    for hour in range(hours):
        start_s = START_S + hour * HOUR_S
        received = np.sort(rng.integers(0, 3_600_000, rows)) / 1e3 + start_s
        who = rng.integers(0, len(devices), rows)
        columns: dict[str, np.ndarray[Any, Any]] = {
            "site": (rng.random(rows) < 0.8).astype(np.int16),
            "partition": np.zeros(rows, np.int16),
            "seq": np.arange(rows) + hour * rows + 1,
            "t": np.round(received - rng.integers(0, 5_000_000, rows) / 1e6, 6),
            "received": received,
            "device": devices[who],
            "kind": (who % 2).astype(np.uint8),
            "lat": np.round(52.67 + rng.random(rows) * 0.01, 7),
            "lon": np.round(-8.58 + rng.random(rows) * 0.02, 7),
            "acc": (rng.integers(0, 30, rows) / 2).astype(np.float32),
            "verdict": rng.choice(
                [VERDICTS.index("accepted"), VERDICTS.index("late")], rows, p=(0.9, 0.1)
            ).astype(np.uint8),
        }
        table = fixes_table(columns, SITES)
        span = (float(received.min()), float(received.max()))
        t_span = (float(columns["t"].min()), float(columns["t"].max()))
        lat, lon = columns["lat"], columns["lon"]
        box = (float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max()))
        segment = catalog.write("fixes", table, span, t_span_s=t_span, box=box)
        catalog.commit(lambda before, segment=segment: before.with_segments(segment))  # type: ignore[misc]
        found += _rows(columns)
    return found


def _rows(columns: dict[str, np.ndarray[Any, Any]]) -> Iterator[FixRow]:
    for row in zip(*(columns[name].tolist() for name in columns), strict=True):
        each = dict(zip(columns, row, strict=True))
        yield FixRow(
            each["t"],
            np.uint64(each["device"]).tobytes().hex(),
            KINDS[each["kind"]],
            each["lat"],
            each["lon"],
            each["acc"] or None,
            each["received"],
            SITES[each["site"]],
            VERDICTS[each["verdict"]],
        )


def newest(store: ObjectStore) -> Manifest:
    """The manifest of a store."""
    return Catalog(store).manifest()
