"""Which rows are new, and which were there already."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.errors import LogError
from headcount.history.buffer import HistoryBuffer, RowFlush
from headcount.history.manifest import PartitionMark
from headcount.messages.history import HistoryBatch
from history_batches import T0, Row, batch, random_rows, values

#: Sites, and the number by which their counts differ.
SITES = {"ul": 0, "north": 1000}


class Stream:
    """The stream of rows: messages of all partitions, each with its sequence."""

    def __init__(self, *batches: HistoryBatch) -> None:
        self.batches = list(batches)

    def fixes(self) -> set[tuple[str, int, int, float]]:
        """(site, partition, seq, received) of all rows."""
        return {
            (one.site, one.partition, seq, received_s)
            for one in self.batches
            if one.fixes is not None
            for seq, received_s in zip(
                np.frombuffer(one.fixes.seq, "<i8").tolist(),
                np.frombuffer(one.fixes.received, "<f8").tolist(),
                strict=True,
            )
        }

    def reports(self, site: str) -> dict[float, set[int]]:
        """The partitions that reported each instant of a site."""
        found: dict[float, set[int]] = {}
        for one in self.batches:
            for counts in one.counts if one.site == site else ():
                found.setdefault(counts.at, set()).add(one.partition)
        return found

    def read(self, pending: HistoryBuffer, partition: int) -> None:
        """Add the messages of a partition that are not stored."""
        for seq, one in enumerate(self.batches, 1):
            if one.partition == partition and seq > pending.stored_seq(partition):
                pending.add(partition, seq, one)


class Stored:
    """The marks and rows that were committed."""

    def __init__(self) -> None:
        self.marks: dict[int, PartitionMark] = {}
        self.fixes: list[tuple[str, int, int, float]] = []
        self.sums: dict[str, dict[tuple[float, str], tuple[list[int], int]]] = {site: {} for site in SITES}

    def commit(self, flush: RowFlush | None) -> None:
        """Store a flush that starts at the marks; counts of the same instant, site and zone add up."""
        if flush is None:
            return
        assert all(self.marks.get(number, PartitionMark()) == mark for number, mark in flush.before.items())
        self.marks |= flush.after
        self.fixes += written_rows(flush)
        for site in SITES:
            for at, zone, numbers, present in sums_of(flush, site):
                known, before = self.sums[site].get((at, zone), ([0] * 8, 0))
                added = [a + b for a, b in zip(known, numbers, strict=True)]
                self.sums[site][at, zone] = (added, before + present)


def started(marks: dict[int, PartitionMark] | None = None, partitions: int = 4) -> HistoryBuffer:
    """The buffer of a new process, from marks that were stored."""
    decoded = msgspec.json.decode(msgspec.json.encode(marks or {}), type=dict[int, PartitionMark])
    pending = HistoryBuffer()
    for partition in range(partitions):
        pending.start(partition, decoded.get(partition, PartitionMark()))
    return pending


def add(pending: HistoryBuffer, batch: HistoryBatch) -> None:
    """Add a batch as the next message of its partition."""
    pending.add(batch.partition, pending.added_seq(batch.partition) + 1, batch)


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[int, list[HistoryBatch | str]]:
    """Batches of several sites and partitions with overlaps and repeats, and flushes between them.

    The sequences of a partition are divided among the sites, whose batches come in any order.
    """
    rng = random.Random(draw(st.integers(0, 2**32)))
    partitions = draw(st.integers(1, 3))
    steps: list[HistoryBatch | str] = []
    instants = [T0 + 10.0 * i for i in range(draw(st.integers(0, 4)))]
    queues = []
    for partition in range(partitions):
        log = [
            (rng.choice(list(SITES)), row) for row in random_rows(rng, draw(st.integers(0, 16)), span_s=7200)
        ]
        for site, offset in SITES.items():
            rows = [row for each, row in log if each == site]
            queue: list[HistoryBatch] = []
            reported = [t for t in instants if rng.random() < 0.9]  # it never reports the others
            stored = counted = 0
            while stored < len(rows) or counted < len(reported):
                back = rng.randrange(4)  # a worker that begins again a bit earlier
                stop, until = stored + rng.randrange(1, 5), counted + rng.randrange(3)
                counts = [
                    (t, values(2, partition + offset)) for t in reported[max(0, counted - back) : until]
                ]
                part = rows[max(0, stored - back) : stop]
                queue.append(batch(partition, part, counts, partitions=partitions, site=site))
                if rng.random() < 0.3:
                    queue.append(queue[-1])
                stored, counted = stop, until
            queues.append(queue)
    while any(queues):
        queue = rng.choice([q for q in queues if q])
        steps.append(queue.pop(0))
        if rng.random() < 0.3:
            steps.append(rng.choice(["flush", "flush and restart", "overtaken"]))
    return partitions, steps


def written_rows(flush: RowFlush) -> list[tuple[str, int, int, float]]:
    """(site, partition, seq, received) of a flush."""
    if flush.fixes is None:
        return []
    site, *others = (flush.fixes[name].tolist() for name in ("site", "partition", "seq", "received"))
    return list(zip([flush.sites[code] for code in site], *others, strict=True))


def sums_of(flush: RowFlush, site: str = "ul") -> list[tuple[float, str, list[int], int]]:
    """(at, zone, numbers, partitions in the sum) of a site in a flush."""
    rows = flush.counts
    if rows is None:
        return []
    numbers = rows.values.reshape(-1, 8).tolist()
    found = zip(rows.site, rows.at_s.tolist(), rows.zone, numbers, rows.partitions.tolist(), strict=True)
    return [(at, *others) for name, at, *others in found if name == site]


@given(deliveries())
def test_each_row_and_each_report_is_stored_once(case: tuple[int, list[HistoryBatch | str]]) -> None:
    """With repeats, restarts and a faster writer, the flushes hold each row and each report once."""
    partitions, steps = case
    stream, stored, pending = Stream(), Stored(), started(partitions=partitions)
    for step in [*steps, "flush"]:
        if isinstance(step, HistoryBatch):
            stream.batches.append(step)
            pending.add(step.partition, len(stream.batches), step)
            continue
        if step == "overtaken":  # another writer stores the rows first, so this one's commit fails
            other = started(stored.marks, partitions)
            for partition in range(partitions):
                stream.read(other, partition)
            stored.commit(other.take(T0))
            pending.take(T0)
        elif (flush := pending.take(T0)) is not None:
            stored.commit(flush)
            pending.confirm(flush)
        if step != "flush":
            pending = started(stored.marks, partitions)
    assert sorted(stored.fixes) == sorted(stream.fixes())
    for site, offset in SITES.items():
        reports = stream.reports(site)
        assert set(stored.sums[site]) == {(at, zone) for at in reports for zone in ("site", "library")}
        for (at, zone), (numbers, present) in stored.sums[site].items():
            first = offset + (8 if zone == "library" else 0)
            assert present == len(reports[at])
            assert numbers == [sum(first + i + p for p in reports[at]) for i in range(8)]


def test_partitions_that_report_together_are_one_row() -> None:
    """The counts of an instant are summed over the partitions in the buffer, and their number is stored."""
    pending = started()
    for partition, first in ((0, 1), (1, 10)):
        add(pending, batch(partition, counts=[(T0, values(2, first))], partitions=2))
    flush = pending.take(T0)
    assert flush is not None
    assert sums_of(flush)[0] == (T0, "site", [11 + 2 * i for i in range(8)], 2)


def test_a_late_partition_adds_to_an_instant() -> None:
    """Counts are stored without waiting for the others; the rows of an instant add up."""
    pending = started()
    add(pending, batch(0, counts=[(T0, values(2, 1))], partitions=2))
    first = pending.take(T0)
    add(pending, batch(1, counts=[(T0, values(2, 10))], partitions=2))
    second = pending.take(T0 + 3600)
    assert first is not None
    assert second is not None
    assert [(at, n) for at, zone, _, n in sums_of(first) + sums_of(second) if zone == "site"] == [(T0, 1)] * 2


def test_partitions_may_differ_in_their_zones() -> None:
    """While the site file changes, sums go by the zones' names."""
    pending = started()
    add(pending, batch(0, counts=[(T0, values(2, 0))], partitions=2, zones=("site", "a")))
    add(pending, batch(1, counts=[(T0, values(2, 0))], partitions=2, zones=("site", "b")))
    flush = pending.take(T0)
    assert flush is not None
    found = {zone: (numbers[0], n) for _, zone, numbers, n in sums_of(flush)}
    assert found == {"site": (0, 2), "a": (8, 1), "b": (8, 1)}


