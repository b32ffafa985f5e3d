"""Write the test vectors of the device behaviour: `python tests/device/make_vectors.py`.

The vectors are shared by all implementations. Inputs are made here, from a seed where there are many; results
come from the policy of `headcount.device`, which the tests beside this file check against the counting rules.
"""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

from headcount.device.fix_buffer import FixBuffer, WaitingFix
from headcount.device.positions import DevicePosition, position_of
from headcount.device.reporting import DEFAULT_RULES, Reporter, ReportState
from headcount.device.retry_delay import retry_delay_s
from headcount.device.site_areas import KINDS, SiteAreas

FOLDER = Path(__file__).parent / "vectors"
START_S = 1_795_532_400
LAT, LON = 52.67, -8.57
#: Degrees of latitude and of longitude for a metre, roughly, as the inputs need no exact distance.
LAT_M, LON_M = 1 / 111_195, 1 / 67_430


def ring(x: float, y: float, width: float, height: float) -> list[list[float]]:
    """A rectangle by its south-western corner, in metres from the middle."""
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
    return [[round(LON + east * LON_M, 7), round(LAT + north * LAT_M, 7)] for east, north in corners]


def feature(geometry: str, coordinates: Any, **properties: Any) -> dict[str, Any]:
    """A feature of a site file."""
    shape = {"type": geometry, "coordinates": coordinates}
    return {"type": "Feature", "properties": properties, "geometry": shape}


def sites() -> dict[str, Any]:
    """Site files: one with holes and parts, one in two parts, one that crosses the antimeridian, and others."""
    campus = [
        feature(
            "Polygon",
            [ring(-300, -200, 600, 400), ring(100, 50, 100, 100)],
            role="site",
            id="campus",
            hold_s={"person": 900, "vehicle": 300},
            max_speed_mps={"person": 70, "vehicle": 70},
        ),
        feature("Polygon", [ring(-200, -100, 80, 60)], role="zone", id="library", type="building"),
        feature("Polygon", [ring(-180, -90, 30, 30)], role="zone", id="reading-room", type="area", hold_s=60),
        feature(
            "MultiPolygon",
            [[ring(0, -150, 60, 40)], [ring(80, -150, 60, 40), ring(100, -140, 20, 20)]],
            role="zone",
            id="car-park",
            type="car_park",
            hold_s={"vehicle": 43_200, "person": None},
            leave_margin_m=25,
        ),
        feature("Polygon", [ring(-20, 20, 40, 40)], role="zone", id="lawn", type="area", leave_margin_m=0),
        feature("LineString", ring(0, 0, 10, 10), role="zone", id="not-an-outline", type="area"),
    ]
    two_parts = [
        feature(
            "MultiPolygon",
            [[ring(-300, -200, 200, 400)], [ring(100, -200, 200, 400)]],
            role="site",
            id="two-parts",
            leave_margin_m=5,
            leave_margin_acc=0.5,
            max_accuracy_m=50,
            hold_s=120,
        )
    ]
    wide = [[[-179, 52], [179, 52], [179, 53], [-179, 53], [-179, 52]]]
    return {
        "campus": {"type": "FeatureCollection", "features": campus},
        "two-parts": {"type": "FeatureCollection", "features": two_parts},
        "antimeridian": {
            "type": "FeatureCollection",
            "features": [feature("Polygon", wide, role="site", id="x")],
        },
        "open-ring": {
            "type": "FeatureCollection",
            "features": [feature("Polygon", [ring(0, 0, 9, 9)[:-1]], role="site", id="x")],
        },
        "no-boundary": {"type": "FeatureCollection", "features": campus[1:]},
        "not-a-site": [],
    }


def at(east_m: float, north_m: float, t: float = 0.0, **optional: float) -> DevicePosition:
    """A position by its distance from the middle."""
    return DevicePosition(
        START_S + t, round(LAT + north_m * LAT_M, 7), round(LON + east_m * LON_M, 7), **optional
    )


def site_vectors() -> dict[str, Any]:
    """Zones before and after a fix, by site and kind."""
    rng = random.Random(1)
    files = sites()
    cases = []
    for name in ("campus", "two-parts"):
        known = list(SiteAreas(files[name], "person").areas)
        for _ in range(150):
            place = at(rng.uniform(-420, 420), rng.uniform(-300, 300), acc=rng.choice([0, 3, 8, 20, 60, 150]))
            before = sorted(rng.sample(known, rng.randint(0, len(known))))
            before = before if "site" in before else []
            kind = rng.choice(KINDS)
            areas = SiteAreas(files[name], kind)
            after = areas.move(before, place)
            cases.append(
                {
                    "site": name,
                    "kind": kind,
                    "before": before,
                    "lat": place.lat,
                    "lon": place.lon,
                    "acc": place.acc,
                    "after": sorted(after),
                    "hold_s": areas.hold_s(after),
                }
            )
    corner = files["campus"]["features"][0]["geometry"]["coordinates"][0]
    for lon, lat in (corner[0], corner[2]):  # an edge counts as inside
        after = SiteAreas(files["campus"], "person").move([], DevicePosition(START_S, lat, lon))
        cases.append(
            {"site": "campus", "kind": "person", "before": [], "lat": lat, "lon": lon, "acc": None}
            | {"after": sorted(after), "hold_s": 900.0}
        )
    return {"sites": files, "refused": [name for name in files if not is_valid(files[name])], "cases": cases}


