"""Which rows are new, which were there already, and when an instant's counts are whole."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.errors import LogError
from headcount.history.buffer import WAIT_FOR_PARTITIONS_S, Flush, FlushRecord, HistoryBuffer
from headcount.messages.history import HistoryBatch
from history_batches import T0, Row, batch, random_rows, values

#: Sites, and the number by which their counts differ.
SITES = {"ul": 0, "north": 1000}


def restarted(written: FlushRecord) -> HistoryBuffer:
    """The buffer of a new process, from the record of the old one."""
    return HistoryBuffer(msgspec.json.decode(msgspec.json.encode(written), type=FlushRecord))


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[int, list[HistoryBatch | str]]:
    """Batches of several sites and partitions with overlaps and repeats, flushes and restarts between them.

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
            steps.append(rng.choice(["flush", "flush and restart"]))
    return partitions, steps


def written_rows(flush: Flush) -> list[tuple[str, int, int, float]]:
    """(site, partition, seq, received) of a flush."""
    if flush.fixes is None:
        return []
    site, *others = (flush.fixes[name].tolist() for name in ("site", "partition", "seq", "received"))
    return list(zip([flush.sites[code] for code in site], *others, strict=True))


def sums_of(flush: Flush, site: str = "ul") -> list[tuple[float, str, list[int], int]]:
    """(at, zone, numbers, partitions in the sum) of a site in a flush."""
    rows = flush.counts
    if rows is None:
        return []
    numbers = rows.values.reshape(-1, 8).tolist()
    found = zip(rows.site, rows.at_s.tolist(), rows.zone, numbers, rows.partitions.tolist(), strict=True)
    return [(at, *others) for name, at, *others in found if name == site]


@given(deliveries())
def test_each_row_and_each_report_is_written_once(case: tuple[int, list[HistoryBatch | str]]) -> None:
    """Whatever comes again, the flushes hold each row and each instant of a site once."""
    partitions, steps = case
    pending = HistoryBuffer(FlushRecord())
    fixes: list[tuple[str, int, int, float]] = []
    sums: dict[str, list[tuple[float, str, list[int], int]]] = {site: [] for site in SITES}
    sent: dict[tuple[str, int, int], float] = {}
    reported: dict[str, dict[float, set[int]]] = {site: {} for site in SITES}
    for step in [*steps, "end"]:
        if isinstance(step, HistoryBatch):
            pending.add(step, T0)
            if step.fixes is not None:
                seqs = np.frombuffer(step.fixes.seq, "<i8").tolist()
                received = np.frombuffer(step.fixes.received, "<f8").tolist()
                sent |= {(step.site, step.partition, s): r for s, r in zip(seqs, received, strict=True)}
            for counts in step.counts:
                reported[step.site].setdefault(counts.at, set()).add(step.partition)
            continue
        flush = pending.take(T0 + (WAIT_FOR_PARTITIONS_S if step == "end" else 0))
        if flush is not None:
            fixes += written_rows(flush)
            for site in SITES:
                sums[site] += sums_of(flush, site)
            if step == "flush and restart":
                pending = restarted(flush.written)
    assert sorted(fixes) == sorted((*key, r) for key, r in sent.items())
    for site, offset in SITES.items():
        assert [(at, zone) for at, zone, _, _ in sums[site]] == [
            (a, z) for a in sorted(reported[site]) for z in ("site", "library")
        ]
        for at, zone, numbers, present in sums[site]:
            assert present == len(reported[site][at])
            if present == partitions:
                first = offset + (8 if zone == "library" else 0)
                assert numbers == [sum(first + i + p for p in range(partitions)) for i in range(8)]


def test_an_instant_waits_for_all_partitions() -> None:
    """Counts are written when all partitions have reported, not before, and summed."""
    pending = HistoryBuffer(FlushRecord())
    pending.add(batch(0, counts=[(T0, values(2, 1))], partitions=2), T0)
    first = pending.take(T0 + 1)
    assert first is not None
    assert first.counts is None
    pending = restarted(first.written)
    pending.add(batch(1, counts=[(T0, values(2, 10))], partitions=2), T0 + 2)
    flush = pending.take(T0 + 2)
    assert flush is not None
    assert sums_of(flush)[0] == (T0, "site", [11 + 2 * i for i in range(8)], 2)


def test_an_instant_is_given_up_after_the_wait() -> None:
    """After ten minutes without the missing partition the sum is written with the number of partitions in it."""
    pending = HistoryBuffer(FlushRecord())
    pending.add(batch(0, counts=[(T0, values(2, 1))], partitions=2), T0)
    assert pending.take(T0 + 1) is not None
    assert pending.take(T0 + WAIT_FOR_PARTITIONS_S - 1) is None
    flush = pending.take(T0 + WAIT_FOR_PARTITIONS_S)
    assert flush is not None
    assert [(at, n) for at, _, _, n in sums_of(flush)] == [(T0, 1), (T0, 1)]
    pending.add(batch(1, counts=[(T0, values(2, 1))], partitions=2), T0)
    assert pending.take(T0 + 2 * WAIT_FOR_PARTITIONS_S) is None


