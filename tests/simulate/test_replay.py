"""`headcount replay` prints the counts of its definition, as computed by the oracle."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counting.test_engine_traces import campus_rows, read, town
from counting.walks import FIX, Message, walk
from headcount.counting.engine import Engine
from headcount.counting.site_file import parse_site
from headcount.lab.chaos.oracle import KINDS
from headcount.lab.chaos.oracle_replay import TraceRow, replay
from headcount.lab.chaos.scenarios import changed_site, random_scenario
from headcount.simulate.replay import Replay
from headcount.simulate.traces import read_trace
from shared import shared

Ticks = list[tuple[float, dict[str, dict[str, int]]]]


def rows_of(messages: Iterable[Message], with_received: bool) -> list[TraceRow]:
    """The fixes as rows of a recording, which has no infinite numbers and no status messages."""
    return [
        TraceRow(
            *(m.t, m.device, m.kind, m.lat, m.lon),
            acc=m.acc if math.isfinite(m.acc) else 5000.0,
            received=m.received if with_received else None,
        )
        for m in messages
        if m.what == FIX and not any(math.isinf(x) for x in (m.t, m.lat, m.lon))
    ]


def write(rows: Iterable[TraceRow], path: Path) -> None:
    """Write a recording as CSV; unknown values are empty."""
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(TraceRow._fields)
        for row in rows:
            out.writerow("" if x is None or x != x else repr(x) if isinstance(x, float) else x for x in row)  # noqa: PLR0124  # NaN


def by_engine(
    path: Path, geojson: dict[str, Any], every: float, changes: Iterable[tuple[float, dict[str, Any]]] = ()
) -> Ticks:
    """The replay of a recording by the engine."""
    site = parse_site(geojson, "test")
    versions = [(at_s, parse_site(new, "test")) for at_s, new in changes]
    return [
        (
            tick.at_s,
            {
                zone.id: dict(zip(KINDS, counts, strict=True))
                for zone, counts in zip(tick.site.zones, tick.counts[:, :, 0].tolist(), strict=True)
            },
        )
        for tick in Replay(read_trace(path), site, every, versions).run()
    ]


#: Recordings have no later times.
MAX_T_S = 1e11


@settings(max_examples=15)
@given(st.integers(0, 2**63 - 1), st.sampled_from((7.0, 60.0, 900.0)), st.booleans())
def test_random_recordings(seed: int, every: float, with_received: bool) -> None:
    """Random recordings, sorted or not, have the ticks and counts of the definition."""
    rng = Random(seed)
    campus = random_scenario(rng, 6)
    messages = walk(rng, campus, devices=5, length=120)
    if not with_received:  # then a broken row has no receive time
        messages = [m for m in messages if math.isfinite(m.t + m.lat + m.lon)]
    messages = [m for m in messages if m.received < messages[0].received + 1000 * every]
    for _ in range(rng.choice((0, 5, 100))):  # rows that stand where they don't belong
        messages.insert(rng.randrange(len(messages)), messages.pop(rng.randrange(len(messages))))
    rows = rows_of(messages, with_received)
    readable = [row.t for row in rows if 0 <= row.t < MAX_T_S]
    if not readable:  # an error
        return
    rows = [row for row in rows if row.received is not None or abs(row.t - readable[0]) < 1000 * every]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.csv")
        write(rows, path)
        first = min(m.received for m in messages)
        changes = [
            (first + rng.randint(-1, 400) * every / 4, changed_site(rng, campus.geojson))
            for _ in range(rng.choice((0, 0, 1, 4)))
        ]
        changes.sort(key=lambda change: change[0])
        expected = list(replay(rows, campus.geojson, every, changes))
        assert by_engine(path, campus.geojson, every, changes) == expected


@pytest.mark.parametrize("name", ["liverpool_bus14.csv"])
def test_real_buses(name: str) -> None:
    """For buses in the order of the file, every tick counts all rows received by then in that order."""
    path = shared("data", "traces", name)
    messages = read(path)
    geojson = town(messages)
    expected = replay(rows_of(messages, with_received=False), geojson, 600)
    assert by_engine(path, geojson, 600) == list(expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["capmetro_2015-03-08.csv.gz", "capmetro_2017-03-21.csv.gz"])
def test_real_buses_minute_by_minute(name: str) -> None:
    """Whole days of buses have the ticks and counts of the definition at every minute."""
    path = shared("data", "traces", name)
    messages = read(path)
    geojson = town(messages)
    expected = replay(rows_of(messages, with_received=False), geojson, 60)
    assert by_engine(path, geojson, 60) == list(expected)


@pytest.mark.slow
def test_a_whole_campus_minute_by_minute() -> None:
    """An hour of the whole campus has the ticks and counts of the definition at every minute."""
    geojson, messages = campus_rows(keep=1)
    path = shared("data", "traces", "csusb_sumo.csv.gz")
    expected = replay(rows_of(messages, with_received=False), geojson, 60)
    assert by_engine(path, geojson, 60) == list(expected)


def changes_of(lines: Iterable[str]) -> Iterator[str]:
    """The lines whose counts differ from the last ones of their zone."""
    last = dict[str, dict[str, Any]]()
    for line in lines:
        counts = json.loads(line) | {"at": ""}
        if last.get(counts["zone"]) != counts:
            yield line
        last[counts["zone"]] = counts


def test_the_command_prints_it(tmp_path: Path) -> None:
    """The command prints the instants, zones and counts of the definition, on request only those that changed."""
    path = shared("data", "traces", "liverpool_bus14.csv")
    messages = read(path)
    geojson = town(messages)
    site = tmp_path / "town.geojson"
    site.write_text(json.dumps(geojson))
    command = [sys.executable, "-m", "headcount", "replay", str(path), "--site", str(site), "--every", "600s"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    changed = subprocess.run(
        [*command, "--changed"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert changed.stdout.splitlines() == list(changes_of(run.stdout.splitlines()))
    got = [json.loads(line) for line in run.stdout.splitlines()]
    expected = [
        (at, zone, counts["person"], counts["vehicle"])
        for at, zones in replay(rows_of(messages, with_received=False), geojson, 600)
        for zone, counts in zones.items()
    ]
    stamps = [datetime.fromisoformat(line["at"]).timestamp() for line in got]
    lines = [(t, g["zone"], g["person"], g["vehicle"]) for t, g in zip(stamps, got, strict=True)]
    assert lines == expected


def test_a_change_of_the_site_on_the_command_line(tmp_path: Path) -> None:
    """`--change TIME=FILE` counts by the file from that time on; the zones of each line are those of its version."""
    old, new, rows = tmp_path / "old.geojson", tmp_path / "new.geojson", tmp_path / "rows.csv"
    outline = {"type": "Polygon", "coordinates": [[[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]]}
    for path, zone in ((old, "before"), (new, "after")):
        features = [
            {"type": "Feature", "geometry": outline, "properties": properties}
            for properties in ({"role": "site", "id": "s"}, {"role": "zone", "id": zone, "type": "area"})
        ]
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    rows.write_text("t,device,kind,lat,lon\n1790000000,d,person,0.5,0.5\n1790000100,d,person,0.5,0.5\n")
    words = ["headcount", "replay", str(rows), "--site", str(old), "--quiet", "--every", "20s"]
    command = [sys.executable, "-m", *words]
    run = subprocess.run(
        [*command, "--change", f"2026-09-21T14:14:00Z={new}"], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    counts = {(line["at"][11:19], line["zone"]): line["person"] for line in lines}
    assert counts["14:13:40", "before"] == 1
    assert ("14:14:00", "before") not in counts
    assert counts["14:14:00", "after"] == 1
    bad = subprocess.run([*command, "--change", "tomorrow=x"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert "'tomorrow' is not a valid time" in bad.stderr


def test_each_device_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a replay grows with the fixes, not with the names in them: each device is looked up once."""
    messages = read(shared("data", "traces", "liverpool_bus14.csv"))
    rows = rows_of(messages, with_received=False)
    write(rows, tmp_path / "rows.csv")
    names = list[bytes]()
    look_up = Engine.slots

    def counted(engine: Engine, of: list[bytes]) -> Any:
        names.extend(of)
        return look_up(engine, of)

    monkeypatch.setattr(Engine, "slots", counted)
    by_engine(tmp_path / "rows.csv", town(messages), 600)
    assert len(rows) > 20 * len(names)
    assert len(names) == len(set(names))
