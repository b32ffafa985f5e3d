"""Everything that the system said against what it must have said. Pure: no clock, no file, no socket."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from headcount.counting.totals import Totals
from headcount.lab.chaos.expected_counts import I4, ExpectedCounts, ExpectedPartition, name_of
from headcount.lab.chaos.independent_reader import ParquetCounts, ParquetFix, PartitionLog, PublishedEvent
from headcount.lab.chaos.observer import ObservedCounts
from headcount.lab.chaos.oracle import DAY_S, OracleEvent
from headcount.messages.times import HISTORY_TICK_S
from headcount.messages.topics import KINDS

#: Verdicts whose fixes are kept in the history.
KEPT = frozenset({"accepted", "inaccurate", "late", "out_of_order"})
#: The history has 7 decimals of a degree and a float32 of metres.
DEGREES_OFF, MOST_ACC_M = 6e-8, 1e9
#: Differences beyond so many are counted only.
SHOWN = 200


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a run left."""

    geojson: dict[str, Any]
    keys: dict[int, bytes]  # of the days' names
    settled_s: float  # everything up to here must have been told and stored
    log: list[PartitionLog]
    reports: list[ObservedCounts]
    events: list[PublishedEvent]
    fixes: list[ParquetFix]
    recorded: list[ParquetCounts]
    acknowledged: dict[int, float]  # number of a QoS 1 fix → when its PUBACK came


class Difference(NamedTuple):
    """Something that was said and is wrong, or wasn't and should have been."""

    what: str  # count, total, event, history fix, history count, log
    at: float  # Unix seconds; 0 = no particular moment
    text: str


@dataclass(slots=True)
class Comparison:
    """How much was compared, and what differed."""

    fixes: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    ticks: int = 0  # instants at which some partition told its counts
    counts: int = 0  # counts of a partition at an instant, by some epoch
    totals: int = 0
    events: int = 0
    rows: int = 0  # fixes in the history
    recorded: int = 0  # counts in the history
    acknowledged: int = 0
    forgotten: int = 0  # markers that somebody is to be forgotten
    lost: list[int] = field(default_factory=list)  # acknowledged, but not in the log
    differences: list[Difference] = field(default_factory=list)
    different: int = 0

    def differs(self, what: str, at: float, text: str) -> None:
        """Note a difference."""
        self.different += 1
        if len(self.differences) < SHOWN:
            self.differences.append(Difference(what, at, text))


def compare(evidence: Evidence, tell: Callable[[float], None] = lambda _: None) -> Comparison:
    """Compare everything; `tell` hears the share that is done."""
    found = Comparison()
    truths = [ExpectedPartition(evidence.geojson, log, evidence.keys) for log in evidence.log]
    zones = list(truths[0].zones)
    known: dict[float, dict[int, I4]] = {}
    due: list[list[OracleEvent]] = []
    possible: list[list[OracleEvent]] = []
    last = max([evidence.settled_s, *(report.at for report in evidence.reports)])
    for number, truth in enumerate(truths):
        told = _by_instant(evidence.reports, number)
        instants = sorted({*told, *_recorded_instants(evidence), evidence.settled_s})
        for at in instants:
            if at > evidence.settled_s and len(due) == number:
                due.append(list(truth.events))
            true = truth.at(at)
            for report in told.get(at, ()):
                _compare_count(found, report, true, zones)
            known.setdefault(at, {})[number] = true.values
        if len(due) == number:
            due.append(list(truth.events))
        truth.advance(last + 60)
        possible.append(list(truth.events))
        found.verdicts.update(verdict for _, verdict in truth.verdicts.values())
        tell((number + 1) / len(truths))
    found.fixes = found.verdicts.total()
    found.forgotten = sum(truth.forgotten for truth in truths)
    found.ticks = len({report.at for report in evidence.reports})
    _compare_totals(found, evidence, known, zones)
    _compare_events(found, evidence, due, possible)
    _compare_fixes(found, evidence, truths)
    _compare_recorded(found, evidence, known, zones)
    _compare_acknowledged(found, evidence)
    _check_senders(found, evidence.log)
    return found


