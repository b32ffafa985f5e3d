"""The counting rules by hand-made examples, put to the oracle and to the engine alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from counting.running import Counts, Runner
from counting.walks import FIX, FORGET, OFFLINE, ONLINE, Message
from headcount.counting.site_file import parse_site
from headcount.lab.chaos.oracle import Oracle, OracleEvent
from headcount.lab.chaos.scenarios import degrees

CENTRE = (52.6738, -8.5725)
T = 1_790_000_000.0
TODAY = int(T // 86_400)


def square(x: float, y: float, half: float, hole: float = 0.0) -> dict[str, Any]:
    """A square around (x, y), with a square hole in its middle where one is asked for."""
    rings = [_ring(x, y, half)] + ([_ring(x, y, hole)[::-1]] if hole else [])
    return {"type": "Polygon", "coordinates": rings}


def _ring(x: float, y: float, half: float) -> list[list[float]]:
    corners = ((-half, -half), (half, -half), (half, half), (-half, half), (-half, -half))
    return [[lon, lat] for lat, lon in (degrees(CENTRE, x + dx, y + dy) for dx, dy in corners)]


def campus(
    rules: dict[str, Any] | None = None, **zones: tuple[dict[str, Any], dict[str, Any]]
) -> dict[str, Any]:
    """A square of 1 km with zones, each a geometry and its rules."""
    site = {"role": "site", "id": "campus", "name": "Campus", **(rules or {})}
    features = [{"type": "Feature", "properties": site, "geometry": square(0, 0, 500)}]
    for name, (geometry, own) in zones.items():
        properties = {"role": "zone", "id": name, "type": "area", **own}
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    return {"type": "FeatureCollection", "features": features}


class Counter(Protocol):
    """An implementation of the rules: the oracle, or the engine with single messages."""

    def send(self, message: Message) -> str | None:
        """Take a message; the verdict of a fix."""

    def counts(self, now: float) -> Counts:
        """All numbers then."""

    def happened(self) -> list[OracleEvent]:
        """The events until now."""


class ByOracle:
    """The oracle as a counter."""

    def __init__(self, geojson: dict[str, Any]) -> None:
        """Take the site."""
        self.oracle = Oracle(geojson)

    def send(self, message: Message) -> str | None:
        """Take a message; the verdict of a fix."""
        received, kind, device, what, *fix = message
        if what == FIX:
            return self.oracle.fix(received, kind, device, *fix)
        if what == FORGET:
            self.oracle.forget(received, kind, device)
        else:
            self.oracle.status(received, kind, device, what == ONLINE)
        return None

    def counts(self, now: float) -> Counts:
        """All numbers then."""
        return self.oracle.counts(now)

    def happened(self) -> list[OracleEvent]:
        """The events until now."""
        return self.oracle.events


class ByEngine:
    """The engine as a counter."""

    def __init__(self, geojson: dict[str, Any]) -> None:
        """Take the site."""
        self.runner = Runner(parse_site(geojson, "test"))

    def send(self, message: Message) -> str | None:
        """Take a message; the verdict of a fix."""
        self.runner.feed([message])
        return self.runner.verdicts[-1]

    def counts(self, now: float) -> Counts:
        """All numbers then."""
        return self.runner.counts(now)

    def happened(self) -> list[OracleEvent]:
        """The events until now."""
        return self.runner.events


Maker = Callable[[dict[str, Any]], Counter]


@pytest.fixture(params=[ByOracle, ByEngine])
def by(request: pytest.FixtureRequest) -> Maker:
    """Each of those who count by the rules, to be made for a site."""
    maker: Maker = request.param
    return maker


def fix(
    at: float, x: float, y: float, acc: float = 0.0, *, t: float | None = None, kind: str = "person"
) -> Message:
    """A fix received a number of seconds after T, at an offset east and north of the centre in metres."""
    return Message(T + at, kind, "a", FIX, T + (at if t is None else t), *degrees(CENTRE, x, y), acc)


def status(at: float, what: int, kind: str = "person") -> Message:
    """A status received a number of seconds after T."""
    return Message(T + at, kind, "a", what)


def forget(at: float, device: str = "a", kind: str = "person") -> Message:
    """A marker received a number of seconds after T."""
    return Message(T + at, kind, device, FORGET)


def members(counter: Counter, now: float, kind: str = "person") -> set[str]:
    """The zones with a count above 0."""
    return {zone for zone, kinds in counter.counts(T + now).items() if kinds[kind][0]}


BAD = fix(0, 0, 0)


@pytest.mark.parametrize(
    ("message", "verdict"),
    [
        (BAD._replace(t=math.nan), "malformed"),
        (BAD._replace(lat=math.nan), "malformed"),
        (BAD._replace(lon=math.inf), "malformed"),
        (BAD._replace(t=math.inf), "malformed"),
        (BAD._replace(t=math.nan, lat=91.0), "malformed"),
        (BAD._replace(lat=90.5), "invalid"),
        (BAD._replace(lon=-180.5), "invalid"),
        (BAD._replace(lat=0.0, lon=0.0), "invalid"),
        (BAD._replace(lat=0.0, lon=-0.0), "invalid"),
        (BAD._replace(lat=0.0, lon=0.0, t=T + 90), "invalid"),
        (BAD._replace(t=T + 60.125), "future"),
        (BAD._replace(t=T + 60), "accepted"),
        (BAD._replace(t=T - 900), "accepted"),
        (BAD._replace(t=T - 900.125), "late"),
        (BAD._replace(t=T - 900.125, kind="vehicle"), "late"),
        (BAD._replace(t=T - 300.125, kind="vehicle"), "late"),
        (BAD._replace(t=T - 300, kind="vehicle"), "accepted"),
        (BAD._replace(t=T - 901, acc=500.0), "late"),
        (BAD._replace(acc=100.0), "accepted"),
        (BAD._replace(acc=100.5), "inaccurate"),
        (BAD._replace(acc=math.inf), "accepted"),
        (BAD._replace(acc=500.0), "inaccurate"),
        (BAD._replace(acc=math.nan), "accepted"),
        (BAD._replace(acc=-5.0), "accepted"),
        (fix(0, 1699, 0, acc=600), "inaccurate"),
        (fix(0, 1701, 0, acc=600), "outside"),
        (fix(0, 1701, 0, acc=600, t=-901), "late"),
        (fix(0, 600, 0), "outside"),
        (fix(0, 510, 0), "outside"),
        (fix(0, 499, 0), "accepted"),
    ],
)
def test_the_verdict_of_a_first_fix(by: Maker, message: Message, verdict: str) -> None:
    """A first fix gets the verdict of the first rule that matches."""
    counter = by(campus())
    assert counter.send(message) == verdict
    assert bool(members(counter, 0, message.kind)) == (verdict == "accepted")


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        (fix(10, 5, 0, t=0), "duplicate"),
        (fix(10, 5, 0, t=-1), "out_of_order"),
        (fix(910, 5, 0, t=0), "duplicate"),
        (fix(910, 5, 0, t=-1), "out_of_order"),
        (fix(910, 5, 0, t=5), "late"),
        (fix(1, 400, 0, acc=500), "inaccurate"),
        (fix(1, 400, 0), "implausible"),
        (fix(1, 400, 0, acc=100), "implausible"),
        (fix(5, 349, 0), "accepted"),
        (fix(5, 351, 0), "implausible"),
        (fix(5, 370, 0, acc=21), "accepted"),
        (fix(1, 2000, 0), "implausible"),
        (fix(100, 2000, 0), "outside"),
        (fix(100, 514, 0), "accepted"),
        (fix(100, 516, 0), "outside"),
    ],
)
def test_the_verdict_of_a_second_fix(by: Maker, second: Message, verdict: str) -> None:
    """After one accepted in the middle of the campus, the next gets the first verdict that matches."""
    counter = by(campus())
    assert counter.send(fix(0, 0, 0)) == "accepted"
    assert counter.send(second) == verdict


def test_the_accuracy_of_both_positions_widens_what_is_plausible(by: Maker) -> None:
    """450 m in 5 s are plausible with accuracies of 60 m before and 50 m now."""
    counter = by(campus())
    assert counter.send(fix(0, 0, 0, acc=60)) == "accepted"
    assert counter.send(fix(5, 450, 0, acc=30)) == "implausible"
    assert counter.send(fix(5, 450, 0, acc=50)) == "duplicate"
    assert counter.send(fix(5, 450, 0, acc=50, t=4.99)) == "accepted"


def test_the_third_implausible_fix_in_a_row_is_used(by: Maker) -> None:
    """Two jumps are implausible, the third is used, and then it's plausible to stay there."""
    counter = by(campus({"max_speed_mps": 3}))
    assert counter.send(fix(0, 0, 0)) == "accepted"
    got = [counter.send(fix(i, 400, 0)) for i in (1, 2, 3, 4)]
    assert got == ["implausible", "implausible", "accepted", "accepted"]
    assert counter.send(fix(5, 0, 0)) == "implausible"


