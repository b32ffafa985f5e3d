"""Stored counts and events, and what is derived from them, as plain rows."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import flow_oracle as oracle
from headcount.history.catalog import Catalog
from headcount.history.derive import DERIVED_COLUMNS
from headcount.history.minutes import COUNT_COLUMNS
from headcount.history.reader import scan
from headcount.history.stays import ZoneEvent

#: 2026-11-24T13:00:00Z
T0_MS = 1_795_525_200_000
Row = dict[str, Any]


def instants(rng: random.Random, n: int) -> list[Row]:
    """Rows of instants of two sites, in parts as writers store them; some instants are incomplete."""
    rows = []
    for site, zone in [("ul", "site"), ("ul", "lib"), ("dcu", "site")]:
        for _ in range(n):
            at_ms = T0_MS + rng.choice([10_000 * rng.randrange(60), rng.randrange(600_000)])
            parts = rng.choice([[4], [1, 3], [2, 1, 1], [3], [1, 1]])
            rows += [
                {
                    "at": at_ms,
                    "site": site,
                    "zone": zone,
                    "person_count": rng.randrange(30),
                    "vehicle_count": rng.randrange(3),
                    "partitions": partitions,
                    "partitions_total": 4,
                }
                for partitions in parts
            ]
    rng.shuffle(rows)
    return rows


def table_of(rows: list[Row]) -> pa.Table:
    """The rows as a segment has them."""
    table = pa.Table.from_pylist(rows) if rows else pa.table({name: [] for name in COUNT_COLUMNS})
    at = table["at"].cast(pa.int64()).cast(pa.timestamp("ms", "UTC"))
    return table.set_column(table.column_names.index("at"), "at", at)


def summary(rows: list[Row], step_s: int) -> list[Row]:
    """Brute force: all complete instants of each step."""
    parts: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    for row in rows:
        parts[row["site"], row["zone"], row["at"]].append(row)
    buckets: dict[tuple[str, str, int], list[tuple[int, int, int]]] = defaultdict(list)
    for (site, zone, at_ms), found in parts.items():
        if sum(row["partitions"] for row in found) >= 4:
            end_s = -(-at_ms // (step_s * 1000)) * step_s
            people, vehicles = (sum(row[f"{kind}_count"] for row in found) for kind in ("person", "vehicle"))
            buckets[site, zone, end_s].append((at_ms, people, vehicles))
    result = []
    for (site, zone, end_s), found_instants in sorted(buckets.items()):
        last = max(found_instants)
        step: Row = {"site": site, "zone": zone, "at": end_s, "instants": len(found_instants)}
        for i, kind in enumerate(("person", "vehicle"), 1):
            numbers = [each[i] for each in found_instants]
            step |= {f"{kind}_min": min(numbers), f"{kind}_max": max(numbers)}
            step |= {f"{kind}_sum": sum(numbers), f"{kind}_last": last[i]}
        result.append(step | {"ended": (end_s * 1000 - last[0]) // 1000})
    return result


def store_rows(catalog: Catalog, dataset: str, clock: str, per_s: float, table: pa.Table) -> None:
    """Store a table as a segment of each hour."""
    hours = pc.floor(pc.divide(table[clock].cast(pa.int64()).cast(pa.float64()), 3600 * per_s))
    for hour in sorted(set(hours.to_pylist())):
        rows = table.filter(pc.equal(hours, hour)).sort_by(clock)
        ticks = rows[clock].cast(pa.int64()).to_pylist()
        segment = catalog.write(dataset, rows, (ticks[0] / per_s, ticks[-1] / per_s))
        catalog.commit(lambda before, segment=segment: before.with_segments(segment))  # type: ignore[misc]


def store_events(catalog: Catalog, events: list[ZoneEvent]) -> None:
    """Store events as a writer does."""
    columns: dict[str, Any] = {
        "t": pa.array([e.t_us for e in events], pa.timestamp("us", "UTC")),
        "type": ["enter" if e.is_enter else "exit" for e in events],
        "id": [f"{hash(e):x}" for e in events],
    }
    for name in ("site", "zone", "device", "kind", "reason"):
        columns[name] = [getattr(e, name) for e in events]
    store_rows(catalog, "events", "t", 1e6, pa.table(columns))


def store_counts(catalog: Catalog, rows: list[Row]) -> None:
    """Store counts as a writer does."""
    store_rows(catalog, "counts", "at", 1e3, table_of(rows))


def derived(catalog: Catalog, dataset: str) -> list[Row]:
    """All rows of a derived data set, with times in Unix seconds."""
    table = scan(catalog.store, catalog.manifest(), dataset, columns=DERIVED_COLUMNS[dataset])
    return [
        row | {"at": row["at"].timestamp(), "derived": row["derived"].timestamp()}
        for row in table.to_pylist()
    ]


def flows_in(catalog: Catalog) -> dict[float, dict[oracle.Cell, tuple[int, int]]]:
    """The derived flows by their hour."""
    found: dict[float, dict[oracle.Cell, tuple[int, int]]] = defaultdict(dict)
    for row in derived(catalog, "flows"):
        cell = (row["site"], row["kind"], row["table"], row["zone"], row["other"])
        assert cell not in found[row["at"]]
        found[row["at"]][cell] = (row["events"], row["people"])
    return found
