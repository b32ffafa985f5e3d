"""Rows and batches for the tests of the history, and what a folder holds as plain Python."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headcount.history.buffer import HistoryBuffer
from headcount.history.catalog import Catalog
from headcount.history.hours import folder
from headcount.history.manifest import PartitionMark
from headcount.history.objects import FolderStore, ObjectStore
from headcount.history.reader import HistoryView, SegmentReader
from headcount.history.storing import store
from headcount.messages.fixes import VERDICTS
from headcount.messages.history import CountsAt, HistoryBatch, HistoryFixes
from headcount.messages.topics import KINDS

#: 2026-11-24T13:00:00Z
T0 = 1_795_525_200.0
STORED_VERDICTS = ("accepted", "inaccurate", "late", "out_of_order")


@dataclass(frozen=True, slots=True)
class Row:
    """One stored fix, as plain values."""

    seq: int
    t: float
    received: float
    device: str
    kind: str
    lat: float
    lon: float
    acc: float
    verdict: str


def random_rows(rng: random.Random, n: int, *, start: float = T0, span_s: float = 60.0) -> list[Row]:
    """`n` rows of one partition with rising sequences (some left out) and received times."""
    received = sorted(start + round(rng.random() * span_s, 3) for _ in range(n))
    seqs = sorted(rng.sample(range(1, 3 * n + 1), n))
    return [
        Row(
            seq,
            at - rng.choice([0.0, 0.25, 1.5, 300.0]),
            at,
            pseudonym(rng.randrange(max(2, n // 4))),
            rng.choice(KINDS),
            round(52.67 + rng.random() * 0.02, 7),
            round(-8.58 + rng.random() * 0.03, 7),
            rng.choice([0.0, 3.0, 12.5]),
            rng.choice(STORED_VERDICTS),
        )
        for seq, at in zip(seqs, received, strict=True)
    ]


def pseudonym(number: int) -> str:
    """A made-up one: 16 hexadecimal digits."""
    return f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}"


def columns(rows: Sequence[Row]) -> HistoryFixes:
    """Rows as they are on the wire."""
    return HistoryFixes(
        seq=np.array([r.seq for r in rows], "<i8").tobytes(),
        t=np.array([r.t for r in rows], "<f8").tobytes(),
        received=np.array([r.received for r in rows], "<f8").tobytes(),
        device=b"".join(bytes.fromhex(r.device) for r in rows),
        kind=np.array([KINDS.index(r.kind) for r in rows], np.uint8).tobytes(),
        lat=np.array([r.lat for r in rows], "<f8").tobytes(),
        lon=np.array([r.lon for r in rows], "<f8").tobytes(),
        acc=np.array([r.acc for r in rows], "<f4").tobytes(),
        verdict=np.array([VERDICTS.index(r.verdict) for r in rows], np.uint8).tobytes(),
    )


def values(zones: int, first: int) -> bytes:
    """Counts of `zones` zones: `first`, `first + 1`, and so on."""
    return (np.arange(zones * 8, dtype="<i4") + first).tobytes()


def damage_pages(path: Path) -> None:
    """Overwrite all of a segment except its footer."""
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    path.write_bytes(b"PAR1" + b"\xff" * (len(content) - 4 - footer) + content[-footer:])


def batch(
    partition: int = 0,
    rows: Sequence[Row] = (),
    counts: Sequence[tuple[float, bytes]] = (),
    *,
    partitions: int = 1,
    zones: Sequence[str] = ("site", "library"),
    site: str = "ul",
) -> HistoryBatch:
    """A batch as a worker sends it."""
    return HistoryBatch(
        site=site,
        partition=partition,
        partitions=partitions,
        epoch=1,
        zones=list(zones),
        fixes=columns(rows) if rows else None,
        counts=[CountsAt(at, raw) for at, raw in counts],
    )


def write(data: Path, *batches: HistoryBatch, now_s: float = T0) -> None:
    """Put batches into the history of a data folder, with one flush for all."""
    catalog = Catalog(FolderStore(folder(data)))
    manifest, pending = catalog.manifest(), HistoryBuffer()
    for one in batches:
        partition = one.partition
        if partition not in pending.partitions:
            pending.start(partition, manifest.partitions.get(partition, PartitionMark()))
        pending.add(partition, pending.added_seq(partition) + 1, one)
    flush = pending.take(now_s)
    if flush is not None:
        store(catalog, manifest.stream, flush, None)


def reading(data: Path) -> HistoryView:
    """The history of a data folder, always through the same reader."""
    return _reader(data).view()


@cache
def _reader(data: Path) -> SegmentReader:
    return SegmentReader(FolderStore(data / "history"))


def segment_files(data: Path, kind: str) -> list[Path]:
    """The segments of a data set, by time."""
    store_ = FolderStore(folder(data))
    return [folder(data) / segment.name for segment in Catalog(store_).manifest().of(kind)]


def _tables(place: Path | ObjectStore, dataset: str) -> Iterator[pa.Table]:
    """The segments of a data folder or a store, as the manifest names them."""
    objects = FolderStore(folder(place)) if isinstance(place, Path) else place
    for segment in Catalog(objects).manifest().of(dataset):
        with objects.open(segment.name) as file:
            yield pq.ParquetFile(file).read()


def stored_fixes(place: Path | ObjectStore, site: str = "ul") -> list[tuple[int, Row]]:
    """All stored rows of a site with their partitions, by partition and sequence; repeats show."""
    found = []
    for table in _tables(place, "fixes"):
        plain = {
            name: table.column(name).to_pylist() for name in ("site", "partition", "seq", "device", "kind")
        }
        t = table.column("t").cast(pa.int64()).to_pylist()
        received = table.column("received").cast(pa.int64()).to_pylist()
        lat, lon = (table.column(name).to_pylist() for name in ("lat", "lon"))
        acc, verdict = table.column("acc").to_pylist(), table.column("verdict").to_pylist()
        for i, partition in enumerate(plain["partition"]):
            if plain["site"][i] != site:
                continue
            row = Row(
                plain["seq"][i],
                t[i] / 1e6,
                received[i] / 1e3,
                plain["device"][i],
                plain["kind"][i],
                float(lat[i]),
                float(lon[i]),
                acc[i],
                verdict[i],
            )
            found.append((partition, row))
    return sorted(found, key=lambda item: (item[0], item[1].seq))


def stored_counts(
    place: Path | ObjectStore, site: str = "ul"
) -> dict[tuple[float, str], tuple[list[int], int, int]]:
    """(at, zone) -> the sums of the eight numbers, partitions in the sum, partitions_total, of a site."""
    found: dict[tuple[float, str], tuple[list[int], int, int]] = {}
    for table in _tables(place, "counts"):
        at = table.column("at").cast(pa.int64()).to_pylist()
        rows = table.to_pylist()
        for ms, row in zip(at, rows, strict=True):
            if row["site"] != site:
                continue
            key = (ms / 1e3, row["zone"])
            sums, partitions, total = found.get(key, ([0] * 8, 0, row["partitions_total"]))
            numbers = [a + row[name] for a, name in zip(sums, table.column_names[3:11], strict=True)]
            assert row["partitions_total"] == total
            found[key] = (numbers, partitions + row["partitions"], total)
    return found
