"""The comparison finds each kind of wrong result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headcount.lab.chaos.comparison import Comparison, Evidence, compare, compare_stored_events
from headcount.lab.chaos.expected_counts import ExpectedPartition, pseudonym_of
from headcount.lab.chaos.independent_reader import (
    LogEntry,
    LoggedFix,
    ParquetCounts,
    ParquetFix,
    PartitionLog,
    PublishedEvent,
    decode_fix,
)
from headcount.lab.chaos.observer import ObservedCounts
from headcount.lab.chaos.oracle import known_accuracy
from headcount.lab.chaos.short_holds import short_hold_scenario, short_hold_versions
from headcount.lab.chaos.traffic import traffic
from headcount.messages.topics import partition_of

SEED, PARTITIONS, SECONDS, START_S = 1, 2, 30.0, 1_790_000_000
TODAY = START_S // 86_400
KEYS = {TODAY: b"a key for tests", TODAY + 1: b"another"}
#: The devices that are erased ten and twenty seconds after the start.
FORGOTTEN = (("person", "d1", 10.0), ("person", "d2", 20.0), ("vehicle", "d4", 20.0))


def _log() -> list[PartitionLog]:
    rows: list[list[LogEntry]] = [[] for _ in range(PARTITIONS)]
    for say in traffic(SEED, short_hold_scenario(SEED), SECONDS, [20.0]):
        number = partition_of("campus", say.device, PARTITIONS)
        payload, seq = say.payload(START_S), len(rows[number]) + 1
        fix, name = decode_fix(payload)
        rows[number].append(
            LogEntry(START_S + say.at_s + 0.01, number, seq, say.kind, say.device, say.status, fix, name)
        )
    for kind, device, at_s in FORGOTTEN:
        own = rows[partition_of("campus", device, PARTITIONS)]
        names = {day: pseudonym_of("campus", kind, device, key) for day, key in KEYS.items()}
        marker = LogEntry(START_S + at_s, own[0].partition, 0, kind, "", None, LoggedFix(), 0, names)
        own.append(marker)
    ordered = [sorted(own, key=lambda row: row.received) for own in rows]
    return [
        PartitionLog(START_S, [row._replace(seq=seq) for seq, row in enumerate(own, 1)], 0) for own in ordered
    ]


@pytest.fixture(scope="module")
def honest() -> Evidence:
    """The evidence of a correct system."""
    geojson, log = short_hold_scenario(SEED).geojson, _log()
    first, second = short_hold_versions(SEED, 2)
    changes = [(START_S + 8.3, first), (START_S + 20.0, second)]
    truths = [ExpectedPartition(geojson, own, KEYS, changes) for own in log]
    reports, recorded = [], []
    for tick in range(1, int(SECONDS) * 10 + 20):
        at = (START_S * 10 + tick) / 10
        expected = [truth.at(at) for truth in truths]
        values, zones = [each.values for each in expected], expected[0].zones
        for number, truth in enumerate(truths):
            done = [row.seq for row in truth.log.rows if row.received <= at]
            reports.append(
                ObservedCounts(
                    at + 0.1,
                    number,
                    1,
                    done[-1] if done else 0,
                    at,
                    values[number].astype("<i4").tobytes(),
                    1 + sum(change_s <= at for change_s, _ in changes),
                )
            )
        if tick % 100 == 0:
            total = sum(values, np.zeros_like(values[0])).tolist()
            recorded += [
                ParquetCounts(at, zone, tuple(map(tuple, numbers)), PARTITIONS, PARTITIONS)
                for zone, numbers in zip(zones, total, strict=True)
            ]
    events = [
        PublishedEvent(
            f"id{number}-{i}",
            e.zone,
            e.type,
            e.kind,
            pseudonym_of("campus", e.kind, e.device, KEYS[e.day]),
            e.t,
            e.reason,
        )
        for number, truth in enumerate(truths)
        for i, e in enumerate(truth.events)
    ]
    fixes = [
        ParquetFix(
            number,
            seq,
            pseudonym_of("campus", row.kind, row.device, KEYS[TODAY]),
            row.kind,
            verdict,
            row.fix.lat,
            row.fix.lon,
            float(np.float32(known_accuracy(row.fix.acc) or 0.0)),
        )
        for number, truth in enumerate(truths)
        for seq, (row, verdict) in truth.verdicts.items()
        if truth.is_stored(seq)
    ]
    acknowledged = {row.number: row.received for own in log for row in own.rows if row.number % 2}
    return Evidence(geojson, KEYS, at, log, reports, events, fixes, recorded, acknowledged, changes)


def test_a_correct_system_has_no_differences(honest: Evidence) -> None:
    """A correct system has no differences, and everything is compared."""
    found = compare(honest)
    assert found.differences == []
    assert found.lost == []
    assert found.counts == len(honest.reports) > 600
    assert found.totals == found.ticks == len(honest.reports) // PARTITIONS
    assert found.events == len(honest.events) > 100
    assert found.rows == len(honest.fixes) > 100
    assert found.recorded == len(honest.recorded) > 0
    assert found.acknowledged > 100
    assert found.fixes > 2000
    assert found.erasures == len(FORGOTTEN)


def _wrong_count(honest: Evidence) -> Evidence:
    values = np.frombuffer(honest.reports[300].values, "<i4").copy()
    values[0] += 1
    reports = list(honest.reports)
    reports[300] = replace(reports[300], values=values.tobytes())
    return replace(honest, reports=reports)


def _zombie(honest: Evidence) -> Evidence:
    old = honest.reports[200]
    stale = replace(old, at=honest.reports[500].at, partition=old.partition, epoch=0)
    return replace(honest, reports=[*honest.reports, stale])


def _later_sequence(honest: Evidence) -> Evidence:
    reports = list(honest.reports)
    reports[300] = replace(reports[300], seq=reports[300].seq + 1)
    return replace(honest, reports=reports)


def _yesterdays_name(honest: Evidence) -> Evidence:
    fixes = list(honest.fixes)
    said = next(row for row in honest.log[fixes[7].partition].rows if row.seq == fixes[7].seq)
    fixes[7] = fixes[7]._replace(device=pseudonym_of("campus", said.kind, said.device, KEYS[TODAY + 1]))
    return replace(honest, fixes=fixes)


def _no_erasures(honest: Evidence) -> Evidence:
    log = [
        own._replace(rows=[row for row in own.rows if row.forget is None or row.forget[TODAY] != name])
        for name in [pseudonym_of("campus", "person", "d1", KEYS[TODAY])]
        for own in honest.log
    ]
    return replace(honest, log=log)


def _swapped_verdict(honest: Evidence) -> Evidence:
    index = next(i for i, row in enumerate(honest.fixes) if row.verdict == "late")
    fixes = list(honest.fixes)
    fixes[index] = fixes[index]._replace(verdict="accepted")
    return replace(honest, fixes=fixes)


LIES: dict[str, tuple[str, Callable[[Evidence], Evidence]]] = {
    "a wrong count": ("count", _wrong_count),
    "an old count of an older epoch": ("count", _zombie),
    "a count that claims more": ("count", _later_sequence),
    "a missing event": ("event", lambda e: replace(e, events=e.events[:50] + e.events[51:])),
    "an event twice": ("event", lambda e: replace(e, events=[*e.events, e.events[7]])),
    "an event of nobody": (
        "event",
        lambda e: replace(e, events=[*e.events, e.events[7]._replace(id="x", t=1.0)]),
    ),
    "another reason": (
        "event",
        lambda e: replace(e, events=[e.events[0]._replace(reason="removed"), *e.events[1:]]),
    ),
    "a missing row": ("history fix", lambda e: replace(e, fixes=e.fixes[1:])),
    "a row twice": ("history fix", lambda e: replace(e, fixes=[*e.fixes, e.fixes[3]])),
    "a row of nobody": (
        "history fix",
        lambda e: replace(e, fixes=[*e.fixes, e.fixes[3]._replace(seq=10**9)]),
    ),
    "a row elsewhere": (
        "history fix",
        lambda e: replace(e, fixes=[e.fixes[0]._replace(lat=e.fixes[0].lat + 2e-7), *e.fixes[1:]]),
    ),
    "a row under the name of another day": ("history fix", _yesterdays_name),
    "another verdict": ("history fix", _swapped_verdict),
    "a missing history count": ("history count", lambda e: replace(e, recorded=e.recorded[1:])),
    "a history count twice": ("history count", lambda e: replace(e, recorded=[*e.recorded, e.recorded[0]])),
    "a wrong history count": (
        "history count",
        lambda e: replace(e, recorded=[e.recorded[0]._replace(numbers=((9, 9, 9, 9),) * 2), *e.recorded[1:]]),
    ),
    "an incomplete history count": (
        "history count",
        lambda e: replace(e, recorded=[e.recorded[0]._replace(partitions=1), *e.recorded[1:]]),
    ),
}


def test_an_erasure_without_a_marker_is_found(honest: Evidence) -> None:
    """An erasure without a marker is found by its event and by later counts."""
    found = compare(_no_erasures(honest))
    assert any("'removed'" in one.text for one in found.differences if one.what == "event")


@pytest.mark.parametrize("name", LIES)
def test_each_error_is_found(honest: Evidence, name: str) -> None:
    """Each injected error is reported by its type."""
    what, error = LIES[name]
    found = compare(error(honest))
    assert found.different >= 1
    assert {difference.what for difference in found.differences} <= {what, "total"}
    assert any(difference.what == what for difference in found.differences)


def test_an_acknowledged_fix_that_is_not_logged_is_lost(honest: Evidence) -> None:
    """An acknowledged fix that isn't in the log is reported as lost."""
    found: Comparison = compare(replace(honest, acknowledged=honest.acknowledged | {10**7: 0.0}))
    assert found.lost == [10**7]
    assert not found.different


