"""The messages of devices and their times: a pure function of seed and scenario.

Times are relative to the start of the run, a whole second of Unix time, which is added when a message is sent.
Devices walk, park, stop reporting, send backlogs, repeat messages, jump, and send malformed messages.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from headcount.lab.chaos.scenarios import Scenario

CONNECTIONS = 6
#: Rates of messages per second, and the time after which another rate is chosen.
RATES, RATE_LASTS_S = (40.0, 120.0, 250.0), 10.0
#: Number of latest messages that a flood repeats, and its duration.
FLOOD, FLOOD_LASTS_S = 1_000, 2.0
QOS1_SHARE = 0.4


class ScheduledMessage(NamedTuple):
    """A message and its time."""

    at_s: float
    connection: int
    qos: int
    kind: str
    device: str
    status: str | None = None  # online or offline; None for a fix
    t_s: float = 0.0
    body: dict[str, Any] = {}  # noqa: RUF012 - never changed
    raw: bytes | None = None  # instead of a body
    number: int = 0  # of a fix, contained in its payload
    site: str = ""

    def payload(self, start_s: int) -> bytes:
        """The bytes to send in a run that started at `start_s`."""
        if self.status is not None:
            return self.status.encode()
        if self.raw is not None:
            return self.raw
        t = round(start_s + self.t_s, 3)
        if self.number % 3 == 0:
            times = {"tst": t}
        elif t == int(t):
            times = {"tst": int(t)}
        else:
            times = {"tst": math.floor(t), "t": t}
        return json.dumps({"_type": "location", **times, **self.body, "n": self.number}).encode()


@dataclass
class _MovingDevice:
    kind: str
    id: str
    connection: int
    whole_s: bool  # its clock has whole seconds
    x: float = 0.0
    y: float = 0.0
    t_s: float = 0.0
    offline_until_s: float = 0.0
    offline_from_s: float = 0.0
    backlog: list[tuple[float, dict[str, Any]]] = field(default_factory=list)


class _TrafficGenerator:
    """Creates messages one after the other."""

    def __init__(self, seed: int, scenario: Scenario, first: int) -> None:
        self.rng = Random(f"load {seed}")
        self.scenario = scenario
        self.messages: list[ScheduledMessage] = []
        self.fixes = first
        self.latest: deque[ScheduledMessage] = deque(maxlen=FLOOD)
        rules = scenario.geojson["features"][0]["properties"]
        self.site = rules["id"]
        hold_s = rules["hold_s"]
        self.hold_s = hold_s if isinstance(hold_s, dict) else {"person": hold_s, "vehicle": hold_s}
        self.movers = [self._mover(i) for i in range(self.rng.choice((40, 100, 200)))]

    def _mover(self, i: int) -> _MovingDevice:
        rng = self.rng
        kind = rng.choice(("person", "person", "vehicle"))
        mover = _MovingDevice(kind, f"d{i // 2}", rng.randrange(CONNECTIONS), rng.random() < 0.4)
        mover.x, mover.y = (rng.uniform(-0.4, 0.4) * self.scenario.radius_m for _ in "xy")
        mover.offline_from_s = rng.uniform(3, 40)
        return mover

    def add_next(self, now_s: float) -> None:
        """Add the next message of a random device."""
        rng = self.rng
        mover = rng.choice(self.movers)
        if now_s >= mover.offline_from_s:
            mover.offline_until_s = now_s + rng.uniform(2, 35)
            mover.offline_from_s = mover.offline_until_s + rng.uniform(3, 40)
        if now_s < mover.offline_until_s:
            if rng.random() < 0.2 and len(mover.backlog) < 12:  # it has a position but no network
                mover.backlog.append((self._t(mover, now_s), self._position(mover)))
            return
        if mover.backlog:
            for t_s, body in mover.backlog:
                self._add_fix(mover, now_s, t_s, body)
            mover.backlog = []
        self._add_message(mover, now_s)

    def _add_message(self, mover: _MovingDevice, now_s: float) -> None:
        rng, roll = self.rng, self.rng.random()
        if roll < 0.04:
            self._add(
                ScheduledMessage(now_s, 0, 0, "", "", rng.choice(("online", "offline", "offline"))), mover
            )
        elif roll < 0.10 and self.latest:
            repeated = rng.choice(list(self.latest)[-40:])
            self.messages.append(repeated._replace(at_s=now_s))
        elif roll < 0.14:
            self._add(ScheduledMessage(now_s, 0, 0, "", "", raw=self._malformed()), mover)
        elif roll < 0.17:
            self._add_fix(
                mover, now_s, now_s, rng.choice(({"lat": 0, "lon": 0.0}, {"lat": 90.5, "lon": 1.0}))
            )
        elif roll < 0.24:
            self._add_fix(mover, now_s, self._odd_time(mover, now_s), self._position(mover))
        elif roll < 0.27:
            self._add_jump(mover, now_s)
        elif roll < 0.31:
            self._add_coarse(mover, now_s)
        else:
            self._add_fix(mover, now_s, self._t(mover, now_s), self._position(mover))

    def _t(self, mover: _MovingDevice, now_s: float) -> float:
        lag_s = self.rng.choice((0.0, 0.0, self.rng.uniform(0, 2), self.rng.uniform(0, 9)))
        t_s = max(mover.t_s + 0.001, now_s - lag_s)
        mover.t_s = float(math.floor(t_s)) if mover.whole_s else round(t_s, 3)
        return mover.t_s

    def _odd_time(self, mover: _MovingDevice, now_s: float) -> float:
        """A time before the last one, at the end of a hold, too late, or in the future."""
        rng, hold_s = self.rng, self.hold_s[mover.kind]
        if rng.random() < 0.02:  # later fixes are out of order until its clock has caught up
            return rng.choice((mover.t_s + hold_s, now_s + 59.9))
        early_s = (mover.t_s - rng.uniform(0, 5), mover.t_s - hold_s, now_s - hold_s - rng.uniform(-1, 3))
        return rng.choice((*early_s, now_s + 60 + rng.uniform(0.5, 20)))

    def _position(self, mover: _MovingDevice) -> dict[str, Any]:
        """A position some metres away, anywhere on the site, or at a critical position."""
        rng, scenario = self.rng, self.scenario
        roll = rng.random()
        if roll < 0.15:
            lat, lon = rng.choice(scenario.spots)
        else:
            if roll < 0.20:
                mover.x, mover.y = (rng.uniform(-1.1, 1.1) * scenario.radius_m for _ in "xy")
            else:
                # a drift to the centre keeps most devices on the site
                mover.x, mover.y = (0.97 * at + rng.uniform(-12, 12) for at in (mover.x, mover.y))
            lat, lon = scenario.degrees(mover.x, mover.y)
        body: dict[str, Any] = {"lat": lat, "lon": lon}
        acc = rng.choice((None, 0, -1, "8", True, 1e-9, 3, 8, 8, 20, 20, 45.5, 150, 3000, 1e9))
        return body if acc is None else body | {"acc": acc}

    def _add_jump(self, mover: _MovingDevice, now_s: float) -> None:
        """Add one to four fixes far away."""
        far_m = self.rng.choice((2_000.0, 30_000.0))
        lat, lon = self.scenario.degrees(far_m, -far_m)
        for _ in range(self.rng.randint(1, 4)):
            self._add_fix(mover, now_s, self._t(mover, now_s), {"lat": lat, "lon": lon, "acc": 5})

    def _add_coarse(self, mover: _MovingDevice, now_s: float) -> None:
        """Add fixes of cell towers, near the site and far from it, sometimes for a while."""
        for _ in range(self.rng.choice((1, 1, 4))):
            x, y = (self.rng.uniform(-4, 4) * self.scenario.radius_m for _ in "xy")
            lat, lon = self.scenario.degrees(x, y)
            body = {"lat": lat, "lon": lon, "acc": self.rng.choice((110, 151, 400, 2500))}
            self._add_fix(mover, now_s, self._t(mover, now_s), body)

    def _malformed(self) -> bytes:
        return self.rng.choice(
            (
                b"",
                b"hello",
                b"[]",
                b'{"tst":1790000000,"lat":1',
                b'{"lat":1.0,"lon":2.0}',
                b'{"tst":"1790000000","lat":1.0,"lon":2.0}',
                b'{"tst":1790000000,"lat":null,"lon":2.0}',
                b'{"tst":1790000000,"lat":"1","lon":2.0}',
                b"\xff\xfe{}",
            )
        )

    def _add_fix(self, mover: _MovingDevice, now_s: float, t_s: float, body: dict[str, Any]) -> None:
        self.fixes += 1
        qos = int(self.rng.random() < QOS1_SHARE)
        message = ScheduledMessage(now_s, 0, qos, "", "", t_s=round(t_s, 3), body=body, number=self.fixes)
        self.latest.append(self._add(message, mover))

    def _add(self, message: ScheduledMessage, mover: _MovingDevice) -> ScheduledMessage:
        own = message._replace(connection=mover.connection, kind=mover.kind, device=mover.id, site=self.site)
        self.messages.append(own)
        return own

    def flood(self, now_s: float) -> None:
        """Repeat the latest fixes."""
        number = len(self.latest)
        for i, message in enumerate(list(self.latest)):
            self.messages.append(message._replace(at_s=now_s + FLOOD_LASTS_S * i / number))


def traffic(
    seed: int, scenario: Scenario, seconds: float, floods_s: Sequence[float], first: int = 0
) -> list[ScheduledMessage]:
    """All messages of a run in the order of time.

    Args:
        seed: determines the messages.
        scenario: the site.
        seconds: duration.
        floods_s: times at which devices repeat their latest messages.
        first: the number before that of the first fix.
    """
    generator = _TrafficGenerator(seed, scenario, first)
    waiting = sorted(floods_s)
    now_s, rate, drawn = 0.0, 0.0, -1
    while now_s < seconds:
        if int(now_s / RATE_LASTS_S) > drawn:
            drawn = int(now_s / RATE_LASTS_S)
            rate = generator.rng.choice(RATES)
        now_s += generator.rng.expovariate(rate)
        while waiting and waiting[0] <= now_s:
            generator.flood(waiting.pop(0))
        generator.add_next(round(now_s, 3))
    return sorted(generator.messages, key=lambda message: message.at_s)
