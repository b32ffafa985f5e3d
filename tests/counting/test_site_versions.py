"""Rule 6: a site changes while it is counted."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from counting.running import CountQuery, Runner, SiteChange, by_engine, by_oracle, compare, count_queries
from counting.test_explain import traced
from counting.walks import FIX, FORGET, STEP_S, Message, walk
from headcount.counting.explain import Explainer
from headcount.counting.explained_rules import SITE_CHANGE
from headcount.counting.site_file import check_site, parse_site
from headcount.counting.zone_lookup import ZoneLookup
from headcount.lab.chaos.scenarios import Scenario, changed_site, random_scenario

SEEDS = st.integers(0, 2**63 - 1)
NOW_S = 1_790_000_000.0


def site_changes(rng: Random, campus: Scenario, messages: list[Message], number: int) -> list[SiteChange]:
    """Versions that take effect at random moments, some exactly when a message is received or a wait ends."""
    changes, geojson = list[SiteChange](), campus.geojson
    for after in sorted(rng.sample(range(1, len(messages)), number)):
        start, end = messages[after - 1].received, messages[after].received
        if start < end:
            geojson = changed_site(rng, geojson)
            assert not check_site(geojson, "test")
            at = rng.choice((start, start + rng.randint(0, int((end - start) / STEP_S) - 1) * STEP_S))
            changes.append(SiteChange(after, at, geojson))
    return changes


def check_random_changes(
    seed: int, devices: int, length: int, max_zones: int, number: int, restored: int = 3
) -> None:
    """Engine and oracle agree on a walk over some changes, cut and restored anywhere."""
    rng = Random(seed)
    campus = random_scenario(rng, max_zones)
    messages = walk(rng, campus, devices, length)[:length]
    changes = site_changes(rng, campus, messages, number)
    at = count_queries(rng, messages, campus.waits_s, 6)
    moments = [CountQuery(change.after, change.now) for change in changes]
    queries = sorted([*at, *moments, CountQuery(length, messages[-1].received + 5e4)])
    expected = by_oracle(campus.geojson, messages, queries, changes)
    cuts = [rng.randint(1, length) for _ in range(10)]
    restores = [rng.randint(1, length) for _ in range(rng.randint(0, restored))]
    got = by_engine(campus.geojson, messages, queries, cuts, restores, changes=changes)
    compare(expected, got, messages, queries)


@settings(max_examples=60)
@given(SEEDS)
def test_few_messages_over_a_change(seed: int) -> None:
    """A few messages and one change: verdicts, events and all four numbers are the oracle's."""
    check_random_changes(seed, devices=3, length=25, max_zones=4, number=1)


@settings(max_examples=25)
@given(SEEDS)
def test_long_walks_over_many_changes(seed: int) -> None:
    """Many changes of many zones during long walks, with snapshots between them: all is the oracle's."""
    check_random_changes(seed, devices=8, length=300, max_zones=12, number=8)


@settings(max_examples=4)
@given(SEEDS)
def test_a_crowd_over_changes(seed: int) -> None:
    """Hundreds of devices: all is the oracle's."""
    # their weeks of walking have more days than a snapshot recognises devices by
    check_random_changes(seed, devices=300, length=1200, max_zones=40, number=3, restored=0)


@settings(max_examples=20)
@given(SEEDS)
def test_a_trace_goes_across_a_change(seed: int) -> None:
    """The explanation of each device has the changes of the site, with the oracle's events."""
    rng = Random(seed)
    campus = random_scenario(rng, 8)
    messages = [message for message in walk(rng, campus, 3, 80) if message.what != FORGET]
    changes = site_changes(rng, campus, messages, 3)
    expected = by_oracle(campus.geojson, messages, [], changes)
    versions = [(each.now, ZoneLookup(parse_site(each.geojson, "test"))) for each in changes]
    for kind, device in {message.key for message in messages}:
        own = [traced(message) for message in messages if message.key == (kind, device)]
        explainer = Explainer(ZoneLookup(parse_site(campus.geojson, "test")), kind, device)  # type: ignore[arg-type]
        explained = list(explainer.explain(own, versions=versions, until_s=messages[-1].received))
        events = [
            ("enter" if change.enter else "exit", change.zone, kind, device, change.t_s, change.reason)
            for each in explained
            for change in each.changes
        ]
        wanted = [event[:6] for moment in expected.events.get((kind, device), []) for event in moment]
        assert sorted(events) == sorted(wanted)
        for each in explained:
            assert (each.rule == "6") == (each.message.what == SITE_CHANGE)


