"""History: bytes a fix, rows written, and queries beside PostGIS, TimescaleDB and MobilityDB, with equal answers.

Usage: python -m headcount.lab.figures.history [--devices 2500] [--hours 24] [--questions 100] [--full] [--install]

A day of devices that report every 10 seconds is generated, and written as the history's writers and compaction do.
The same rows are loaded into each database in turn. Every query runs with the same random parameters everywhere,
warm, from one client; areas have 1 % of the site's. `--full` is 25 000 devices: about 216 million fixes.
Databases are those of Debian 13 in a folder that `--install` makes, or PostGIS of this machine; both need root.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa

from headcount.counting.site import Site
from headcount.history import storing
from headcount.history.at_instant import PresenceRules
from headcount.history.buffer import RowFlush
from headcount.history.catalog import Catalog
from headcount.history.compaction import CLOSED_S, compact
from headcount.history.count_queries import zones_history
from headcount.history.derive import derive_pauses
from headcount.history.fix_query import FixQuery
from headcount.history.hours import HOUR_S
from headcount.history.manifest import PAUSES
from headcount.history.objects import FolderStore
from headcount.history.queries import MAX_ROWS, StoredFix, fixes, fixes_at
from headcount.history.query_areas import area_of
from headcount.history.reader import SegmentReader
from headcount.lab.figures.generated_day import GeneratedDay, GeneratedHour
from headcount.lab.figures.history_databases import DATABASES, Database
from headcount.lab.figures.history_questions import (
    PAGE,
    STEP_S,
    Bucket,
    Question,
    questions,
    same_buckets,
    same_page,
)
from headcount.lab.figures.postgres_server import Postgres, install, installed, started
from headcount.lab.machine import machine
from headcount.messages.topics import KINDS
from headcount.sites.files import bundled_site, load_site

SEED = 1
FULL_DEVICES = 25_000
#: Seconds that one query may take with all its parameters in one database; then fewer of them are used.
QUERY_S = 30.0
#: Memory that a database may use.
MEMORY_GB = 6.0


class Headcount:
    """The history in a folder."""

    name = "headcount"

    def __init__(self, folder: Path, site: Site) -> None:
        self._catalog = Catalog(FolderStore(folder))
        self._reader = SegmentReader(FolderStore(folder))
        self._site, self._rules = site.id, PresenceRules(site)
        self.written_s = self.cpu_s = 0.0  # CPU time of writing; and with compaction

    def load(self, hour: GeneratedHour) -> None:
        """Write an hour, a segment a minute as busy writers do, then compact it and derive its pauses."""
        began = time.process_time()
        minute = hour.fixes["received"] // 60
        for part in np.split(np.arange(len(minute)), np.flatnonzero(np.diff(minute)) + 1):
            rows = {name: column[part] for name, column in hour.fixes.items()}
            counts = hour.counts if part[-1] == len(minute) - 1 else None
            storing.store(self._catalog, "", RowFlush([self._site], rows, counts, {}, {}, 0), None)
        self.written_s += time.process_time() - began
        ends_s = float(hour.counts.at_s[-1]) + HOUR_S
        while compact(self._catalog, ends_s + CLOSED_S):
            pass
        derive_pauses(self._catalog, ends_s)
        self.cpu_s += time.process_time() - began

    def finish(self) -> None:
        """Delete what compaction has replaced."""
        names = [each.name for each in self._catalog.manifest().removed]
        self._catalog.store.delete(names)

    def size(self) -> int:
        """Bytes of the segments of fixes, and of the pauses derived from them."""
        manifest = self._catalog.manifest()
        return sum(each.bytes for dataset in ("fixes", PAUSES) for each in manifest.of(dataset))

    def page(self, query: str, question: Question) -> list[StoredFix]:
        """The newest fixes in an area: `box`, `polygon` or `near`."""
        area = {
            "box": lambda: area_of(bbox=question.box),
            "polygon": lambda: area_of(within=question.polygon),
            "near": lambda: area_of(near=question.near),
        }[query]()
        return fixes(self._reader.view(), site=self._site, area=area, limit=PAGE)

    def count(self, question: Question) -> int:
        """The number of fixes in the box over the day."""
        query = FixQuery(self._reader.view(), self._site, KINDS)
        return sum(map(len, query.each(area_of(bbox=question.box), question.from_us, question.to_us)))

    def at(self, question: Question, at_us: int) -> list[StoredFix]:
        """The positions in the box at an instant."""
        area = area_of(bbox=question.box)
        return fixes_at(
            self._reader.view(),
            site=self._site,
            rules=self._rules,
            area=area,
            at_s=at_us / 1e6,
            limit=MAX_ROWS,
        )

    def track(self, question: Question) -> list[StoredFix]:
        """All fixes of a device."""
        names = [question.device.to_bytes(8, sys.byteorder).hex()]
        return fixes(self._reader.view(), site=self._site, devices=names, limit=MAX_ROWS)

    def counts(self, question: Question) -> list[Bucket]:
        """The counts of a zone over the day."""
        span_s = question.from_us / 1e6, question.to_us / 1e6
        found = zones_history(self._reader.view(), [question.zone], *span_s, STEP_S, site=self._site)
        return [
            (round(each.at * 1e6), *(getattr(of, n) for of in (each.person, each.vehicle) for n in _NUMBERS))
            for each in found[question.zone]
        ]


def nearly_same_devices(mine: Any, others: Any) -> bool:
    """Whether two answers have the same devices, except for those that cross an edge between two fixes.

    headcount moves them in a straight line (decision 0045), the databases take the last fix.
    """
    return len(set(mine) ^ set(others)) <= max(2, len(set(others)) // 10)


_NUMBERS = ("count", "min", "max", "mean")
#: Query → how to run it, and whether two answers agree.
Run = Callable[[Any, Question], Any]
QUERIES: dict[str, tuple[Run, Callable[[Any, Any], bool]]] = {
    f"newest {PAGE} in a box": (lambda each, q: each.page("box", q), same_page),
    f"newest {PAGE} in a polygon with a hole": (lambda each, q: each.page("polygon", q), same_page),
    f"newest {PAGE} within a radius": (lambda each, q: each.page("near", q), same_page),
    "number of fixes in a box, all hours": (lambda each, q: each.count(q), int.__eq__),
    "devices in a box now": (lambda each, q: each.at(q, q.now_us), nearly_same_devices),
    "devices in a box at an instant": (lambda each, q: each.at(q, q.at_us), nearly_same_devices),
    "a device's track, all hours": (lambda each, q: each.track(q), lambda a, b: sorted(a) == sorted(b)),
    f"a zone's counts by {STEP_S:.0f} s, all hours": (lambda each, q: each.counts(q), same_buckets),
}


class QueryFigures:
    """Durations and answers of one store."""

    def __init__(self, store: Any, asked: Sequence[Question]) -> None:
        self.ms: dict[str, list[float]] = {}
        self.answers: dict[str, list[Any]] = {}
        for name, (run, _) in QUERIES.items():
            run(store, asked[0])  # warm
            began = time.perf_counter()
            took, answers = [], []
            for question in asked:
                start = time.perf_counter()
                found = run(store, question)
                took.append((time.perf_counter() - start) * 1e3)
                answers.append(_keys(found))
                if time.perf_counter() - began > QUERY_S:
                    break
            self.ms[name], self.answers[name] = took, answers
            print(f"{store.name}: {name}: {_figures(took)}", file=sys.stderr, flush=True)

    def differences(self, other: QueryFigures) -> list[str]:
        """The queries whose answers are not those of another store."""
        return [
            f"{name}, question {index}"
            for name, (_, same) in QUERIES.items()
            for index, (mine, others) in enumerate(zip(self.answers[name], other.answers[name], strict=False))
            if not same(mine, others)
        ]


def _keys(found: Any) -> Any:
    if isinstance(found, list) and found and isinstance(found[0], StoredFix):
        names = [bytes.fromhex(fix.device) for fix in found]
        return [
            (round(fix.t * 1e6), int.from_bytes(name, sys.byteorder))
            for fix, name in zip(found, names, strict=True)
        ]
    return found


def _figures(took_ms: Sequence[float]) -> str:
    return f"{_short(float(np.median(took_ms)))} / {_short(float(np.percentile(took_ms, 99)))}"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def main() -> None:
    """Print the figures as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=2500)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--questions", type=int, default=100, help="parameters of each query")
    parser.add_argument("--full", action="store_true", help=f"{FULL_DEVICES} devices")
    parser.add_argument("--install", action="store_true", help="install the databases first")
    parser.add_argument("--alone", action="store_true", help="measure headcount only")
    options = parser.parse_args()
    if options.install:
        install()
    if options.full:
        options.devices = FULL_DEVICES
    pa.set_cpu_count(1)
    site = load_site(bundled_site("ul"))
    print(f"Load average before: {os.getloadavg()[0]:.2f}")
    measured, rows = _measure_all(site, options, None if options.alone else installed())
    print(
        f"\n{rows:,} fixes of {options.devices:,} devices in {options.hours:g} h, seed {SEED};\n{machine()}; "
        f"{datetime.now(UTC):%Y-%m-%d}\n"
    )
    _print_table(measured)
    print(f"\nLoad average after: {os.getloadavg()[0]:.2f}\n<!-- end of output -->")