def test_a_repeated_implausible_fix_is_a_duplicate(by: Maker) -> None:
    """An implausible fix that is delivered again does not count as the next one of the run."""
    counter = by(campus({"max_speed_mps": 3}))
    sent = [
        (fix(0, 0, 0), "accepted"),
        (fix(1, 400, 0), "implausible"),
        (fix(2, 400, 0, t=1), "duplicate"),
        (fix(2, 400, 0), "implausible"),
        (fix(3, 400, 0, t=2), "duplicate"),
        (fix(4, 400, 0), "accepted"),
        (fix(5, 400, 0, t=2), "duplicate"),
        (fix(5, 400, 0, t=1), "out_of_order"),
    ]
    assert [counter.send(message) for message, _ in sent] == [verdict for _, verdict in sent]


def test_a_coarse_fix_beyond_the_site_ends_the_stay(by: Maker) -> None:
    """A fix farther from the site than twice its accuracy takes the device out; its position stays as it was."""
    counter = by(campus(hall=(square(0, 0, 50), {})))
    assert counter.send(fix(0, 0, 0)) == "accepted"
    assert counter.send(fix(10, 5000, 0, acc=2000)) == "outside"
    assert members(counter, 10) == set()
    assert [e.reason for e in counter.happened() if e.type == "exit"] == ["outside", "outside"]
    assert counter.send(fix(11, 5, 0)) == "accepted", "5 m from the last used position"


