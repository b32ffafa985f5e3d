"""The report of a chaos test, and the gaps that it shows."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from headcount.lab.chaos.comparison import Comparison
from headcount.lab.chaos.experiment import ChaosPlan, ChaosResult
from headcount.lab.chaos.fault_injection import AppliedFault
from headcount.lab.chaos.fault_schedule import Fault
from headcount.lab.chaos.independent_reader import LogEntry, LoggedFix, PartitionLog
from headcount.lab.chaos.mqtt_senders import SendCounters
from headcount.lab.chaos.observer import Observations, ObservedCounts
from headcount.lab.chaos.recovery import Gap, gaps, recovery_s
from headcount.lab.chaos.report import report_page
from headcount.lab.chaos.timeline import max_ages, ownership_spans, received_per_second

START_S = 1_790_000_000


def _report(at_s: float, partition: int, epoch: int, late_s: float = 0.1) -> ObservedCounts:
    return ObservedCounts(START_S + at_s + late_s, partition, epoch, 0, START_S + at_s, b"")


def _reports() -> list[ObservedCounts]:
    """Partition 0 has no counts from 4 to 8 s and then another worker; partition 1 always has counts."""
    ticks = [tick / 10 for tick in range(-10, 200)]
    zero = [_report(at_s, 0, 1 if at_s < 6 else 2) for at_s in ticks if not 4 < at_s < 8]
    return sorted([*zero, *(_report(at_s, 1, 1) for at_s in ticks)], key=lambda report: report.received_s)


def test_a_silent_partition_is_a_gap() -> None:
    """A partition without counts for 4 s has one gap, attributed to the fault before it."""
    found = gaps(_reports(), 2, START_S, START_S + 20)
    assert [
        (gap.partition, round(gap.from_s - START_S, 1), round(gap.to_s - START_S, 1)) for gap in found
    ] == [(0, 4.1, 8.1)]
    fault = Fault(4.0, "kill", 1)
    assert round(recovery_s(fault, START_S + 4.0, START_S + 15.0, found), 1) == 4.1
    assert recovery_s(fault, START_S + 12.0, START_S + 15.0, found) == 0


def test_old_counts_are_not_fresh() -> None:
    """Old counts, as published while catching up, don't end a gap."""
    stale = [_report(at_s / 10, 0, 1, late_s=5.0) for at_s in range(100)]
    assert gaps(stale, 1, START_S, START_S + 15) == [Gap(0, START_S, START_S + 15)]


def test_bars_end_with_the_owner_and_with_missed_heartbeats() -> None:
    """Each span belongs to one worker, and a gap divides it."""
    found = ownership_spans(_reports(), {(0, 1): 1, (1, 1): 2, (0, 2): 3}, START_S)
    assert [(bar.partition, bar.worker) for bar in found] == [(0, 1), (0, 3), (1, 2)]


def test_load_by_the_second() -> None:
    """Messages are counted in the second in which the log received them."""
    rows = [
        LogEntry(START_S + at_s, 0, 1, "person", "a", None, LoggedFix(), 1) for at_s in (0.1, 0.9, 2.5, 99)
    ]
    assert received_per_second([PartitionLog(START_S, rows, 0)], START_S, 4) == [2, 0, 1, 0]


def test_ages_grow_while_a_partition_is_silent() -> None:
    """The age is small, grows during a gap, and falls when the partition has caught up."""
    found = [round(age_s, 1) for age_s in max_ages(_reports(), 2, START_S, 12)]
    assert max(found[:4]) < 0.5
    assert found[4:9] == [1.0, 2.0, 3.0, 4.0, 4.1]
    assert max(found[9:]) < 0.5


def _result(different: bool = False) -> ChaosResult:
    reports, comparison = _reports(), Comparison(fixes=10, counts=4)
    if different:
        comparison.differs("count", START_S + 3.0, "zone <b> & more")
    faults = [
        AppliedFault(Fault(4.0, "kill", 1), START_S + 4.0, START_S + 4.1),
        AppliedFault(Fault(5.0, "pause", 2, 3.5), START_S + 5.0, START_S + 8.5),
        AppliedFault(Fault(9.0, "full disk", 0, 3.5), START_S + 9.0, START_S + 9.0, "only root may mount"),
    ]
    rows = [LogEntry(START_S + i / 9, 0, i, "person", "a", None, LoggedFix(), i) for i in range(1, 150)]
    return ChaosResult(
        plan=ChaosPlan(42, 20.0, 2),
        partitions=2,
        start_s=START_S,
        end_s=START_S + 20.0,
        faults=faults,
        comparison=comparison,
        observed=Observations(reports),
        gaps=gaps(reports, 2, START_S, START_S + 20),
        log=[PartitionLog(START_S, rows, 0), PartitionLog(START_S, [], 0)],
        owners={(0, 1): 1, (1, 1): 2},
        sent=SendCounters(),
        hours_dropped=True,
    )


def test_the_report_needs_no_other_file() -> None:
    """The figure is well-formed and has each worker and fault, and the page refers to nothing else."""
    html = report_page(_result())
    svg = html[html.index("<svg") : html.index("</svg>") + 6]
    root = ET.fromstring(svg)  # noqa: S314 - our own
    texts = ["".join(element.itertext()).strip() for element in root.iter() if element.tag.endswith("text")]
    assert {"worker 1", "worker 2", "no fresh counts"} <= set(texts)
    assert len([e for e in root.iter() if e.get("id", "").startswith("fault-")]) == 3
    assert "skipped: only root may mount" in html
    assert not re.search(r"<script|<link|@import|src=", html)
    assert "<b>exact</b>" in html


def test_the_report_shows_differences() -> None:
    """The report of a failed test has the differences, as text."""
    html = report_page(_result(different=True))
    assert "not exact" in html
    assert "zone &lt;b&gt; &amp; more" in html
