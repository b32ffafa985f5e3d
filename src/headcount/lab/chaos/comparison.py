"""Compares all published results with the expected ones. Pure: no clock, file or socket."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from headcount.counting.totals import Totals
from headcount.lab.chaos.expected_counts import (
    I4,
    ExpectedCounts,
    ExpectedPartition,
    SiteChange,
    pseudonym_of,
    site_of,
)
from headcount.lab.chaos.independent_reader import ParquetCounts, ParquetFix, PartitionLog, PublishedEvent
from headcount.lab.chaos.observer import ObservedCounts
from headcount.lab.chaos.oracle import DAY_S, OracleEvent, known_accuracy
from headcount.messages.times import HISTORY_TICK_S
from headcount.messages.topics import KINDS

#: The history stores 7 decimals of a degree, and metres as float32.
MAX_ERROR_DEG, MAX_ACC_M = 6e-8, 1e9
#: Maximum number of differences that are described; all are counted.
MAX_DESCRIBED = 200


@dataclass(frozen=True, slots=True)
class Evidence:
    """All results of a run for one site, or of a deployment with one."""

    geojson: dict[str, Any]
    keys: dict[int, bytes]  # day → key of its pseudonyms
    settled_s: float  # everything up to here must be published and stored
    log: list[PartitionLog]
    reports: list[ObservedCounts]
    events: list[PublishedEvent]
    fixes: list[ParquetFix]
    recorded: list[ParquetCounts]
    acknowledged: dict[int, float]  # number of a QoS 1 fix → time of its PUBACK
    site_changes: list[SiteChange] = field(default_factory=list)
    from_s: float = -math.inf  # when the site was added
    until_s: float = math.inf  # when it was removed
    stored_events: list[PublishedEvent] | None = None  # of all sites, in the history; None: not compared

    def of_site(self, site: str, versions: list[tuple[float, dict[str, Any] | None]]) -> Evidence:
        """The evidence of one site, with its versions, and without the acknowledged fixes, which are of all sites."""
        (from_s, geojson), *changes = versions
        assert geojson is not None
        until_s = min((at for at, file in changes if file is None), default=math.inf)
        log = [
            PartitionLog(
                max(each.began, from_s),
                [row for row in each.rows if row.site in {site, ""} and from_s < row.received <= until_s],
                each.ticks,
            )
            for each in self.log
        ]
        return replace(
            self,
            geojson=geojson,
            settled_s=min(self.settled_s, until_s),
            log=log,
            reports=[each for each in self.reports if each.site == site],
            events=[each for each in self.events if each.site == site],
            fixes=[each for each in self.fixes if each.site == site],
            recorded=[each for each in self.recorded if each.site == site],
            acknowledged={},
            site_changes=[(at, file) for at, file in changes if file is not None],
            from_s=from_s,
            until_s=until_s,
        )


class Difference(NamedTuple):
    """A result that is wrong or missing."""

    what: str  # count, total, event, history fix, history count, log
    at: float  # Unix seconds; 0 = no particular time
    text: str


@dataclass(slots=True)
class Comparison:
    """The numbers of compared results, and the differences."""

    fixes: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    ticks: int = 0  # instants at which any partition published its counts
    counts: int = 0  # counts of a partition at an instant, published in an epoch
    totals: int = 0
    events: int = 0
    rows: int = 0  # fixes in the history
    recorded: int = 0  # counts in the history
    acknowledged: int = 0
    erasures: int = 0  # markers that a device is erased
    lost: list[int] = field(default_factory=list)  # acknowledged, but not in the log
    differences: list[Difference] = field(default_factory=list)
    different: int = 0

    def add(self, other: Comparison) -> None:
        """Add the results of another site."""
        for name in ("fixes", "ticks", "counts", "totals", "events", "rows", "recorded", "erasures"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.verdicts += other.verdicts
        self.acknowledged += other.acknowledged
        self.lost += other.lost
        self.different += other.different
        self.differences = [*self.differences, *other.differences][:MAX_DESCRIBED]

    def differs(self, what: str, at: float, text: str) -> None:
        """Record a difference."""
        self.different += 1
        if len(self.differences) < MAX_DESCRIBED:
            self.differences.append(Difference(what, at, text))


def compare_stored_events(found: Comparison, evidence: Evidence) -> None:
    """The history holds each published event of these sites once, and no other."""
    if evidence.stored_events is None:
        return
    sites = {event.site for event in evidence.events}
    stored = [event for event in evidence.stored_events if event.site in sites]
    published = {event.id: event for event in evidence.events}
    for id_, number in Counter(event.id for event in stored).items():
        if number > 1:
            found.differs("history event", 0.0, f"{id_} is stored {number} times")
    for event in stored:
        known = published.pop(event.id, None)
        if known is None or known._replace(t=event.t) != event or abs(known.t - event.t) > 1e-6:
            found.differs("history event", event.t, f"stored as {event}, published as {known}")
    for event in published.values():
        found.differs("history event", event.t, f"not stored: {event}")


def compare(evidence: Evidence, show: Callable[[float], None] = lambda _: None) -> Comparison:
    """Compare all results; `show` is called with the share that is done."""
    found = Comparison()
    truths = [
        ExpectedPartition(evidence.geojson, log, evidence.keys, evidence.site_changes, evidence.until_s)
        for log in evidence.log
    ]
    zones: dict[float, list[str]] = {}  # instant → those of the version in effect
    known: dict[float, dict[int, I4]] = {}
    due: list[list[OracleEvent]] = []
    possible: list[list[OracleEvent]] = []
    last = max([evidence.settled_s, *(report.at for report in evidence.reports)])
    for number, truth in enumerate(truths):
        published = _by_instant(evidence.reports, number)
        instants = sorted({*published, *_recorded_instants(evidence), evidence.settled_s})
        for at in instants:
            if at > evidence.settled_s and len(due) == number:
                due.append(list(truth.events))
            expected = truth.at(at)
            for report in published.get(at, ()):
                if not evidence.from_s < report.at <= evidence.until_s:
                    found.differs("count", report.at, "the site was not counted then")
                _compare_count(found, report, expected)
            zones[at] = expected.zones
            known.setdefault(at, {})[number] = expected.values
        if len(due) == number:
            due.append(list(truth.events))
        truth.advance(last + 60)
        possible.append(list(truth.events))
        found.verdicts.update(verdict for _, verdict in truth.verdicts.values())
        show((number + 1) / len(truths))
    found.fixes = found.verdicts.total()
    found.erasures = sum(truth.erasures for truth in truths)
    found.ticks = len({report.at for report in evidence.reports})
    _compare_totals(found, evidence, known, zones)
    _compare_events(found, evidence, due, possible)
    _compare_fixes(found, evidence, truths)
    _compare_recorded(found, evidence, known, zones)
    compare_acknowledged(found, evidence)
    _check_senders(found, evidence.log)
    return found


def compare_acknowledged(found: Comparison, evidence: Evidence) -> None:
    """Acknowledged fixes must be in the log, which is compared with the history elsewhere."""
    there = {row.number for log in evidence.log for row in log.rows}
    found.acknowledged = len(evidence.acknowledged)
    found.lost = sorted(number for number in evidence.acknowledged if number not in there)


def _by_instant(reports: list[ObservedCounts], partition: int) -> dict[float, list[ObservedCounts]]:
    found: dict[float, list[ObservedCounts]] = {}
    for report in reports:
        if report.partition == partition:
            found.setdefault(report.at, []).append(report)
    return found


def _recorded_instants(evidence: Evidence) -> set[float]:
    """The instants of the history's counts: the stored and the required ones."""
    return {row.at for row in evidence.recorded} | set(_required_instants(evidence))