def test_a_coarse_fix_ends_memberships_of_distant_zones_only(by: Maker) -> None:
    """It leaves the zones farther than twice its accuracy, and enters none."""
    counter = by(campus(hall=(square(-400, 0, 50), {}), lawn=(square(400, 0, 50), {})))
    assert counter.send(fix(0, -400, 0)) == "accepted"
    assert counter.send(fix(10, 400, 0, acc=376)) == "inaccurate"
    assert members(counter, 10) == {"site", "hall"}
    assert counter.send(fix(20, 400, 0, acc=374)) == "inaccurate"
    assert members(counter, 20) == {"site"}
    assert counter.happened()[-1] == OracleEvent("exit", "hall", "person", "a", T + 20, "coarse", TODAY)


def test_inaccurate_fixes_hold_a_device_for_a_limited_time(by: Maker) -> None:
    """The position may become `max_position_age_s` old, or as old as the hold if that is longer."""
    for age, end in ((1200, 1200), (100, 900)):
        counter = by(campus({"max_position_age_s": age}))
        assert counter.send(fix(0, 0, 0)) == "accepted"
        for at in range(200, end, 200):
            assert counter.send(fix(at, 0, 0, acc=200)) == "inaccurate"
        assert members(counter, end) == {"site"}
        assert members(counter, end + 0.125) == set()
        last = counter.happened()[-1]
        assert (last.t, last.reason) == (T + end, "silent")


def test_the_margin_follows_the_accuracy(by: Maker) -> None:
    """A member may be 1.5 accuracies outside, but not more than the margin; an unknown accuracy has the margin."""
    counter = by(campus(hall=(square(0, 0, 50), {})))
    stays = [(0, 64, True), (0, 66, False), (4, 55, True), (4, 57, False), (9.9, 64, True), (50, 64, True)]
    stays += [(50, 66, False), (1, 51, True), (1, 52, False), (-1, 64, True)]
    for i, (acc, x, stays_inside) in enumerate(stays):
        counter.send(fix(60 * i, 0, 0))
        counter.send(fix(60 * i + 30, x, 0, acc=acc))
        assert ("hall" in members(counter, 60 * i + 30)) == stays_inside, (acc, x)


