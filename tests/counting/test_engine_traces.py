"""The engine does what the oracle does on traces of real buses and of a simulated campus."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from counting.running import CountQuery, Runner, by_engine, by_oracle, compare
from counting.walks import FIX, Message
from headcount.counting.site_file import parse_site
from headcount.lab.chaos.oracle_replay import TraceRow, replay
from shared import shared

BUSES = ("capmetro_2015-03-08.csv.gz", "capmetro_2017-03-21.csv.gz", "liverpool_bus14.csv")


@cache
def read(path: Path) -> list[Message]:
    """The rows of a trace, in its order; a row was received at its own time."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [
            Message(float(r["t"]), r["kind"], r["device"], FIX, *(float(r[k]) for k in ("t", "lat", "lon")))
            for r in csv.DictReader(lines)
        ]


def town(messages: Sequence[Message]) -> dict[str, Any]:
    """A site in the middle of a trace: the inner half of its area, with overlapping zones inside."""
    lats = sorted(m.lat for m in messages if m.lat)
    lons = sorted(m.lon for m in messages if m.lon)
    (south, north), (west, east) = ((v[len(v) // 4], v[-len(v) // 4]) for v in (lats, lons))

    def box(x0: float, y0: float, x1: float, y1: float) -> dict[str, Any]:
        lon0, lon1 = west + x0 * (east - west), west + x1 * (east - west)
        lat0, lat1 = south + y0 * (north - south), south + y1 * (north - south)
        ring = [[lon0, lat0], [lon1, lat0], [lon1, lat1], [lon0, lat1], [lon0, lat0]]
        return {"type": "Polygon", "coordinates": [ring]}

    boundary = {"role": "site", "id": "town", "name": "Town"}
    features: list[tuple[dict[str, Any], dict[str, Any]]] = [(boundary, box(0, 0, 1, 1))]
    zones: list[tuple[tuple[float, float, float, float], dict[str, Any]]] = [
        ((0.4, 0.4, 0.6, 0.6), {"hold_s": {"vehicle": 7200}}),
        ((0.1, 0.0, 0.3, 0.9), {"leave_margin_m": 300}),
        ((0.3, 0.2, 0.9, 0.3), {"leave_margin_m": 0, "hold_s": {"vehicle": 30}}),
        ((0.8, 0.8, 1.4, 1.3), {}),
        *(((i / 4, j / 4, (i + 1.2) / 4, (j + 1.1) / 4), {}) for i in range(4) for j in range(4)),
    ]
    for i, (corners, own) in enumerate(zones):
        features.append(({"role": "zone", "id": f"z{i}", "type": "area", **own}, box(*corners)))
    return {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": p, "geometry": g} for p, g in features],
    }


def queries_every(messages: Sequence[Message], every: float) -> list[CountQuery]:
    """A query at each multiple of `every`, with all that was received by then."""
    found, at = list[CountQuery](), (messages[0].received // every + 1) * every
    for done, m in enumerate(messages):
        while m.received > at:
            found.append(CountQuery(done, at))
            at += every
    return [*found, CountQuery(len(messages), at)]


def some(messages: Sequence[Message], keep: int) -> list[Message]:
    """The messages of each keep-th device."""
    kept = set(sorted({m.key for m in messages})[::keep])
    return [m for m in messages if m.key in kept]


@pytest.mark.parametrize("name", BUSES)
def test_real_buses(name: str) -> None:
    """Buses in the order of the file, which isn't that of time: verdicts, events, counts are the oracle's."""
    messages = some(read(shared("data", "traces", name)), keep=1 if name == "liverpool_bus14.csv" else 4)
    geojson = town(messages)
    at = [CountQuery(len(messages), max(m.received for m in messages) + 200)]
    expected = by_oracle(geojson, messages, at)
    cuts = Random(name).sample(range(1, len(messages)), 100)
    compare(expected, by_engine(geojson, messages, at, cuts), messages, at)
    assert {"accepted", "outside"} <= set(expected.verdicts)


@pytest.mark.parametrize("name", BUSES)
def test_real_buses_in_the_order_of_time(name: str) -> None:
    """Buses as a live system would get them: the counts of every 15 minutes are the oracle's."""
    messages = some(read(shared("data", "traces", name)), keep=1 if name == "liverpool_bus14.csv" else 8)
    messages = sorted(messages, key=lambda m: m.received)
    geojson, at = town(messages), queries_every(messages, 900)
    compare(by_oracle(geojson, messages, at), by_engine(geojson, messages, at), messages, at)


def campus_rows(keep: int) -> tuple[dict[str, Any], list[Message]]:
    """The real campus, and each keep-th device of the hour simulated on it."""
    geojson = json.loads(shared("data", "sites", "csusb.geojson").read_text())
    return geojson, some(read(shared("data", "traces", "csusb_sumo.csv.gz")), keep)


def test_a_campus() -> None:
    """Some people and cars of a real campus: verdicts, events and counts are the oracle's."""
    geojson, messages = campus_rows(keep=20)
    at = queries_every(messages, 300)
    compare(by_oracle(geojson, messages, at), by_engine(geojson, messages, at), messages, at)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUSES)
def test_all_buses(name: str) -> None:
    """Each bus of each trace, in both orders and cut at random, is the oracle's."""
    messages = read(shared("data", "traces", name))
    geojson = town(messages)
    for order in (messages, sorted(messages, key=lambda m: m.received)):
        at = [CountQuery(len(order), max(m.received for m in order) + 200)]
        cuts = Random(name).sample(range(1, len(order)), 100)
        compare(by_oracle(geojson, order, at), by_engine(geojson, order, at, cuts), order, at)


@pytest.mark.slow
def test_a_whole_campus() -> None:
    """All people and cars of a real campus, cut at random: verdicts, events and counts are the oracle's."""
    geojson, messages = campus_rows(keep=1)
    at = queries_every(messages, 300)
    cuts = Random(1).sample(range(1, len(messages)), 300)
    compare(by_oracle(geojson, messages, at), by_engine(geojson, messages, at, cuts), messages, at)


def test_a_campus_tick_by_tick() -> None:
    """An engine that is asked each minute counts what the oracle's replay counts."""
    geojson, messages = campus_rows(keep=20)
    runner, done = Runner(parse_site(geojson, "csusb")), 0
    rows = [TraceRow(m.t, m.device, m.kind, m.lat, m.lon) for m in messages]
    for at, sizes in replay(rows, geojson, 60):
        stop = done
        while stop < len(messages) and messages[stop].received <= at:
            stop += 1
        runner.feed(messages[done:stop])
        done = stop
        numbers = runner.counts(at)
        assert {z: {k: n[0] for k, n in kinds.items()} for z, kinds in numbers.items()} == sizes
    assert done == len(messages)