def is_valid(geojson: object) -> bool:
    """Whether a device accepts a site."""
    try:
        SiteAreas(geojson, "person")
    except ValueError:
        return False
    return True


def walk(
    points: list[tuple[float, float, float]], step_s: float = 1.0, **optional: float
) -> list[DevicePosition]:
    """A track through points of (seconds, east, north), a position each `step_s`, with course and speed."""
    track = []
    for (t1, x1, y1), (t2, x2, y2) in pairwise(points):
        cog = round(math.degrees(math.atan2(x2 - x1, y2 - y1)) % 360, 1)
        vel = round(math.hypot(x2 - x1, y2 - y1) / (t2 - t1) * 3.6, 1)
        for i in range(round((t2 - t1) / step_s)):
            share = i * step_s / (t2 - t1)
            east, north = x1 + share * (x2 - x1), y1 + share * (y2 - y1)
            track.append(at(east, north, t1 + i * step_s, cog=cog, vel=vel, **optional))
    return track


def report_vectors() -> list[dict[str, Any]]:
    """Tracks with what is reported of each, and why."""
    stay = walk([(0, -160, -70), (400, -160, -70)], 10, acc=5)
    visit = walk(
        [(0, -400, -70), (200, -160, -70), (320, -160, -70), (500, 60, -130), (760, 360, -130)], acc=6
    )
    drive = walk(
        [(0, -400, 0), (40, -200, 0), (60, -200, 100), (90, 50, 100), (150, 30, -130), (500, 30, -130)], acc=4
    )
    hot = [at(0, 0, 0, acc=5), at(0, 5_000, 1, acc=5), at(0, 10, 2, acc=5), at(0, 5_000, 200, acc=5)]
    coarse = [
        at(-160, -70, 0, acc=5),
        at(-160, 0, 30, acc=150),
        at(-160, 0, 70, acc=150),
        at(-900, 0, 90, acc=150),
    ]
    coarse += [at(-160, -70, 100, acc=150), at(-160, -70, 110, acc=5)]
    expired = [at(-160, -70, 0), at(-2_000, 0, 901), at(-2_000, 0, 905), at(-160, -70, 960)]
    within_hold = [at(-160, -70, 0), at(-2_000, 0, 890), at(-2_000, 0, 905)]
    order = [at(0, 0, 10), at(0, 0, 10), at(0, 0, 5), at(0, 0, 10.0004), at(0, 0, 80.5)]
    tracks: list[dict[str, Any]] = [
        {"name": "a person stays in the library", "kind": "person", "site": "campus", "track": stay},
        {"name": "a person walks over the campus", "kind": "person", "site": "campus", "track": visit},
        {"name": "a vehicle drives to the car park", "kind": "vehicle", "site": "campus", "track": drive},
        {"name": "an implausible position is not reported", "kind": "person", "site": "campus", "track": hot},
        {"name": "coarse positions", "kind": "person", "site": "campus", "track": coarse},
        {"name": "the hold has expired", "kind": "person", "site": "campus", "track": expired},
        {"name": "the hold has not expired", "kind": "person", "site": "campus", "track": within_hold},
        {"name": "times that do not rise", "kind": "person", "site": "campus", "track": order},
        {
            "name": "a short hold",
            "kind": "vehicle",
            "site": "two-parts",
            "track": walk([(0, -200, 0), (200, -200, 0)], 5),
        },
        {"name": "no site is known", "kind": "vehicle", "site": None, "track": drive},
        {"name": "a fixed interval", "kind": "person", "site": "campus", "track": visit, "interval_s": 45},
        {
            "name": "a pause",
            "kind": "person",
            "site": "campus",
            "track": visit,
            "paused_until": START_S + 250,
        },
        {
            "name": "a requested report",
            "kind": "person",
            "site": "campus",
            "track": stay,
            "requested_before": [3, 9],
        },
    ]
    vectors = []
    for each in tracks:
        reporter = Reporter(each["kind"])
        reporter.site = SiteAreas(sites()[each["site"]], each["kind"]) if each["site"] else None
        reporter.state = ReportState(
            interval_s=each.get("interval_s"), paused_until=each.get("paused_until", -math.inf)
        )
        reports: list[list[Any]] = []
        for index, position in enumerate(each["track"]):
            if index in each.get("requested_before", []):
                reporter.request()
            reason = reporter.judge(position)
            if reason:
                reports.append([index, reason, sorted(reporter.state.zones)])
        track = [[p.t, p.lat, p.lon, p.acc, p.vel, p.cog] for p in each["track"]]
        vectors.append({**each, "track": track, "reports": reports})
    return vectors