def _by_instant(reports: list[ObservedCounts], partition: int) -> dict[float, list[ObservedCounts]]:
    found: dict[float, list[ObservedCounts]] = {}
    for report in reports:
        if report.partition == partition:
            found.setdefault(report.at, []).append(report)
    return found


def _recorded_instants(evidence: Evidence) -> set[float]:
    """The instants of the history's counts: those that are there, and those that must be."""
    return {row.at for row in evidence.recorded} | set(_must_be_recorded(evidence))


def _must_be_recorded(evidence: Evidence) -> Iterator[float]:
    """The multiples of 10 s at which all partitions were counted already."""
    began = max(log.began for log in evidence.log) + 0.2
    if math.isfinite(began):
        for step in range(
            math.ceil(began / HISTORY_TICK_S), math.floor(evidence.settled_s / HISTORY_TICK_S) + 1
        ):
            yield step * HISTORY_TICK_S


def _compare_count(found: Comparison, report: ObservedCounts, true: ExpectedCounts, zones: list[str]) -> None:
    found.counts += 1
    where = f"partition {report.partition}, epoch {report.epoch}"
    if report.values != true.values.astype("<i4").tobytes():
        told = np.frombuffer(report.values, "<i4")
        if told.size != true.values.size:
            found.differs("count", report.at, f"{where}: {told.size} numbers, expected {true.values.size}")
        else:
            found.differs(
                "count", report.at, f"{where}: {_first(told.reshape(true.values.shape), true.values, zones)}"
            )
    elif true.first_not_in and report.seq >= true.first_not_in:
        found.differs("count", report.at, f"{where}: says it counts up to {report.seq}, which came later")


def _first(told: I4, true: I4, zones: list[str]) -> str:
    places = np.argwhere((told != true).any(axis=2)).tolist()
    zone, kind = places[0]
    return (
        f"{zones[zone]} {KINDS[kind]}: {told[zone, kind].tolist()}, by the rules "
        f"{true[zone, kind].tolist()} (count, low, high, stale); {len(places)} such numbers"
    )


def _compare_totals(
    found: Comparison, evidence: Evidence, known: dict[float, dict[int, I4]], zones: list[str]
) -> None:
    """Sum up as API and MQTT publisher do, in the order in which reports came."""
    totals = Totals(len(evidence.log), len(zones))
    for report in evidence.reports:
        values = np.frombuffer(report.values, "<i4")
        if values.size != len(zones) * 8:
            continue  # noted already
        shaped = values.reshape(-1, 2, 4).astype(np.int32)
        for total in totals.add(report.partition, report.epoch, report.at, shaped):
            found.totals += 1
            true = sum(known[total.at].values(), np.zeros_like(total.values))
            if not np.array_equal(total.values, true):
                found.differs("total", total.at, _first(total.values, true, zones))


def _compare_events(
    found: Comparison, evidence: Evidence, due: list[list[OracleEvent]], possible: list[list[OracleEvent]]
) -> None:
    """All that is due must be there once, and nothing that isn't possible.

    After the end some partitions went on counting for a moment: what falls silent then may be there.
    """
    must = Counter(_public(evidence.keys, event) for events in due for event in events)
    may = Counter(_public(evidence.keys, event) for events in possible for event in events)
    got = Counter((e.zone, e.type, e.kind, e.device, e.t, e.reason) for e in evidence.events)
    found.events = len(evidence.events)
    for event in must - got:
        found.differs("event", event[4], f"is missing: {event}")
    for event in got - may:
        found.differs("event", event[4], f"should not be: {event}")
    ids = Counter(event.id for event in evidence.events)
    for name, times in ids.items():
        if times > 1:
            found.differs("event", 0, f"{times} events have the id {name}")


def _public(keys: dict[int, bytes], event: OracleEvent) -> tuple[str, str, str, str, float, str]:
    device = name_of(event.kind, event.device, keys[event.day])
    return event.zone, event.type, event.kind, device, event.t, event.reason