def _measure_all(
    site: Site, options: argparse.Namespace, postgres: Postgres | None
) -> tuple[dict[str, tuple[QueryFigures, list[str]]], int]:
    """Measure one store after the other; their data is deleted in between. Returns figures by name, and the fixes."""
    rows = 0
    found: dict[str, tuple[QueryFigures, list[str]]] = {}
    asked: list[Question] = []

    def filled(store: Any) -> list[str]:
        nonlocal rows, asked
        day = GeneratedDay(site, options.devices, SEED)
        took_s, rows = 0.0, 0
        for hour in day.hours(options.hours):
            asked = asked or questions(day, site, hour.fixes, options.hours, options.questions, SEED)
            began = time.perf_counter()
            store.load(hour)
            if isinstance(store, Database):
                store.load_counts(hour.counts)
            took_s += time.perf_counter() - began
            rows += len(hour.fixes["t"])
        began = time.perf_counter()
        store.finish()
        took_s += time.perf_counter() - began
        return [f"{store.size() / rows:.1f}", f"{rows / took_s:,.0f}"]

    with tempfile.TemporaryDirectory(prefix="headcount-history-") as folder:
        store = Headcount(Path(folder), site)
        figures = filled(store)
        figures[1] += (
            f"; per CPU second {rows / store.written_s:,.0f} written, {rows / store.cpu_s:,.0f} with compaction"
        )
        found[store.name] = QueryFigures(store, asked), figures
    if postgres is None:
        print("\nNo PostgreSQL with PostGIS is installed: run with --install, as root.")
        return found, rows
    for kind in DATABASES:
        if not all(map(postgres.offers, kind.extensions)):
            print(f"\n{kind.name} is not installed.")
            continue
        with (
            started(postgres, kind.preload, MEMORY_GB) as where,
            psycopg.connect(where, autocommit=True) as connection,
        ):
            database = kind(connection)
            figures = filled(database)
            found[kind.name] = QueryFigures(database, asked), figures
        for difference in found[kind.name][0].differences(found[Headcount.name][0]):
            raise SystemExit(f"{kind.name} and headcount differ: {difference}")
    return found, rows


def _print_table(measured: dict[str, tuple[QueryFigures, list[str]]]) -> None:
    names = list(measured)
    print("|  | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for index, label in enumerate(("bytes a fix, with indices", "fixes/s loaded, indexed and compacted")):
        print(f"| {label} | " + " | ".join(measured[name][1][index] for name in names) + " |")
    slower = []
    for query in QUERIES:
        medians = {name: float(np.median(measured[name][0].ms[query])) for name in names}
        print(f"| {query} | " + " | ".join(_figures(measured[name][0].ms[query]) for name in names) + " |")
        best = min(medians, key=medians.__getitem__)
        if best != Headcount.name:
            slower.append(f"{query} ({medians[Headcount.name] / medians[best]:.1f} times {best})")
    print("\nQueries: median / 99th percentile in milliseconds. All answers were equal.")
    if len(names) > 1:
        print("Slower than another database:" if slower else "No query is slower than another database's.")
        print("".join(f"\n- {each}" for each in slower))


if __name__ == "__main__":
    main()