def rules_vectors() -> dict[str, Any]:
    """The default limits by kind."""
    return {
        kind: {name: getattr(DEFAULT_RULES[kind], name) for name in DEFAULT_RULES[kind].__slots__}
        for kind in KINDS
    }


def payload_vectors() -> list[dict[str, Any]]:
    """Positions and the bytes of their fixes."""
    positions: list[dict[str, Any]] = [
        {"tst": 1795532550, "lat": 52.67345, "lon": -8.57312, "acc": 8},
        {"tst": 1795532550.25, "lat": 52.67345, "lon": -8.57312},
        {"tst": 1795532550.0004, "lat": 52.673456789, "lon": -8.573123449999, "acc": 7.96},
        {
            "tst": 1795532550.9996,
            "lat": -33.5,
            "lon": 151,
            "acc": 0.04,
            "vel": 0,
            "cog": 0,
            "alt": 0,
            "batt": 0,
        },
        {"tst": 1795532550, "lat": 0.00000001, "lon": 0.5, "alt": -0.04, "vel": 0.25, "cog": 359.97},
        {
            "tst": 1795532550,
            "lat": 1,
            "lon": -0.00000001,
            "alt": -12.25,
            "vel": 0.35,
            "cog": 12.35,
            "batt": 12.5,
        },
        {"tst": 1795532550, "lat": 90, "lon": 180, "acc": -1, "vel": -1, "cog": 361, "alt": 1e7, "batt": 101},
        {
            "tst": 1795532550,
            "lat": -90,
            "lon": -180,
            "acc": 5e7,
            "vel": 1e6,
            "cog": 360,
            "alt": -1e6,
            "batt": 100,
        },
        {"tst": 1795532550, "lat": 10, "lon": 20, "acc": 10, "vel": 20, "cog": 90, "alt": 100, "batt": 55},
        {"tst": 1795532550, "lat": 1.00000005, "lon": 2.5, "acc": 0.25, "alt": -0.25},
    ]
    return [{"position": each, "payload": position_of(each).payload().decode()} for each in positions]


def buffer_vectors() -> list[dict[str, Any]]:
    """Fixes in the order in which they are added, and those that remain."""
    rng = random.Random(2)
    series: list[tuple[str, int, list[tuple[float, bool]]]] = [
        ("nothing is dropped below the capacity", 5, [(float(t), False) for t in range(5)]),
        ("even times are thinned out evenly", 6, [(float(t), False) for t in range(40)]),
        ("fixes that change counts stay", 6, [(float(t), t in (3, 4, 11)) for t in range(30)]),
        ("only fixes that change counts: the oldest goes", 3, [(float(t), True) for t in range(6)]),
        ("a capacity of one", 1, [(float(t), t == 1) for t in range(4)]),
        ("a capacity of two", 2, [(float(t), t == 1) for t in range(5)]),
    ]
    t, mixed = 0.0, []
    for _ in range(300):
        t = round(t + rng.choice([1, 2, 2.5, 5, 60]), 1)
        mixed.append((t, rng.random() < 0.1))
    series.append(("mixed", 40, mixed))
    return [
        {"name": name, "capacity": capacity, "fixes": fixes, "remaining": thinned(capacity, fixes)}
        for name, capacity, fixes in series
    ]


def thinned(capacity: int, fixes: list[tuple[float, bool]]) -> list[float]:
    """The times of the fixes that a buffer holds in the end."""
    buffer = FixBuffer(capacity)
    for number, (t, is_counted) in enumerate(fixes):
        buffer.append(WaitingFix(number, t, is_counted, b""))
    return [fix.t for fix in buffer.fixes]


def retry_vectors() -> list[dict[str, float]]:
    """Pauses before another attempt."""
    return [
        {
            "attempt": attempt,
            "share": share,
            "retry_after_s": after_s,
            "delay_s": retry_delay_s(attempt, share, after_s),
        }
        for attempt in (0, 1, 2, 5, 6, 7, 1000)
        for share, after_s in ((0.0, 0.0), (0.5, 0.0), (0.25, 30.0))
    ]


def vectors() -> dict[str, str]:
    """The text of each file by its name."""
    made = {
        "site": site_vectors(),
        "reports": report_vectors(),
        "rules": rules_vectors(),
        "payload": payload_vectors(),
        "buffer": buffer_vectors(),
        "retry": retry_vectors(),
    }
    return {f"{name}.json": _lines(value) for name, value in made.items()}


def _lines(value: Any) -> str:
    """JSON with a line for each entry of the outer list or object."""
    if isinstance(value, list):
        return "[\n" + ",\n".join(json.dumps(each) for each in value) + "\n]\n"
    return (
        "{\n"
        + ",\n".join(
            f"{json.dumps(name)}: {_lines(each).rstrip()}"
            if isinstance(each, list | dict)
            else f"{json.dumps(name)}: {json.dumps(each)}"
            for name, each in value.items()
        )
        + "\n}\n"
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in vectors().items():
        (FOLDER / name).write_text(text)