def _of_a_site(evidence: Evidence, from_s: float, until_s: float) -> Evidence:
    """The evidence of a system that counts a site all the time, which is added and removed."""
    log = [own._replace(rows=[row._replace(site="campus") for row in own.rows]) for own in evidence.log]
    named = replace(
        evidence,
        log=log,
        reports=[replace(report, site="campus") for report in evidence.reports],
        events=[event._replace(site="campus") for event in evidence.events],
        fixes=[fix._replace(site="campus") for fix in evidence.fixes],
        recorded=[row._replace(site="campus") for row in evidence.recorded],
    )
    versions: list[tuple[float, dict[str, Any] | None]] = [(from_s, evidence.geojson), *evidence.site_changes]
    if math.isfinite(until_s):
        versions.append((until_s, None))
    return named.of_site("campus", versions)


def test_what_is_of_other_sites_is_left_out(honest: Evidence) -> None:
    """A site that was there from the start to the end is compared as if it were alone."""
    found = compare(_of_a_site(honest, -math.inf, math.inf))
    assert found.differences == []
    assert found.fixes > 2000
    other = honest.of_site("other", [(-math.inf, honest.geojson)])
    assert not [*other.reports, *other.events, *other.fixes, *other.recorded]


@pytest.mark.parametrize(("from_s", "until_s"), [(START_S + 5.0, math.inf), (-math.inf, START_S + 22.0)])
def test_counting_a_site_before_it_is_added_or_after_it_is_removed_is_found(
    honest: Evidence, from_s: float, until_s: float
) -> None:
    """Counts, events and rows of the time in which the deployment has no such site are wrong."""
    evidence = _of_a_site(honest, from_s, until_s)
    assert "the site was not counted then" in {each.text for each in compare(evidence).differences}
    assert {each.what for each in compare(replace(evidence, reports=[])).differences} >= {"event"}
    times = {(row.partition, row.seq) for own in evidence.log for row in own.rows}
    assert not {(row.partition, row.seq) for row in evidence.fixes} <= times  # rows without a fix are found


def test_stored_events_are_compared(honest: Evidence) -> None:
    """An event that is missing, stored twice, changed or made up is found; those of other sites are left out."""
    events = [event._replace(site="campus") for event in honest.events[:10]]
    evidence = replace(honest, events=events)
    first, second, *rest = events
    changed, made_up = second._replace(zone="another"), second._replace(id="0" * 24)
    of_another = second._replace(id="1" * 24, site="another")
    for stored, different in (
        ([*events, of_another], 0),
        (events[1:], 1),
        ([*events, first], 2),
        ([first, changed, *rest], 1),
        ([*events, made_up], 1),
    ):
        found = Comparison()
        compare_stored_events(found, replace(evidence, stored_events=stored))
        assert found.different == different