def test_a_whole_instant_ends_the_wait_of_older_ones() -> None:
    """Partitions report in order, so what is missing below a whole instant never comes."""
    pending = HistoryBuffer(FlushRecord())
    pending.add(batch(0, counts=[(T0, values(2, 1)), (T0 + 10, values(2, 1))], partitions=2), T0)
    pending.add(batch(1, counts=[(T0 + 10, values(2, 1))], partitions=2), T0)
    flush = pending.take(T0)
    assert flush is not None
    assert [(at, n) for at, zone, _, n in sums_of(flush) if zone == "site"] == [(T0, 1), (T0 + 10, 2)]


def test_partitions_may_differ_in_their_zones() -> None:
    """While the site file changes, sums go by the zones' names."""
    pending = HistoryBuffer(FlushRecord())
    pending.add(batch(0, counts=[(T0, values(2, 0))], partitions=2, zones=("site", "a")), T0)
    pending.add(batch(1, counts=[(T0, values(2, 0))], partitions=2, zones=("site", "b")), T0)
    flush = pending.take(T0)
    assert flush is not None
    firsts = {zone: numbers[0] for _, zone, numbers, _ in sums_of(flush)}
    assert firsts == {"site": 0, "a": 8, "b": 8}


def test_a_log_that_began_again_is_not_taken_for_a_repeat() -> None:
    """Sequences that start again with later received times are new rows (the log's folder was emptied)."""
    rows = random_rows(random.Random(1), 20)
    anew = [replace(row, seq=i + 1, received=row.received + 3600) for i, row in enumerate(rows)]
    pending = HistoryBuffer(FlushRecord())
    pending.add(batch(rows=rows), T0)
    pending.add(batch(rows=anew[:5]), T0)
    pending.add(batch(rows=anew[3:]), T0)
    pending.add(batch(rows=anew), T0)
    flush = pending.take(T0)
    assert flush is not None
    assert len(written_rows(flush)) == 40
    assert pending.repeated == 2 + 20


def test_marks_end_when_the_rows_of_a_site_have_expired() -> None:
    """A site without rows for a day takes no space in the record; the others keep their marks."""
    pending = HistoryBuffer(FlushRecord())
    old, new = (random_rows(random.Random(6), 5, start=T0 + days * 86_400) for days in (0, 2))
    pending.add(batch(rows=old, site="north"), T0)
    pending.add(batch(rows=new), T0)
    flush = pending.take(T0 + 2 * 86_400)
    assert flush is not None
    assert len(written_rows(flush)) == 10
    assert list(flush.written.sites) == ["ul"]


def test_dropped_instants_do_not_return() -> None:
    """The waiting instants of an erased site are not written, also when another partition reports them."""
    pending = HistoryBuffer(FlushRecord())
    for site in SITES:
        pending.add(batch(0, counts=[(T0, values(2, 1))], partitions=2, site=site), T0)
    pending.drop_waiting("north")
    for site in SITES:
        pending.add(batch(1, counts=[(T0, values(2, 1))], partitions=2, site=site), T0)
    flush = pending.take(T0 + WAIT_FOR_PARTITIONS_S)
    assert flush is not None
    assert (len(sums_of(flush)), sums_of(flush, "north")) == (2, [])
    assert not flush.written.sites["north"].waiting


def test_nothing_new_needs_no_flush() -> None:
    """Repeats alone change nothing on disk."""
    rows = random_rows(random.Random(2), 5)
    pending = HistoryBuffer(FlushRecord())
    pending.add(batch(rows=rows), T0)
    assert pending.take(T0) is not None
    pending.add(batch(rows=rows), T0)
    assert pending.take(T0) is None
    assert pending.repeated == 5


def test_a_hostile_time_keeps_its_row() -> None:
    """A device may send any `t`; the row is kept with the nearest time that can be stored."""
    rows = [
        replace(row, t=t) for row, t in zip(random_rows(random.Random(3), 2), (-1e300, 1e300), strict=True)
    ]
    pending = HistoryBuffer(FlushRecord())
    pending.add(batch(rows=rows), T0)
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
        batch(70_000, partitions=70_001),
    ]


@pytest.mark.parametrize("index", range(11))
def test_a_batch_that_contradicts_itself_is_refused_whole(index: int) -> None:
    """A refused batch leaves nothing behind."""
    pending = HistoryBuffer(FlushRecord())
    with pytest.raises(LogError, match="history batch of partition"):
        pending.add(bad_batches()[index], T0)
    assert pending.take(T0 + 2 * WAIT_FOR_PARTITIONS_S) is None