def test_a_log_that_began_again_is_not_taken_for_a_repeat() -> None:
    """Sequences that start again with later received times are new rows (the log's folder was emptied)."""
    rows = random_rows(random.Random(1), 20)
    again = [replace(row, seq=i + 1, received=row.received + 3600) for i, row in enumerate(rows)]
    pending = started()
    add(pending, batch(rows=rows))
    add(pending, batch(rows=again[:5]))
    add(pending, batch(rows=again[3:]))
    add(pending, batch(rows=again))
    flush = pending.take(T0)
    assert flush is not None
    assert len(written_rows(flush)) == 40
    assert pending.repeated == 2 + 20


def test_marks_end_when_the_rows_of_a_site_have_expired() -> None:
    """A site without rows for a day takes no space in the record; the others keep their marks."""
    pending = started()
    old, new = (random_rows(random.Random(6), 5, start=T0 + days * 86_400) for days in (0, 2))
    add(pending, batch(rows=old, site="north"))
    add(pending, batch(rows=new))
    flush = pending.take(T0 + 2 * 86_400)
    assert flush is not None
    assert len(written_rows(flush)) == 10
    assert list(flush.after[0].sites) == ["ul"]


def test_repeats_alone_store_no_row() -> None:
    """A flush of repeated rows only moves the mark."""
    rows = random_rows(random.Random(2), 5)
    pending = started()
    assert pending.take(T0) is None
    add(pending, batch(rows=rows))
    assert pending.take(T0) is not None
    add(pending, batch(rows=rows))
    flush = pending.take(T0)
    assert flush is not None
    assert (flush.fixes, flush.counts, flush.after[0].stream_seq) == (None, None, 2)
    assert pending.repeated == 5


