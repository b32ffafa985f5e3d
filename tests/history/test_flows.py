"""Stays and flows equal those of their definitions."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flow_oracle as oracle
from flow_oracle import US
from headcount.history.flows import MAX_CELLS, UNKNOWN, flows, needed_from_s
from headcount.history.stays import Stay, ZoneEvent, stays

#: 2026-11-24T00:00:00Z
DAY_S = 1_795_478_400.0


def event(t_s: float, zone: str, type_: str, device: str = "a", kind: str = "person") -> ZoneEvent:
    """An event on the site `ul`."""
    return ZoneEvent("ul", kind, device, round(t_s * US), zone, type_ == "enter", "moved")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.2]))
def test_flows_of_every_hour_equal_the_definition(seed: int, lost: float) -> None:
    """Across hours, midnights, sites and lost events, from no more events than an hour needs."""
    rng = random.Random(seed)
    events = oracle.walk(rng, start_s=DAY_S - 4 * 3600, hours=34, lost=lost)
    occurrences = oracle.occurrences(events)
    for hour in range(-4, 30):
        hour_s = DAY_S + hour * 3600
        needed = [e for e in events if needed_from_s(hour_s) * US <= e.t_us < (hour_s + 3600) * US]
        expected = oracle.flows_of(occurrences, hour_s)
        found = {tuple(cell): tuple(numbers) for cell, numbers in flows(needed, hour_s).items()}
        assert {cell: n for cell, (n, _) in found.items()} == {cell: n for cell, (n, _) in expected.items()}
        for cell, (_, people) in expected.items():
            assert found[cell][1] <= people


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_people_are_pseudonyms_in_a_cell_for_the_first_time(seed: int) -> None:
    """Where no device is in more than MAX_CELLS cells of a table a day, all are counted."""
    rng = random.Random(seed)
    events = oracle.walk(rng, start_s=DAY_S, hours=3, devices=20)
    cells = {(d, c[2], c, t // oracle.HOUR_US) for t, d, c in oracle.occurrences(events)}
    used = Counter((d, table) for d, table, _, _ in cells)
    events = [
        e
        for e in events
        if all(used[e.device, t] <= MAX_CELLS for t in ("arrivals", "departures", "dwell", "trips"))
    ]
    occurrences = oracle.occurrences(events)
    for hour in range(3):
        hour_s = DAY_S + hour * 3600
        found = {tuple(cell): tuple(numbers) for cell, numbers in flows(events, hour_s).items()}
        assert found == oracle.flows_of(occurrences, hour_s)


def test_one_person_changes_a_bounded_number_of_cells_by_one() -> None:
    """A device in 40 zones a day adds 1 to MAX_CELLS cells of each table, however often it comes back."""
    events = []
    for i in range(400):
        t_s = DAY_S + 10 + i * 200
        events += [event(t_s, f"z{i % 40}", "enter"), event(t_s + 100, f"z{i % 40}", "exit")]
    people: Counter[tuple[str, str]] = Counter()
    for hour in range(24):
        for cell, numbers in flows(events, DAY_S + hour * 3600).items():
            assert numbers.people <= 1
            people[cell.table, "a"] += numbers.people
    assert set(people.values()) == {MAX_CELLS}


def test_arrivals_less_departures_are_the_change_of_the_count() -> None:
    """Without lost events, the count at the end of an hour follows from the one before."""
    events = oracle.walk(random.Random(4), start_s=DAY_S, hours=5, lost=0.0)
    for hour in range(5):
        from_s = DAY_S + hour * 3600
        change: Counter[tuple[str, str, str]] = Counter()
        for cell, (number, _) in flows(events, from_s).items():
            if cell.table in ("arrivals", "departures"):
                change[cell.site, cell.kind, cell.zone] += number if cell.table == "arrivals" else -number
        expected: Counter[tuple[str, str, str]] = Counter()
        for e in events:
            if from_s * US <= e.t_us < (from_s + 3600) * US:
                expected[e.site, e.kind, e.zone] += 1 if e.is_enter else -1
        assert {k: v for k, v in change.items() if v} == {k: v for k, v in expected.items() if v}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.2]))
def test_stays_equal_the_definition(seed: int, lost: float) -> None:
    """Each exit ends one stay, and each enter event without an exit before the next one is left open."""
    events = oracle.walk(random.Random(seed), start_s=DAY_S, hours=30, lost=lost)
    expected: Counter[tuple[tuple[str, str, str], str, int | None, int | None]] = Counter(
        (e[:3], e.zone, oracle.since(e, events), e.t_us) for e in events if not e.is_enter
    )
    ended = {(device, zone, began) for device, zone, began, _ in expected}
    expected.update(
        (e[:3], e.zone, e.t_us, None) for e in events if e.is_enter and (e[:3], e.zone, e.t_us) not in ended
    )
    found = Counter(((s.site, s.kind, s.device), s.zone, s.from_us, s.to_us) for s in stays(events))
    assert found == expected


def test_a_stay_over_midnight_has_an_unknown_length() -> None:
    """The pseudonym changes at 00:00 UTC: one stay without an end, one without a beginning, no dwell time."""
    events = [event(DAY_S - 600, "lib", "enter", "old"), event(DAY_S + 600, "lib", "exit", "new")]
    assert stays(events) == [
        Stay("ul", "lib", "person", "new", None, round((DAY_S + 600) * US), "moved"),
        Stay("ul", "lib", "person", "old", round((DAY_S - 600) * US), None, None),
    ]
    found = flows(events, DAY_S)
    assert [cell.other for cell in found if cell.table == "dwell"] == [UNKNOWN]


@pytest.mark.parametrize("present", [True, False])
def test_an_exit_and_an_arrival_at_one_instant(present: bool) -> None:
    """A device that was inside leaves and comes back; one that was not stays for no time."""
    before = [event(DAY_S, "lib", "enter")] if present else []
    both = [event(DAY_S + 90, "lib", "exit"), event(DAY_S + 90, "lib", "enter")]
    found = [(s.from_us, s.to_us) for s in stays(before + both)]
    start, at = round(DAY_S * US), round((DAY_S + 90) * US)
    assert found == ([(start, at), (at, None)] if present else [(at, at)])
