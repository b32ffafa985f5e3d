"""Positions at an instant, against the rule in plain Python, and against PyMEOS where both rules agree."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pymeos
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from headcount.counting.site import Site
from headcount.history import queries
from headcount.history.at_instant import MAX_GAP_S, PresenceRules
from headcount.history.queries import StoredFix
from headcount.history.query_areas import EVERYWHERE, Area, area_of
from headcount.messages.topics import KINDS
from history_batches import Row, pseudonym
from small_site import feature, site_of, square
from stored_history import Exit, stored

#: 2026-11-24T13:00:00Z
NOON = 1_795_525_200.0
SITE = site_of(
    feature(square(2, 2, 1), role="zone", id="b1", type="building"),
    feature(square(7, 2, 2), role="zone", id="p1", type="car_park", hold_s={"vehicle": 7200}),
)


def moving(rng: random.Random, n: int, *, start: float = NOON, span_s: float = 4 * 3600.0) -> list[Row]:
    """Fixes of a few devices with short and long gaps, some inaccurate, some at the same place for long."""
    rows: list[Row] = []
    for seq in range(1, n + 1):
        t = round(start + rng.random() * span_s, 3)
        if rows and rng.random() < 0.5:
            t = round(rows[-1].t + rng.choice([0.5, 10.0, 59.999, 60.0, 61.0, 299.0, 901.0]), 3)
        device = rng.randrange(8)
        verdict = rng.choice(["accepted"] * 6 + ["inaccurate", "late", "out_of_order"])
        lat, lon = 50 + rng.random() / 100, rng.random() / 100
        if rng.random() < 0.3:  # in the car park
            lat, lon = 50.002 + rng.random() / 500, 0.007 + rng.random() / 500
        position = round(lat, 7), round(lon, 7)
        rows.append(Row(seq, t, t + 0.2, pseudonym(device), KINDS[device % 2], *position, 5.0, verdict))
    return rows


def hold_s(fix: Row, site: Site) -> float:
    """The hold of a device whose last position this is, in the plain words of rule 3."""
    kind = KINDS.index(fix.kind)
    x, y = site.project(np.array([fix.lat]), np.array([fix.lon]))
    point = shapely.Point(x[0], y[0])
    near = [zone for zone in site.zones if zone.plane.distance(point) <= zone.leave_margin_m]
    return max([site.hold_s[kind], *(zone.hold_s[kind] for zone in near)])


def end_s(last: Row, used_t: float, site: Site) -> float:
    """When the presence of a device ends that sends nothing more."""
    hold = hold_s(last, site)
    return (
        used_t + hold if used_t == last.t else min(used_t + hold, last.t + max(hold, site.max_position_age_s))
    )


def used_by_device(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The fixes that decide about presence, oldest first."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: (r.t, -r.seq)):
        if row.verdict in ("accepted", "inaccurate"):
            found.setdefault(row.device, []).append(row)
    return found


def silent_exits(rows: Sequence[Row], site: Site) -> list[Exit]:
    """The exits of devices that stop reporting."""
    exits: list[Exit] = []
    for device, used in used_by_device(rows).items():
        last: Row | None = None
        used_t = 0.0
        for row in [*used, None]:
            if last is not None and (row is None or end_s(last, used_t, site) < row.t):
                exits.append((last.kind, device, round(end_s(last, used_t, site) + 0.001, 3)))
                last = None
            if row is not None:
                last, used_t = (row if row.verdict == "accepted" else last), row.t
    return exits


def at_by_rule(
    rows: Sequence[Row], exits: Sequence[Exit], at: float, site: Site
) -> dict[str, tuple[float, float]]:
    """Decision 0045 for one device after the other."""
    found = {}
    for device, used in used_by_device(rows).items():
        accepted = [r for r in used if r.verdict == "accepted" and r.t // 86_400 == at // 86_400]
        past = [r for r in accepted if r.t <= at]
        if not past:
            continue
        last, exit_ts = past[-1], [t for _, d, t in exits if d == device]
        if at > end_s(last, max(r.t for r in used if r.t <= at), site) or any(
            last.t < t <= at for t in exit_ts
        ):
            continue
        later = [r for r in accepted if r.t > at]
        share = 0.0
        if later and later[0].t - last.t <= MAX_GAP_S and not any(last.t < t <= later[0].t for t in exit_ts):
            share = (at - last.t) / (later[0].t - last.t)
        then = later[0] if later else last
        found[device] = last.lat + share * (then.lat - last.lat), last.lon + share * (then.lon - last.lon)
    return found


def close(found: list[StoredFix], expected: dict[str, tuple[float, float]]) -> None:
    """Compare positions to a centimetre."""
    assert {fix.device: (fix.lat, fix.lon) for fix in found} == {
        device: pytest.approx(position, abs=1.5e-7) for device, position in expected.items()
    }


def instants(rows: Sequence[Row], rng: random.Random) -> list[float]:
    """Instants around fixes, and any others."""
    chosen = rng.choice(rows).t
    delays = (0.0, 0.001, 30.0, 900.0)
    return [*(round(chosen + delay, 3) for delay in delays), round(NOON + rng.random() * 5 * 3600, 3)]


@settings(max_examples=15)
@given(st.integers(0, 2**32))
def test_positions_follow_the_rule(seed: int) -> None:
    """Any rows in segments or waiting, with holds, exits and gaps, give what the rule gives device by device."""
    rng = random.Random(seed)
    rows = moving(rng, rng.choice([1, 20, 60]))
    early = [(r.kind, r.device, round(r.t + rng.choice([0.001, 5.0, 40.0]), 3)) for r in rows[::6]]
    exits = silent_exits(rows, SITE) + early
    areas = [
        EVERYWHERE,
        area_of(bbox=(0.002, 50.002, 0.009, 50.005)),
        area_of(near=(50.004, 0.004, 150.0)),
    ]
    areas.append(areas[1].outside())
    with TemporaryDirectory() as folder:
        view = stored(Path(folder), rows, rng, exits=exits, others=moving(rng, 5))
        for at in instants(rows, rng):
            expected = at_by_rule(rows, exits, at, SITE)
            for area in areas:
                found = queries.fixes_at(view, site="ul", rules=PresenceRules(SITE), at_s=at, area=area)
                if area is EVERYWHERE:
                    close(found, expected)
                    whole = found
                assert found == [fix for fix in whole if is_in(area, fix)]


def is_in(area: Area, fix: StoredFix) -> bool:
    """Whether the position of a fix is in an area."""
    return bool(area.holds(np.array([round(fix.lat * 1e7)]), np.array([round(fix.lon * 1e7)]))[0])


@pytest.fixture(scope="module")
def _pymeos() -> Iterator[None]:
    pymeos.pymeos_initialize()
    yield
    pymeos.pymeos_finalize()


@pytest.mark.usefixtures("_pymeos")
@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_positions_between_fixes_are_those_of_pymeos(seed: int) -> None:
    """For a device without long gaps, PyMEOS's linear interpolation gives the same position at any instant."""
    rng = random.Random(seed)
    t, rows = NOON, list[Row]()
    for seq in range(1, 40):
        t = round(t + rng.choice([0.25, 1.0, 10.0, 59.5, 60.0]), 3)
        position = round(50 + rng.random() / 100, 7), round(rng.random() / 100, 7)
        rows.append(Row(seq, t, t + 0.2, pseudonym(1), "person", *position, 5.0, "accepted"))
    points = [f"Point({r.lon:.7f} {r.lat:.7f})@{datetime.fromtimestamp(r.t, UTC).isoformat()}" for r in rows]
    track = pymeos.TGeomPointSeq(string=f"[{', '.join(points)}]")
    with TemporaryDirectory() as folder:
        view = stored(Path(folder), rows, rng)
        for _ in range(20):
            at = float(rng.randint(math.ceil(rows[0].t), math.floor(rows[-1].t)))  # PyMEOS cuts off fractions
            (fix,) = queries.fixes_at(view, site="ul", rules=PresenceRules(SITE), at_s=at)
            point = track.value_at_timestamp(datetime.fromtimestamp(at, UTC))
            assert (fix.lat, fix.lon) == pytest.approx((point.y, point.x), abs=1.5e-7)


def test_a_device_crosses_the_180th_meridian_the_shorter_way() -> None:
    """Half way between fixes on both sides of it, a device is on the meridian, not on the other side of the Earth."""
    one = Row(1, NOON, NOON, pseudonym(1), "person", 50.001, 179.9999, 5.0, "accepted")
    rows = [one, replace(one, seq=2, t=NOON + 10, lon=-179.9997)]
    with TemporaryDirectory() as folder:
        view = stored(Path(folder), rows, random.Random(1))
        (fix,) = queries.fixes_at(view, site="ul", rules=PresenceRules(SITE), at_s=NOON + 7.5)
        assert (fix.lon, fix.is_between) == (-179.9998, True)