def _compare_fixes(found: Comparison, evidence: Evidence, truths: list[ExpectedPartition]) -> None:
    found.rows = len(evidence.fixes)
    times = Counter((row.partition, row.seq) for row in evidence.fixes)
    for name, number in times.items():
        if number > 1:
            found.differs("history fix", 0, f"(partition, sequence) {name} is there {number} times")
    for row in evidence.fixes:
        problem = _problem(row, truths, evidence.keys)
        if problem:
            found.differs("history fix", 0, f"{row}: {problem}")
    for partition, truth in enumerate(truths):
        for seq, (said, verdict) in truth.verdicts.items():
            if verdict in KEPT and said.received <= evidence.settled_s and (partition, seq) not in times:
                found.differs("history fix", said.received, f"is missing: {said}, {verdict}")


def _problem(row: ParquetFix, truths: list[ExpectedPartition], keys: dict[int, bytes]) -> str:
    if not 0 <= row.partition < len(truths) or row.seq not in truths[row.partition].verdicts:
        return "no such fix in the log"
    said, verdict = truths[row.partition].verdicts[row.seq]
    if (row.kind, row.verdict) != (said.kind, verdict) or verdict not in KEPT:
        return f"by the rules {said.kind} {verdict}"
    if row.device != name_of(said.kind, said.device, keys[int(said.received // DAY_S)]):
        return "is told under another name than that of the day on which it was received"
    acc = said.fix.acc if isinstance(said.fix.acc, int | float) and said.fix.acc > 0 else 0.0
    there = abs(row.lat - said.fix.lat) <= DEGREES_OFF and abs(row.lon - said.fix.lon) <= DEGREES_OFF
    if not there or row.acc != float(np.float32(min(acc, MOST_ACC_M))):
        return f"the log says {said.fix}"
    return ""


def _compare_recorded(
    found: Comparison, evidence: Evidence, known: dict[float, dict[int, I4]], zones: list[str]
) -> None:
    found.recorded = len(evidence.recorded)
    must = set(_must_be_recorded(evidence))
    places = {zone: index for index, zone in enumerate(zones)}
    rows: Counter[tuple[float, str]] = Counter()
    for row in evidence.recorded:
        rows[row.at, row.zone] += 1
        if row.partitions < row.partitions_total:
            if row.at in must:
                found.differs("history count", row.at, f"has {row.partitions} partitions only: {row}")
            continue
        if row.zone not in places:
            found.differs("history count", row.at, f"no such zone: {row}")
            continue
        true = sum(values[places[row.zone]] for values in known[row.at].values())
        if not np.array_equal(np.array(row.numbers), true):
            found.differs(
                "history count",
                row.at,
                f"{row.zone}: {row.numbers}, by the rules {np.asarray(true).tolist()}",
            )
    for at in must:
        for zone in zones:
            if not rows[at, zone]:
                found.differs("history count", at, f"{zone} is missing")
    for (at, zone), times in rows.items():
        if times > 1:
            found.differs("history count", at, f"{zone} is there {times} times")


def _compare_acknowledged(found: Comparison, evidence: Evidence) -> None:
    """Whatever is in the log has been compared with the history already."""
    there = {row.number for log in evidence.log for row in log.rows}
    found.acknowledged = len(evidence.acknowledged)
    found.lost = sorted(number for number in evidence.acknowledged if number not in there)


def _check_senders(found: Comparison, logs: list[PartitionLog]) -> None:
    """All that a device ever said is in one partition, and each stream is in order of time."""
    where: dict[str, int] = {}
    for number, log in enumerate(logs):
        before = -math.inf
        for row in log.rows:
            if row.forget is None and where.setdefault(row.device, number) != number:
                found.differs(
                    "log", row.received, f"{row.device} is in partitions {where[row.device]}, {number}"
                )
            if row.received < before:
                found.differs("log", row.received, f"partition {number} goes back in time at {row.seq}")
            before = row.received
