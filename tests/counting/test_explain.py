"""Explanations match the engine, and their numbers lead to their verdict."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counting.running import Runner
from counting.walks import FIX, FORGET, OFFLINE, Message, walk
from headcount.counting.explain import ExplainedMessage, Explainer
from headcount.counting.explained_rules import LINES, TracedMessage
from headcount.counting.site_file import parse_site
from headcount.counting.zone_lookup import ZoneLookup
from headcount.lab.chaos.oracle import Oracle
from headcount.lab.chaos.scenarios import random_scenario
from small_site import small_site

SEEDS = st.integers(0, 2**63 - 1)
T = 1_790_000_000.0
#: In `b1` of the small site, and 11 m north of its boundary.
INSIDE, NEAR = (50.0025, 0.0025), (50.0101, 0.0025)


def traced(message: Message) -> TracedMessage:
    """The message as the explainer takes it."""
    return TracedMessage(message.received, message.what, message.t, message.lat, message.lon, message.acc)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_it_agrees_with_the_engine(seed: int) -> None:
    """Of each device by itself: verdicts are those of the engine that counts all of them, events the oracle's."""
    rng = Random(seed)
    campus = random_scenario(rng, max_zones=8)
    messages = [m for m in walk(rng, campus, 4, 120) if m.what != FORGET]
    site = parse_site(campus.geojson, "test")
    everybody, oracle = Runner(site), Oracle(campus.geojson)
    everybody.feed(messages)
    for m in messages:
        if m.what == FIX:
            oracle.fix(m.received, m.kind, m.device, m.t, m.lat, m.lon, m.acc)
        else:
            oracle.status(m.received, m.kind, m.device, m.what != OFFLINE)
    zones = ZoneLookup(site)
    for kind, device in {m.key for m in messages}:
        own = [(i, m) for i, m in enumerate(messages) if m.key == (kind, device)]
        explainer = Explainer(zones, kind, device)  # type: ignore[arg-type]
        explained = list(explainer.explain([traced(m) for _, m in own]))
        assert [e.verdict for e in explained] == [everybody.verdicts[i] for i, _ in own]
        events = [
            ("enter" if c.enter else "exit", c.zone, kind, device, c.t_s, c.reason)
            for e in explained
            for c in e.changes
        ]
        # without the day, which is that of pseudonyms
        assert sorted(events) == sorted(e[:6] for e in oracle.events if (e.kind, e.device) == (kind, device))
        numbers_lead_to_verdicts(explained)


def numbers_lead_to_verdicts(explained: list[ExplainedMessage]) -> None:
    """The numbers of an explanation alone lead to the same verdict."""
    run = 0
    for each in explained:
        if each.verdict is None:
            assert each.checks == []
            assert each.rule in ("3", "forgotten")
            run = 0 if each.rule == "forgotten" else run
            continue
        assert each.rule == f"1.{len(each.checks)}"
        assert each.verdict == each.checks[-1].verdict
        assert [c.verdict for c in each.checks] == list(LINES[: len(each.checks)])
        assert [c.matched for c in each.checks] == [False] * (len(each.checks) - 1) + [True]
        for check in each.checks[2:9]:
            assert by_the_numbers(check.verdict, check.value, check.limit, run) == check.matched, each
        if each.edges:
            boundary = each.edges[0]
            assert boundary.zone == "site"
            assert boundary.member == (each.verdict == "accepted")
            for edge in each.edges:
                near = edge.edge_m <= edge.margin_m if edge.member_before else edge.inside
                assert edge.member == (near and boundary.member), (edge, each)
        run = (
            run + 1
            if each.verdict == "implausible"
            else 0
            if each.verdict in ("accepted", "outside")
            else run
        )
        assert each.why.endswith((".", "?"))
        assert len(each.why) < 400


def by_the_numbers(verdict: str, value: float | None, limit: float | None, run: int) -> bool:
    """Whether a line of rule 1 matches its two numbers."""
    if value is None or limit is None:
        # values that need an unknown position, and the distance of a fix that is not coarse
        return False
    if verdict == "duplicate":
        return value == limit
    if verdict == "out_of_order":
        return value < limit
    return value > limit and (verdict != "implausible" or run < 2)