def test_zones_have_their_own_freshness(by: Maker) -> None:
    """A silent car is fresh in its car park for as long as the zone's `fresh_s`, and stale on the site."""
    park = (square(0, 0, 50), {"hold_s": {"vehicle": 43_200}, "fresh_s": {"vehicle": 43_200}})
    counter = by(campus(park=park))
    counter.send(fix(0, 0, 0, kind="vehicle"))
    counts = counter.counts(T + 10_000)
    assert counts["park"]["vehicle"] == (1, 1, 1, 0)
    assert counts["site"]["vehicle"] == (1, 0, 1, 1)


def test_only_a_used_position_ends_a_run_of_implausible_fixes(by: Maker) -> None:
    """An inaccurate or repeated fix between the jumps leaves the run as it is, an accepted one ends it."""
    counter = by(campus({"max_speed_mps": 3}))
    sent = [
        (fix(0, 0, 0), "accepted"),
        (fix(1, 400, 0), "implausible"),
        (fix(2, 400, 0, acc=200), "inaccurate"),
        (fix(3, 400, 0, t=2), "duplicate"),
        (fix(4, 400, 0), "implausible"),
        (fix(5, 0, 1), "accepted"),
        (fix(6, 400, 0), "implausible"),
        (fix(7, 400, 0), "implausible"),
        (fix(8, 400, 0), "accepted"),
    ]
    assert [counter.send(message) for message, _ in sent] == [verdict for _, verdict in sent]


def test_an_inaccurate_fix_is_no_end_of_a_run(by: Maker) -> None:
    """Two jumps, an inaccurate fix and a third jump: the third is used."""
    counter = by(campus({"max_speed_mps": 3}))
    sent = [fix(0, 0, 0), fix(1, 400, 0), fix(2, 400, 0), fix(3, 400, 0, acc=200), fix(4, 400, 0)]
    verdicts = ["accepted", "implausible", "implausible", "inaccurate", "accepted"]
    assert [counter.send(message) for message in sent] == verdicts


def test_the_order_counts_from_the_last_used_fix(by: Maker) -> None:
    """After an inaccurate fix, one from before it is out of order, and one of its time a duplicate."""
    counter = by(campus())
    sent = [fix(0, 0, 0), fix(10, 0, 0, acc=500), fix(11, 0, 0, t=5), fix(11, 0, 0, t=10)]
    verdicts = ["accepted", "inaccurate", "out_of_order", "duplicate"]
    assert [counter.send(message) for message in sent] == verdicts


def test_the_speed_counts_from_the_last_position(by: Maker) -> None:
    """An inaccurate fix moves the last time, but not the instant from which the speed is reckoned."""
    counter = by(campus({"max_speed_mps": 3}))
    counter.send(fix(0, 0, 0))
    counter.send(fix(99, 0, 0, acc=500))
    assert counter.send(fix(100, 299, 0)) == "accepted"


def test_a_zone_is_entered_at_its_edge_and_left_beyond_its_margin(by: Maker) -> None:
    """A device that enters is counted from the edge on, one that leaves up to the margin."""
    counter = by(campus(hall=(square(0, 0, 50), {})))
    where = [
        (55, False),
        (49, True),
        (60, True),
        (64.5, True),
        (66, False),
        (60, False),
        (51, False),
        (0, True),
    ]
    for i, (x, inside) in enumerate(where):
        assert counter.send(fix(30 * i, x, 0)) == "accepted"
        assert ("hall" in members(counter, 30 * i)) == inside, f"at {x} m"


def test_a_margin_of_zero_switches_hysteresis_off(by: Maker) -> None:
    """With margin 0 a zone is left as soon as it doesn't cover the position."""
    counter = by(campus(hall=(square(0, 0, 50), {"leave_margin_m": 0})))
    for i, (x, inside) in enumerate([(49, True), (50.5, False), (49, True)]):
        counter.send(fix(30 * i, x, 0))
        assert ("hall" in members(counter, 30 * i)) == inside