def test_a_hostile_time_keeps_its_row() -> None:
    """A device may send any `t`; the row is kept with the nearest time that can be stored."""
    rows = [
        replace(row, t=t) for row, t in zip(random_rows(random.Random(3), 2), (-1e300, 1e300), strict=True)
    ]
    pending = started()
    add(pending, batch(rows=rows))
    flush = pending.take(T0)
    assert flush is not None
    assert flush.fixes is not None
    assert flush.fixes["t"].tolist() == [0.0, 253_402_300_799.0]


def bad_batches() -> list[HistoryBatch]:
    """Batches that contradict themselves, each in its own way."""
    good = batch(rows=random_rows(random.Random(4), 3), counts=[(T0, values(2, 0))])
    assert good.fixes is not None
    row: Row = random_rows(random.Random(5), 1)[0]

    def changed(**fields: bytes | list[str]) -> HistoryBatch:
        assert good.fixes is not None
        return msgspec.structs.replace(good, fixes=msgspec.structs.replace(good.fixes, **fields))

    return [
        changed(seq=good.fixes.seq[:-8]),
        changed(seq=good.fixes.seq[:-1]),
        changed(device=b"only one"),
        changed(verdict=b"\xff\xff\xff"),
        changed(received=np.array([np.nan] * 3).tobytes()),
        batch(rows=[replace(row, lat=91.0)]),
        batch(rows=[replace(row, t=float("nan"))]),
        batch(counts=[(T0, b"1234")]),
        batch(counts=[(float("inf"), values(2, 0))]),
        batch(3, partitions=2),
    ]


@pytest.mark.parametrize("index", range(10))
def test_a_batch_that_contradicts_itself_is_refused_whole(index: int) -> None:
    """Of a refused batch only the mark is stored."""
    pending = started()
    with pytest.raises(LogError, match="history batch of partition"):
        add(pending, bad_batches()[index])
    flush = pending.take(T0)
    assert flush is not None
    assert (flush.fixes, flush.counts) == (None, None)


def test_a_batch_of_another_partition_is_refused() -> None:
    """The subject of a message decides; a batch that states another partition is refused."""
    pending = started()
    with pytest.raises(LogError, match="no such partition"):
        pending.add(1, 1, batch(0, random_rows(random.Random(4), 3), partitions=4))
