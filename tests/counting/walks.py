"""Random messages of random devices on a random campus: honest, noisy, late, broken, twice, silent."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from headcount.lab.chaos.scenarios import Scenario

START_S = 1_790_000_000.0
#: All times are multiples of it, so that sums are exact and "at that very instant" can be met.
STEP_S = 0.125
FIX, ONLINE, OFFLINE, FORGET = 0, 1, 2, 3
#: Missing (NaN), not finite, negative, tiny, around the default limit, and huge.
ODD_ACCURACIES = (
    *(math.nan, math.inf, -math.inf, -1.0, 1e-300, 0.5, 30.0, 30.5, 60.0),
    *(99.5, 100.0, 100.5, 150.0, 5000.0, 1e308),
)


class Message(NamedTuple):
    """A fix or status message as it was received, or a marker to forget; a missing number is NaN."""

    received: float
    kind: str
    device: str
    what: int
    t: float = math.nan
    lat: float = math.nan
    lon: float = math.nan
    acc: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """The kind and id of the device."""
        return self.kind, self.device


@dataclass
class Mover:
    """A device as the generator sees it."""

    kind: str
    id: str
    x: float = 0.0
    y: float = 0.0
    t: float = START_S
    sent: list[Message] = field(default_factory=list)


def walk(rng: Random, scene: Scenario, devices: int, length: int) -> list[Message]:
    """`length` messages of `devices` devices, in the order in which they were received."""
    movers = [Mover(rng.choice(("person", "vehicle")), f"d{i // 2}") for i in range(devices)]
    movers = list({(m.kind, m.id): m for m in movers}.values())
    now, messages = START_S, list[Message]()
    while len(messages) < length:
        mover = rng.choice(movers)
        if rng.random() < 0.01:  # a new device replaces another one
            movers.remove(mover)
            mover = Mover(mover.kind, f"n{len(messages)}", mover.x, mover.y, now)
            movers.append(mover)
        now = _later(rng, now, mover, scene)
        for message in _messages(rng, now, mover, scene):
            now = max(now, message.received)
            messages.append(message)
            mover.sent.append(message)
    return messages


def steps(rng: Random, most_s: float) -> float:
    """A time from 0 to that, a multiple of the step."""
    return rng.randint(0, int(most_s / STEP_S)) * STEP_S


def _later(rng: Random, now: float, mover: Mover, scene: Scenario) -> float:
    roll = rng.random()
    if roll < 0.3:
        return now
    if roll < 0.93:
        return now + steps(rng, 10)
    if roll < 0.99 and mover.sent:  # the very end of a hold, or just before or after
        waits_s = scene.waits_s if rng.random() < 0.1 else scene.waits_s[:4]
        end = mover.sent[-1].t + rng.choice(waits_s) + rng.choice((-STEP_S, 0, STEP_S))
        return max(now, end) if math.isfinite(end) else now
    return now + rng.choice((200.0, 400.0, 1000.0, 45000.0, 90000.0))


def _messages(rng: Random, now: float, mover: Mover, scene: Scenario) -> list[Message]:
    roll = rng.random()
    if roll < 0.015:
        return _forgotten(rng, now, mover)
    if roll < 0.06:
        return [Message(now, mover.kind, mover.id, rng.choice((ONLINE, OFFLINE, OFFLINE)))]
    if roll < 0.12 and mover.sent:
        return [rng.choice(mover.sent[-3:])._replace(received=now)]
    if roll < 0.18:
        return [_broken(rng, now, mover, scene)]
    if roll < 0.25:
        return _odd_times(rng, now, mover, scene)
    if roll < 0.27:
        return _backlog(rng, now, mover, scene)
    if roll < 0.32:
        return _teleport(rng, now, mover, scene)
    if roll < 0.37:
        return _coarse(rng, now, mover, scene)
    lag = rng.choice((0.0, 0.0, 0.0, steps(rng, 30), rng.choice(scene.waits_s[:5]) + STEP_S))
    mover.t = max(min(mover.t, now) + STEP_S, now - lag)
    return [_fix(rng, now, mover, mover.t, _move(rng, mover, scene))]


def _forgotten(rng: Random, now: float, mover: Mover) -> list[Message]:
    """A marker for a device, sometimes repeated or for an unknown device, and sometimes its last fix again."""
    marker = Message(now, mover.kind, rng.choice((mover.id, mover.id, mover.id, "stranger")), FORGET)
    again = [said._replace(received=now) for said in mover.sent[-1:] if said.what == FIX]
    return [marker, *rng.choice(([], [], [marker], again, [*again, marker], [*again, marker, *again]))]


def _fix(rng: Random, now: float, mover: Mover, t: float, at: tuple[float, float]) -> Message:
    return Message(now, mover.kind, mover.id, FIX, t, *at, _accuracy(rng))


def _accuracy(rng: Random) -> float:
    if rng.random() < 0.8:
        return rng.choice((0.0, 3.0, 8.0, 20.0))
    return rng.choice(ODD_ACCURACIES)


def _move(rng: Random, mover: Mover, scene: Scenario) -> tuple[float, float]:
    """Where it goes next: some metres on, somewhere on the campus, or exactly to a special spot."""
    roll = rng.random()
    if roll < 0.3:
        return rng.choice(scene.spots)
    if roll < 0.4:  # just around a special spot, on both sides of the margins
        lat, lon = rng.choice(scene.spots)
        y = math.degrees(rng.uniform(-45, 45) / 6_371_008.8)
        return max(-90.0, min(90.0, lat + y)), lon + rng.choice((0.0, y))
    if roll < 0.6:
        mover.x, mover.y = (rng.uniform(-0.8, 0.8) * scene.radius_m for _ in "xy")
    else:
        mover.x, mover.y = mover.x + rng.uniform(-25, 25), mover.y + rng.uniform(-25, 25)
    return scene.degrees(mover.x, mover.y)


def _broken(rng: Random, now: float, mover: Mover, scene: Scenario) -> Message:
    good = _fix(rng, now, mover, now, _move(rng, mover, scene))
    return rng.choice(
        (
            good._replace(t=math.nan),
            good._replace(lat=math.nan),
            good._replace(lon=math.nan),
            good._replace(t=math.inf),
            good._replace(t=-1e308),
            good._replace(lat=1e308),
            good._replace(lon=-math.inf),
            good._replace(lat=0.0, lon=-0.0),
            good._replace(lat=90.5),
            good._replace(lon=-180.25),
        )
    )


def _odd_times(rng: Random, now: float, mover: Mover, scene: Scenario) -> list[Message]:
    """Before the last one, long ago (to the very instant at which it's too late), in the future."""
    if rng.random() < 0.5:
        t = now - rng.choice(scene.waits_s[:5]) + rng.choice((-STEP_S, 0.0, STEP_S))
        return [_fix(rng, now, mover, t, _move(rng, mover, scene))]
    t = rng.choice(
        (
            mover.t - steps(rng, 20) - STEP_S,
            now + 60.0,
            now + 60.0 + STEP_S,
            now + steps(rng, 60),
        )
    )
    return [_fix(rng, now, mover, t, _move(rng, mover, scene))]


def _teleport(rng: Random, now: float, mover: Mover, scene: Scenario) -> list[Message]:
    """One to four fixes in a row from far away, or spread over the campus too fast."""
    far = rng.choice((2_000.0, 30_000.0, 2_000_000.0))
    x, y = rng.choice(((far, 0.0), (0.0, -far), (rng.uniform(-1, 1) * scene.radius_m, 0.0)))
    said = list[Message]()
    for _ in range(rng.randint(1, 4)):
        now += rng.choice((STEP_S, 1.0))
        mover.t = max(mover.t, now)
        at = scene.degrees(x + rng.uniform(-5, 5), y)
        if -90 <= at[0] <= 90 and -180 <= at[1] <= 180:
            said.append(_fix(rng, now, mover, mover.t, at))
    # a message that is delivered again while the run of implausible ones goes on
    return [again for m in said for again in [m] * rng.choice((1, 1, 1, 2))]


def _backlog(rng: Random, now: float, mover: Mover, scene: Scenario) -> list[Message]:
    """Fixes that a phone collected without a network, up to now, all received together, sometimes twice."""
    length = rng.choice((2, 5, 12))
    every = rng.choice((1.0, 20.0, 90.0, 300.0))
    mover.t = max(mover.t, now)
    times = [now - every * back for back in reversed(range(length))]
    said = [_fix(rng, now, mover, t, _move(rng, mover, scene)) for t in times]
    return said * rng.choice((1, 1, 2))


def _coarse(rng: Random, now: float, mover: Mover, scene: Scenario) -> list[Message]:
    """Fixes of cell towers only, for a moment or for hours, near the site and far from it."""
    said = list[Message]()
    for _ in range(rng.choice((1, 1, 2, 6))):
        mover.t = max(mover.t + STEP_S, now)
        acc = rng.choice((150.5, 200.0, 400.0, 3000.0, 1e6))
        reach = rng.choice((0.0, 0.5, 1.0, 1.9, 2.1, 4.0)) * min(acc, 10_000.0)
        x = rng.uniform(-1, 1) * scene.radius_m + rng.choice((-reach, reach))
        lat, lon = scene.degrees(x, rng.uniform(-1, 1) * scene.radius_m)
        said.append(Message(now, mover.kind, mover.id, FIX, mover.t, lat, lon, acc))
        now += rng.choice((1.0, 20.0, 40.0, 290.0))
    return said