def test_corners_and_edges_belong_to_the_zone(by: Maker) -> None:
    """A fix exactly on a vertex, and one exactly on a straight edge, are inside."""
    hall = square(0, 0, 50)
    (west, south), (east, _), (_, north), *_ = hall["coordinates"][0]
    counter = by(campus(hall=(hall, {"leave_margin_m": 0})))
    places = [(south, west), (north, east), ((south + north) / 2, west), (north, (west + east) / 2)]
    for i, (lat, lon) in enumerate(places):
        counter.send(fix(i * 60, 0, 400))
        assert "hall" not in members(counter, i * 60)
        counter.send(fix(i * 60 + 30, 0, 0)._replace(lat=lat, lon=lon))
        assert "hall" in members(counter, i * 60 + 30)


def test_a_hole_is_not_the_zone(by: Maker) -> None:
    """A device in a courtyard doesn't enter the building around it; one that came out stays up to the margin."""
    counter = by(campus(house=(square(0, 0, 100, hole=50), {})))
    for i, (x, inside) in enumerate([(0, False), (70, True), (40, True), (20, False), (40, False)]):
        counter.send(fix(30 * i, x, 0))
        assert ("house" in members(counter, 30 * i)) == inside


def test_outside_the_site_every_zone_is_left(by: Maker) -> None:
    """Beyond the site's margin all zones are left, even one that reaches beyond the boundary."""
    counter = by(campus(pier=(square(500, 0, 100), {})))
    counter.send(fix(0, 490, 0))
    assert members(counter, 0) == {"site", "pier"}
    assert counter.send(fix(30, 510, 0)) == "accepted"
    assert members(counter, 30) == {"site", "pier"}
    assert counter.send(fix(60, 550, 0)) == "outside"
    assert members(counter, 60) == set()
    assert counter.send(fix(90, 510, 0)) == "outside"
    reasons = [(e.type, e.zone, e.t - T, e.reason) for e in counter.happened()]
    assert sorted(reasons[:2]) == [("enter", "pier", 0, "moved"), ("enter", "site", 0, "moved")]
    assert sorted(reasons[2:]) == [("exit", "pier", 60, "outside"), ("exit", "site", 60, "outside")]


@pytest.mark.parametrize(("kind", "hold"), [("person", 900), ("vehicle", 300)])
def test_the_silent_leave_when_their_hold_has_passed(by: Maker, kind: str, hold: float) -> None:
    """Present up to and including last_t + hold; gone after that, by an event of that instant."""
    counter = by(campus(hall=(square(0, 0, 50), {})))
    counter.send(fix(0, 0, 0, kind=kind))
    assert members(counter, hold, kind) == {"site", "hall"}
    assert members(counter, hold + 0.125, kind) == set()
    gone = [(e.type, e.t - T, e.reason) for e in counter.happened()[2:]]
    assert gone == [("exit", hold, "silent")] * 2


def test_the_longest_hold_of_the_zones_goes_for_all(by: Maker) -> None:
    """A car in a car park of 12 hours is present in all its zones for 12 hours; elsewhere for 300 s."""
    park = (square(0, 0, 50), {"hold_s": {"vehicle": 43_200}})
    yard = (square(0, 0, 100), {"hold_s": {"vehicle": 10, "person": 20}})
    counter = by(campus(park=park, yard=yard))
    counter.send(fix(0, 0, 0, kind="vehicle"))
    assert members(counter, 43_200, "vehicle") == {"site", "park", "yard"}
    counter.send(fix(43_200, 80, 0, kind="vehicle"))
    assert members(counter, 43_500, "vehicle") == {"site", "yard"}
    assert members(counter, 43_500.125, "vehicle") == set()


def test_what_expired_before_a_fix_has_expired_when_it_is_judged(by: Maker) -> None:
    """After its hold ended, a device has to enter again, without the margin, and events show it."""
    counter = by(campus(hall=(square(0, 0, 50), {})))
    counter.send(fix(0, 0, 0))
    assert counter.send(fix(901, 60, 0)) == "accepted"
    assert members(counter, 901) == {"site"}
    assert counter.send(fix(901 + 901, 510, 0)) == "outside"
    silent = [e.t - T for e in counter.happened() if e.reason == "silent"]
    assert silent == [900, 900, 1801]


def test_an_inaccurate_fix_keeps_a_device_alive_where_it_is(by: Maker) -> None:
    """An inaccurate fix from elsewhere extends the hold and moves no device."""
    counter = by(campus(hall=(square(0, 0, 50), {})))
    counter.send(fix(0, 0, 0))
    assert counter.send(fix(800, 300, 0, acc=150)) == "inaccurate"
    assert members(counter, 1700) == {"site", "hall"}
    assert members(counter, 1700.125) == set()


