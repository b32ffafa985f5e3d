"""Totals against a brute-force reading of the whole list of reports."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.counting.fix_columns import I4
from headcount.counting.totals import FRESH_S, MAX_PENDING, OVERDUE_S, Total, Totals
from headcount.messages.times import TICK_S

ZONES = 2
Reports = list[tuple[int, int, int]]  # partition, epoch, tick


def values(partition: int, epoch: int, tick: int) -> I4:
    """Counts that differ for every partition, epoch and instant."""
    return np.full((ZONES, 2, 4), 1 + partition + 10 * epoch + 1000 * tick, np.int32)


def at(tick: int) -> float:
    """Unix seconds of a tick, as a worker computes them."""
    return tick * TICK_S


def feed(totals: Totals, reports: Reports) -> list[Total]:
    """All totals that the reports give, in order."""
    return [t for p, e, tick in reports for t in totals.add(p, e, at(tick), values(p, e, tick))]


def brute_exact(partitions: int, reports: Reports) -> list[tuple[float, int]]:
    """The exact totals, computed from all reports so far after each report: (at, first number)."""
    out: list[tuple[float, int]] = []
    done = -1
    for n, (_, _, tick) in enumerate(reports, start=1):
        seen = reports[:n]
        newest = [max((e for p, e, _ in seen if p == q), default=None) for q in range(partitions)]
        complete = all((q, newest[q], tick) in seen for q in range(partitions))
        if tick > done and complete:
            done = tick
            out.append(
                (at(tick), sum(int(values(q, newest[q] or 0, tick)[0, 0, 0]) for q in range(partitions)))
            )
    return out


def brute_newest(partition: int, reports: Reports) -> tuple[int, int] | None:
    """(epoch, tick) of the report that stands for a partition: the latest instant not superseded."""
    best: tuple[int, int] | None = None
    epoch = -1
    for p, e, tick in reports:
        if p == partition and e >= epoch:
            epoch = e
            if best is None or tick >= best[1]:
                best = (e, tick)
    return best


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, Reports]:
    """A number of partitions, and reports in any order, some of older epochs, some twice."""
    partitions = draw(st.integers(1, 4))
    report = st.tuples(st.integers(0, partitions - 1), st.integers(0, 2), st.integers(0, 8))
    return partitions, draw(st.lists(report, max_size=60))


@given(histories())
def test_exact_totals_equal_brute_force(history: tuple[int, Reports]) -> None:
    """A total comes exactly when the newest epochs of all partitions have reported an instant."""
    partitions, reports = history
    got = feed(Totals(partitions), reports)
    assert [(t.at, int(t.values[0, 0, 0])) for t in got] == brute_exact(partitions, reports)
    assert all(t.partitions_fresh == t.partitions_total == partitions for t in got)


@given(histories(), st.integers(0, 40))
def test_overdue_totals_equal_brute_force(history: tuple[int, Reports], now_tick: int) -> None:
    """Overdue totals sum the newest report of each partition and carry the oldest one's instant."""
    partitions, reports = history
    totals = Totals(partitions)
    feed(totals, reports)
    now = at(now_tick)
    newest = [brute_newest(q, reports) for q in range(partitions)]
    known = [(q, *n) for q, n in enumerate(newest) if n is not None]
    got = totals.overdue(now)
    if not known or (len(known) == partitions and all(now - at(t) <= OVERDUE_S for _, _, t in known)):
        assert got is None
        return
    assert got is not None
    assert got.at == min(at(t) for _, _, t in known)
    assert int(got.values[1, 1, 3]) == sum(int(values(q, e, t)[0, 0, 0]) for q, e, t in known)
    assert got.partitions_fresh == sum(1 for _, _, t in known if now - at(t) <= FRESH_S)
    assert got.partitions_total == partitions
    assert len(totals.silent(now)) == partitions - got.partitions_fresh


@given(histories())
def test_order_of_partitions_does_not_matter(history: tuple[int, Reports]) -> None:
    """Two partitions' reports may arrive interleaved in any way: the same instants get totals."""
    partitions, reports = history
    one_epoch = sorted({(p, 0, t) for p, _, t in reports}, key=lambda r: (r[2], r[0]))
    swapped = sorted(one_epoch, key=lambda r: (r[2], -r[0]))
    first = feed(Totals(partitions), one_epoch)
    second = feed(Totals(partitions), swapped)
    assert [(t.at, t.values.tolist()) for t in first] == [(t.at, t.values.tolist()) for t in second]


def test_memory_is_bounded_when_a_partition_is_silent() -> None:
    """However long one partition is silent, only the last instants wait for it, and it can come back."""
    totals = Totals(2)
    assert feed(totals, [(0, 1, tick) for tick in range(10_000)]) == []
    assert len(totals._pending) <= MAX_PENDING
    (back,) = feed(totals, [(1, 1, 5), (1, 1, 9_999)])
    assert back.at == at(9_999)
    assert totals._pending == {}


def test_total_cannot_be_changed() -> None:
    """The array of a total is read-only, because many readers share it."""
    (total,) = feed(Totals(1), [(0, 1, 7)])
    with pytest.raises(ValueError, match="read-only"):
        total.values[0, 0, 0] = 1


def test_wrong_reports_are_refused() -> None:
    """A partition that doesn't exist or an array of another shape raises ValueError naming both."""
    totals = Totals(2)
    with pytest.raises(ValueError, match="partition 2 of 2"):
        totals.add(2, 0, 0.0, values(0, 0, 0))
    with pytest.raises(ValueError, match=r"expected \(zones, 2, 4\)"):
        totals.add(0, 0, 0.0, np.zeros((3, 2, 3), np.int32))


def test_a_new_version_of_the_site_starts_with_a_whole_total() -> None:
    """While a partition is behind a site change, totals are those of the old version; then the new one's zones count."""
    totals = Totals(2)
    old, new = values(0, 0, 0), np.ones((5, 2, 4), np.int32)
    assert totals.add(0, 0, at(1), old) == []
    assert len(totals.add(1, 0, at(1), old)) == 1
    assert totals.add(0, 0, at(2), new, site_version=2) == []
    overdue = totals.overdue(at(2) + OVERDUE_S + 1)
    assert overdue is not None
    assert (overdue.site_version, overdue.values.shape) == (1, old.shape)
    assert totals.add(0, 0, at(3), new, site_version=2) == []
    (total,) = totals.add(1, 0, at(3), new, site_version=2)
    assert (total.site_version, total.values.tolist()) == (2, (2 * new).tolist())
    assert totals.add(1, 0, at(2), old) == []