def _required_instants(evidence: Evidence) -> Iterator[float]:
    """The multiples of 10 s at which all partitions were being counted."""
    began = max(log.began for log in evidence.log) + 0.2
    if math.isfinite(began):
        for step in range(
            math.ceil(began / HISTORY_TICK_S), math.floor(evidence.settled_s / HISTORY_TICK_S) + 1
        ):
            yield step * HISTORY_TICK_S


def _compare_count(found: Comparison, report: ObservedCounts, expected: ExpectedCounts) -> None:
    found.counts += 1
    where = f"partition {report.partition}, epoch {report.epoch}"
    if report.values != expected.values.astype("<i4").tobytes():
        published = np.frombuffer(report.values, "<i4")
        if published.size != expected.values.size:
            found.differs(
                "count", report.at, f"{where}: {published.size} numbers, expected {expected.values.size}"
            )
        else:
            found.differs(
                "count",
                report.at,
                f"{where}: {_first(published.reshape(expected.values.shape), expected.values, expected.zones)}",
            )
    elif expected.first_not_in and report.seq >= expected.first_not_in:
        found.differs(
            "count", report.at, f"{where}: claims to include {report.seq}, which was received later"
        )


def _first(published: I4, expected: I4, zones: list[str]) -> str:
    places = np.argwhere((published != expected).any(axis=2)).tolist()
    zone, kind = places[0]
    return (
        f"{zones[zone]} {KINDS[kind]}: {published[zone, kind].tolist()}, by the rules "
        f"{expected[zone, kind].tolist()} (count, low, high, stale); {len(places)} such numbers"
    )