def test_an_inaccurate_fix_adds_no_device(by: Maker) -> None:
    """A device that isn't on site doesn't enter by an inaccurate fix."""
    counter = by(campus())
    assert counter.send(fix(0, 0, 0, acc=150)) == "inaccurate"
    assert members(counter, 0) == set()


def test_offline_ends_nothing_by_itself(by: Maker) -> None:
    """A last will doesn't end presence unless the site file is set so."""
    counter = by(campus())
    counter.send(fix(0, 0, 0))
    counter.send(status(1, OFFLINE))
    assert members(counter, 900) == {"site"}


LEAVE = {"on_offline": {"person": "leave"}, "offline_grace_s": 30}


@pytest.mark.parametrize(
    ("then", "last"),
    [
        ([], 130),
        ([status(120, OFFLINE)], 150),
        ([status(120, ONLINE)], 900),
        ([fix(120, 1, 0)], 1020),
        ([fix(120, 1, 0, acc=500)], 1020),
        ([fix(120, 1, 0, t=0)], 130),
        ([fix(129, 1, 0, t=-1)], 130),
        ([fix(110, 0, 0)._replace(lat=math.nan)], 130),
        ([status(120, ONLINE), status(125, OFFLINE)], 155),
    ],
)
def test_offline_leaves_after_the_grace_if_the_site_sets_it(
    by: Maker, then: list[Message], last: float
) -> None:
    """Offline at 100 s with a grace of 30 s is called off by online and used fixes, and by nothing else."""
    counter = by(campus(LEAVE))
    for message in [fix(0, 0, 0), status(100, OFFLINE), *then]:
        counter.send(message)
    assert members(counter, last) == {"site"}
    assert members(counter, last + 0.125) == set()
    assert counter.happened()[-1] == OracleEvent("exit", "site", "person", "a", T + last, "silent", TODAY)


def test_offline_never_prolongs(by: Maker) -> None:
    """Offline shortly before the hold ends doesn't keep anybody longer than the hold."""
    counter = by(campus(LEAVE))
    counter.send(fix(0, 0, 0))
    counter.send(status(890, OFFLINE))
    assert members(counter, 900) == {"site"}
    assert members(counter, 900.125) == set()


def test_offline_of_one_kind_is_not_of_the_other(by: Maker) -> None:
    """Kind and id together are a device: the car `a` stays when the person `a` goes offline."""
    counter = by(campus({"on_offline": "leave"}))
    counter.send(fix(0, 0, 0))
    counter.send(fix(0, 0, 0, kind="vehicle"))
    counter.send(status(1, OFFLINE))
    numbers = counter.counts(T + 100)["site"]
    assert (numbers["person"][0], numbers["vehicle"][0]) == (0, 1)


@pytest.mark.parametrize(
    ("x", "acc", "hall"),
    [
        (0, 10, (1, 1, 1, 0)),  # its circle is inside
        (45, 10, (1, 0, 1, 0)),  # its circle crosses the edge
        (45, 0, (1, 1, 1, 0)),  # a position without accuracy is a point
        (55, 10, (0, 0, 1, 0)),  # outside, and its circle touches the zone
        (65, 10, (0, 0, 0, 0)),  # outside, and its circle doesn't reach
    ],
)
def test_low_and_high(by: Maker, x: float, acc: float, hall: tuple[int, ...]) -> None:
    """`low` counts only whole circles, `high` adds those whose circle touches the zone."""
    counter = by(campus(hall=(square(0, 0, 50), {})))
    counter.send(fix(0, x, 0, acc))
    assert counter.counts(T + 1)["hall"]["person"] == hall


def test_low_of_a_member_in_the_margin(by: Maker) -> None:
    """A member that stands in the margin is counted, and its circle isn't inside."""
    counter = by(campus(hall=(square(0, 0, 50), {})))
    counter.send(fix(0, 45, 0))
    counter.send(fix(10, 55, 0))
    assert counter.counts(T + 10)["hall"]["person"] == (1, 0, 1, 0)