def square(name: str, x0: float, y0: float, x1: float, y1: float, **own: Any) -> dict[str, Any]:
    """A rectangle, in thousandths of a degree at the equator: about 111 m each."""
    ring = [[x / 1000, y / 1000] for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))]
    role = {"role": "site", "name": "S"} if name == "s" else {"role": "zone", "type": "area", "name": name}
    return {
        "type": "Feature",
        "properties": {"id": name, **role, **own},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }


def collection(*features: dict[str, Any]) -> dict[str, Any]:
    """A site file."""
    return {"type": "FeatureCollection", "features": list(features)}


def test_zones_are_moved_added_and_removed() -> None:
    """A device stays within the margin of a moved outline, leaves a removed zone and enters a new one."""
    before = collection(
        square("s", -10, -10, 10, 10), square("moved", 0, 0, 2, 2), square("gone", 0, 0, 3, 3)
    )
    # 1.05 is 5.6 m outside of `moved`, whose margin is 15 m
    after = collection(
        square("s", -10, -10, 10, 10), square("new", 0, 0, 5, 5), square("moved", 1.05, 0, 2, 2)
    )
    at = NOW_S + 10
    fix = Message(NOW_S, "person", "d", FIX, NOW_S, 0.001, 0.001, 20.0)
    late = fix._replace(received=at + 60, t=at + 60)
    changes = [SiteChange(1, at, after)]
    queries = [CountQuery(1, at - 1), CountQuery(1, at), CountQuery(2, at + 61)]
    messages = [fix, late]
    got = by_engine(before, messages, queries, changes=changes)
    compare(by_oracle(before, messages, queries, changes), got, messages, queries)
    counts = [{zone: kinds["person"][0] for zone, kinds in each.items()} for each in got.counts]
    assert counts[0] == {"site": 1, "moved": 1, "gone": 1}
    assert counts[1] == counts[2] == {"site": 1, "new": 1, "moved": 1}
    events = [event for moment in got.events["person", "d"] for event in moment if event.t == at]
    assert [(e.type, e.zone, e.reason) for e in events] == [
        ("enter", "new", "site"),
        ("exit", "gone", "site"),
    ]


def test_a_shorter_hold_ends_at_the_change() -> None:
    """Where the new version's hold ended before the change, the device leaves at the change, not before it."""
    before = collection(square("s", -1, -1, 1, 1, hold_s=1000))
    after = collection(square("s", -1, -1, 1, 1, hold_s=100))
    runner = with_a_person(before)
    runner.change_site(after, NOW_S + 500)
    assert runner.counts(NOW_S + 500)["site"]["person"][0] == 0
    assert [(e.type, e.t, e.reason) for e in runner.events[1:]] == [("exit", NOW_S + 500, "site")]


def test_a_longer_hold_counts_from_the_last_fix() -> None:
    """A longer hold extends the presence, from the time of the last fix."""
    before = collection(square("s", -1, -1, 1, 1, hold_s=100))
    after = collection(square("s", -1, -1, 1, 1, hold_s=1000))
    runner = with_a_person(before)
    runner.change_site(after, NOW_S + 100)
    assert runner.counts(NOW_S + 1000)["site"]["person"][0] == 1
    assert runner.counts(NOW_S + 1000.5)["site"]["person"][0] == 0


def test_a_moved_boundary_moves_the_plane() -> None:
    """With another centroid, the last position stays where it was on Earth."""
    before = collection(square("s", -1, -1, 1, 1), square("z", 0, 0, 0.5, 0.5))
    after = collection(square("s", -1, -1, 9, 9), square("z", 0, 0, 0.5, 0.5))
    runner = with_a_person(before)
    runner.change_site(after, NOW_S + 1)
    assert runner.counts(NOW_S + 1)["z"]["person"] == (1, 1, 1, 0)
    state = runner.engine.find(b"person.d")
    assert state is not None
    assert state.x_m is not None
    assert state.y_m is not None
    lat, lon = runner.site.unproject(*(np.array([value]) for value in (state.x_m, state.y_m)))
    assert abs(lat[0] - 0.0003) < 1e-12
    assert abs(lon[0] - 0.0003) < 1e-12


def with_a_person(geojson: dict[str, Any]) -> Runner:
    """An engine with one person in the site."""
    runner = Runner(parse_site(geojson, "test"))
    runner.feed([Message(NOW_S, "person", "d", FIX, NOW_S, 0.0003, 0.0003, 5.0)])
    return runner