def _compare_totals(
    found: Comparison,
    evidence: Evidence,
    known: dict[float, dict[int, I4]],
    zones: dict[float, list[str]],
) -> None:
    """Sum up like the API and the MQTT publisher, in the order of receipt."""
    totals = Totals(len(evidence.log))
    for report in evidence.reports:
        values = np.frombuffer(report.values, "<i4")
        if values.size != len(zones[report.at]) * 8:
            continue  # recorded already
        shaped = values.reshape(-1, 2, 4).astype(np.int32)
        for total in totals.add(report.partition, report.epoch, report.at, shaped, report.site_version):
            found.totals += 1
            expected = sum(known[total.at].values(), np.zeros_like(total.values))
            if not np.array_equal(total.values, expected):
                found.differs("total", total.at, _first(total.values, expected, zones[total.at]))


def _compare_events(
    found: Comparison, evidence: Evidence, due: list[list[OracleEvent]], possible: list[list[OracleEvent]]
) -> None:
    """Each due event must be there once, and no impossible one.

    Some partitions keep counting for a moment after the end, so events of that time are possible but not due.
    """
    site = site_of(evidence.geojson)
    must = Counter(_public(site, evidence.keys, event) for events in due for event in events)
    may = Counter(_public(site, evidence.keys, event) for events in possible for event in events)
    got = Counter((e.zone, e.type, e.kind, e.device, e.t, e.reason) for e in evidence.events)
    found.events = len(evidence.events)
    for event in must - got:
        found.differs("event", event[4], f"missing: {event}")
    for event in got - may:
        found.differs("event", event[4], f"impossible: {event}")
    ids = Counter(event.id for event in evidence.events)
    for name, times in ids.items():
        if times > 1:
            found.differs("event", 0, f"{times} events have the id {name}")


def _public(site: str, keys: dict[int, bytes], event: OracleEvent) -> tuple[str, str, str, str, float, str]:
    device = pseudonym_of(site, event.kind, event.device, keys[event.day])
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
        for seq, (entry, verdict) in truth.verdicts.items():
            due = entry.received <= evidence.settled_s and truth.is_stored(seq)
            if due and (partition, seq) not in times:
                found.differs("history fix", entry.received, f"missing: {entry}, {verdict}")


def _problem(row: ParquetFix, truths: list[ExpectedPartition], keys: dict[int, bytes]) -> str:
    if not 0 <= row.partition < len(truths) or row.seq not in truths[row.partition].verdicts:
        return "no such fix in the log"
    entry, verdict = truths[row.partition].verdicts[row.seq]
    if (row.kind, row.verdict) != (entry.kind, verdict) or not truths[row.partition].is_stored(row.seq):
        return f"by the rules {entry.kind} {verdict}, stored: {truths[row.partition].is_stored(row.seq)}"
    if row.device != pseudonym_of(
        truths[0].site, entry.kind, entry.device, keys[int(entry.received // DAY_S)]
    ):
        return "has another pseudonym than that of the day on which it was received"
    acc = known_accuracy(entry.fix.acc) or 0.0
    there = abs(row.lat - entry.fix.lat) <= MAX_ERROR_DEG and abs(row.lon - entry.fix.lon) <= MAX_ERROR_DEG
    if not there or row.acc != float(np.float32(min(acc, MAX_ACC_M))):
        return f"the log has {entry.fix}"
    return ""


def _compare_recorded(
    found: Comparison,
    evidence: Evidence,
    known: dict[float, dict[int, I4]],
    zones: dict[float, list[str]],
) -> None:
    found.recorded = len(evidence.recorded)
    must = set(_required_instants(evidence))
    rows: Counter[tuple[float, str]] = Counter()
    for row in evidence.recorded:
        rows[row.at, row.zone] += 1
        if row.partitions < row.partitions_total:
            if row.at in must:
                found.differs("history count", row.at, f"has only {row.partitions} partitions: {row}")
            continue
        if row.partitions > row.partitions_total:
            found.differs("history count", row.at, f"is stored more than once: {row}")
            continue
        if row.zone not in zones[row.at]:
            found.differs("history count", row.at, f"no such zone: {row}")
            continue
        expected = sum(values[zones[row.at].index(row.zone)] for values in known[row.at].values())
        if not np.array_equal(np.array(row.numbers), expected):
            found.differs(
                "history count",
                row.at,
                f"{row.zone}: {row.numbers}, by the rules {np.asarray(expected).tolist()}",
            )
    for at in must:
        for zone in zones[at]:
            if not rows[at, zone]:
                found.differs("history count", at, f"{zone} is missing")
    for (at, zone), times in rows.items():
        if times > 1:
            found.differs("history count", at, f"{zone} is there {times} times")


def _check_senders(found: Comparison, logs: list[PartitionLog]) -> None:
    """All messages of a device must be in one partition, and each stream must be in order of time."""
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