@pytest.mark.parametrize(
    ("fix", "rule", "words"),
    [
        ({"t_s": math.nan}, "1.1", "isn't JSON"),
        ({"lat_deg": 0.0, "lon_deg": 0.0}, "1.2", "is out of range"),
        ({"t_s": T + 90}, "1.3", "75.0 s after"),
        ({"t_s": T}, "1.4", "that of the last"),
        ({"t_s": T - 3}, "1.5", "3.0 s before"),
        (
            {"acc_m": 250.0, "lat_deg": 50.02},
            "1.7",
            "m outside the boundary, more than twice its accuracy of 250 m.",
        ),
        ({"acc_m": 250.0}, "1.8", "accuracy is 250 m; 100 m"),
        ({"lat_deg": INSIDE[0] + 0.1}, "1.9", "allow 1066.0 m. It is number 1 in a row"),
        (
            {"lat_deg": NEAR[0], "lon_deg": NEAR[1]},
            "1.11",
            "still within the margin of site (11.1 m outside)",
        ),
        ({}, "1.11", "inside site"),
        ({"t_s": (T + 15) * 1e3}, "1.3", "It is in milliseconds: send seconds since 1970."),
        ({"t_s": (T + 15) * 1e6}, "1.3", "It is in microseconds"),
        ({"lat_deg": INSIDE[1], "lon_deg": INSIDE[0]}, "1.9", "With lat and lon swapped, it would be inside"),
        ({"lat_deg": math.nan, "problem": "lat is null"}, "1.1", "It is not a fix: lat is null."),
        ({"lat_deg": math.nan}, "1.1", "It is not a fix: it isn't JSON with the finite numbers"),
    ],
)
def test_words(fix: dict[str, Any], rule: str, words: str) -> None:
    """Each rule is explained in a sentence with its numbers."""
    explainer = Explainer(ZoneLookup(small_site()), "person", "d")
    first = TracedMessage(T, FIX, T, *INSIDE, 8.0)
    second = TracedMessage(
        T + 15, **{"t_s": T + 15, "lat_deg": INSIDE[0], "lon_deg": INSIDE[1], "acc_m": 8.0, **fix}
    )
    _, explained = explainer.explain([first, second])
    assert explained.rule == rule
    assert words in explained.why


def test_late_outside_silent() -> None:
    """Explanations give a backlog's age, the distance of a device that leaves, and the end of its hold."""
    explainer = Explainer(ZoneLookup(small_site()), "person", "d")
    messages = [
        TracedMessage(T, FIX, T, *INSIDE, 8.0),
        TracedMessage(T + 20, FIX, T + 10, INSIDE[0], -0.005, 8.0),
        TracedMessage(T + 2000, FIX, T + 1000, *INSIDE, 8.0),
        TracedMessage(T + 2000, FIX, T + 2000, *INSIDE, 8.0),
        TracedMessage(T + 2001, OFFLINE),
    ]
    explained = list(explainer.explain(messages))
    assert [e.verdict for e in explained] == ["accepted", "outside", "late", "accepted", None]
    assert "m outside the boundary; the margin is 12 m" in explained[1].why
    assert {(c.zone, c.enter, c.reason) for c in explained[1].changes} >= {("site", False, "outside")}
    assert explained[2].why == "It was 1000.0 s old when it came; a person is held for 900 s."
    assert explained[4].rule == "3"
    assert explainer.zones[0] == "site"
    assert [(c.t_s, c.reason) for c in explainer.advance(T + 9000) if c.zone == "site"] == [
        (T + 2900, "silent")
    ]
    assert explainer.zones == []


def test_only_the_last() -> None:
    """With a limit, older messages are processed but not explained."""
    explainer = Explainer(ZoneLookup(small_site()), "person", "d")
    messages = [TracedMessage(T + n, FIX, T + n, *INSIDE, 8.0) for n in range(5)]
    explained = list(explainer.explain([*messages, messages[-1]], last=2))
    assert [e.verdict for e in explained] == ["accepted", "duplicate"]
    assert explained[0].changes == []


def test_forgotten() -> None:
    """A forgotten device leaves its zones at that moment, and its next fix is a first fix."""
    explainer = Explainer(ZoneLookup(small_site()), "person", "d")
    messages = [
        TracedMessage(T, FIX, T, *INSIDE, 8.0),
        TracedMessage(T + 5, FORGET),
        TracedMessage(T + 6, FIX, T, *INSIDE, 8.0),
    ]
    _, forgotten, again = explainer.explain(messages)
    assert (forgotten.rule, forgotten.verdict, forgotten.zones) == ("forgotten", None, [])
    assert {(c.zone, c.t_s, c.reason) for c in forgotten.changes} == {
        ("site", T + 5, "removed"),
        ("b1", T + 5, "removed"),
    }
    assert again.verdict == "accepted"  # else a duplicate