def test_a_circle_inside_goes_by_holes_too(by: Maker) -> None:
    """A circle that reaches into a courtyard isn't inside the building."""
    counter = by(campus(house=(square(0, 0, 100, hole=50), {})))
    counter.send(fix(0, 75, 0, acc=24))
    assert counter.counts(T)["house"]["person"] == (1, 1, 1, 0)
    counter.send(fix(10, 75, 0, acc=26))
    assert counter.counts(T + 10)["house"]["person"] == (1, 0, 1, 0)


@pytest.mark.parametrize(("age", "low", "stale"), [(119.875, 1, 0), (120, 0, 0), (120.125, 0, 1)])
def test_fresh_and_stale(by: Maker, age: float, low: int, stale: int) -> None:
    """Younger than fresh_s may be `low`, older is `stale`, exactly as old is neither."""
    counter = by(campus())
    counter.send(fix(0, 0, 0))
    assert counter.counts(T + age)["site"]["person"] == (1, low, 1, stale)


def test_an_inaccurate_fix_keeps_a_device_fresh(by: Maker) -> None:
    """`stale` goes by the last used fix, inaccurate ones included, `low` by the last used position."""
    counter = by(campus())
    counter.send(fix(0, 0, 0, acc=5))
    counter.send(fix(100, 400, 0, acc=600))
    assert counter.counts(T + 219)["site"]["person"] == (1, 1, 1, 0)


def test_a_device_that_left_is_not_in_high(by: Maker) -> None:
    """A device outside the site isn't present, however near: `high` doesn't count it."""
    counter = by(campus())
    assert counter.send(fix(0, 505, 0, acc=50)) == "outside"
    assert counter.counts(T)["site"]["person"] == (0, 0, 0, 0)


def test_a_day_after_its_last_fix_a_device_is_forgotten(by: Maker) -> None:
    """A day after its last fix a device's state is deleted, and a jump isn't implausible."""
    counter = by(campus({"max_speed_mps": 0.001}))
    counter.send(fix(0, 0, 0))
    assert counter.send(fix(86_400, 400, 0)) == "implausible"
    assert counter.send(fix(86_400.125, 400, 0)) == "accepted"


def test_a_poll_after_more_than_a_day_still_reports_the_exits(by: Maker) -> None:
    """A query days later gets the exits with the devices' pseudonyms."""
    counter = by(campus())
    counter.send(fix(0, 0, 0))
    assert members(counter, 1_000_000) == set()
    assert counter.happened()[-1] == OracleEvent("exit", "site", "person", "a", T + 900, "silent", TODAY)


def test_who_is_forgotten_has_never_been_here(by: Maker) -> None:
    """A marker ends the stay at its moment; after it an older fix counts, and what was remembered doesn't."""
    counter = by(campus(hall=(square(0, 0, 50), {})))
    assert counter.send(fix(10, 0, 0)) == "accepted"
    counter.send(forget(20))
    assert members(counter, 20) == set()
    assert counter.happened()[-1][3:] == ("a", T + 20, "removed", TODAY)
    assert counter.send(fix(25, 0, 0, t=5)) == "accepted", "no last t"
    counter.send(forget(26))
    assert counter.send(fix(27, 400, 400)) == "accepted", "no last position: nothing is implausible"
    assert members(counter, 30) == {"site"}


def test_forgetting_the_unknown_or_the_absent_changes_nothing(by: Maker) -> None:
    """A marker for an absent or another device, or a repeated one, causes no event."""
    counter = by(campus(hall=(square(0, 0, 50), {})))
    counter.send(forget(0))
    counter.send(fix(1, 0, 0))
    counter.send(forget(2, device="b"))
    counter.send(forget(2, kind="vehicle"))
    assert members(counter, 3) == {"site", "hall"}
    counter.send(forget(4))
    happened = len(counter.happened())
    counter.send(forget(4))
    counter.send(forget(5))
    assert len(counter.happened()) == happened == 4


def test_who_has_fallen_silent_is_not_removed_as_well(by: Maker) -> None:
    """A hold that ended before the marker was received has one exit, with the reason silent."""
    counter = by(campus())
    counter.send(fix(0, 0, 0))
    counter.send(forget(900.125))
    assert [(e.type, e.t, e.reason) for e in counter.happened()[1:]] == [("exit", T + 900, "silent")]
