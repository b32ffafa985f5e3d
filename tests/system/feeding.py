"""Devices that walk, stop reporting and misbehave, over several real MQTT connections.

Everything that a device does is drawn from one seed. The network decides when a message arrives: the log
records it, and the expected counts follow from the log.
"""

from __future__ import annotations

import json
import math
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from waiting import BUSY_S, wait_until

CENTRE = (52.6738, -8.5725)  # lat, lon
SITE_ID = "walks"
#: Holds are short, so that people and cars time out during the test.
HOLD_S = {"person": 4.0, "vehicle": 3.0}
LONGEST_HOLD_S = 8.0
RULES = {
    "hold_s": HOLD_S,
    "fresh_s": 1.5,
    "leave_margin_m": 10,
    "max_accuracy_m": 60,
    "max_speed_mps": {"person": 20, "vehicle": 40},
    "on_offline": {"vehicle": "leave"},
    "offline_grace_s": 0.7,
}


def degrees(x_m: float, y_m: float) -> tuple[float, float]:
    """Latitude and longitude of a place so far east and north of the centre."""
    lat, lon = CENTRE
    return lat + y_m / 111_195, lon + x_m / 111_195 / math.cos(math.radians(lat))


def _box(x0: float, y0: float, x1: float, y1: float, *hole: float) -> list[list[list[float]]]:
    """The rings of a rectangle in metres around the centre, maybe with a rectangular hole."""
    rings = [[(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]]
    if hole:
        a, b, c, d = hole
        rings.append([(a, b), (a, d), (c, d), (c, b), (a, b)])
    return [[[*reversed(degrees(x, y))] for x, y in ring] for ring in rings]


def _zone(name: str, type_: str, *rings: list[list[list[float]]], **own: Any) -> dict[str, Any]:
    geometry = (
        {"type": "Polygon", "coordinates": rings[0]}
        if len(rings) == 1
        else {"type": "MultiPolygon", "coordinates": list(rings)}
    )
    return {
        "type": "Feature",
        "properties": {"role": "zone", "id": name, "name": name, "type": type_, **own},
        "geometry": geometry,
    }


def campus() -> dict[str, Any]:
    """A campus of 400 by 300 m: nested, overlapping, holed and scattered zones, some without margin."""
    boundary = {
        "type": "Feature",
        "properties": {"role": "site", "id": SITE_ID, "name": "Walks", "timezone": "UTC", **RULES},
        "geometry": {"type": "Polygon", "coordinates": _box(-200, -150, 200, 150)},
    }
    zones = [
        _zone("hall", "building", _box(-150, -100, -50, 0)),
        _zone("hall-stage", "building", _box(-120, -70, -80, -30), leave_margin_m=0),
        _zone("court", "area", _box(-20, -120, 80, 20, 10, -80, 50, -20)),
        _zone("lawn", "area", _box(-80, -60, 20, 60), leave_margin_m=25),
        _zone(
            "huts", "building", _box(-180, 60, -150, 90), _box(-130, 60, -100, 90), _box(-80, 80, -50, 110)
        ),
        _zone("cars", "car_park", _box(90, -140, 190, -40), hold_s={"vehicle": LONGEST_HOLD_S}),
        _zone("gate", "gate", _box(180, 20, 200, 60), leave_margin_m=5),
        _zone("library", "building", _box(40, 50, 140, 130), hold_s={"person": 6}),
        _zone("reading-room", "building", _box(60, 70, 100, 110), leave_margin_m=3),
    ]
    return {"type": "FeatureCollection", "features": [boundary, *zones]}


def write_campus(folder: Path) -> Path:
    """The campus as a site file."""
    path = folder / "walks.geojson"
    path.write_text(json.dumps(campus()))
    return path


@dataclass
class Device:
    """One walker; it may talk at most one fix a second or so."""

    kind: str
    id: str
    x: float
    y: float
    towards: tuple[float, float]
    quiet_until: float = 0.0
    jumps: int = 0  # implausible fixes still to come
    last_t: float = 0.0
    last: bytes = b""

    @property
    def topic(self) -> str:
        """Where its fixes go."""
        return f"headcount/{SITE_ID}/{self.kind}/{self.id}/fix"


Message = tuple[str, bytes]


class Walkers:
    """The devices' messages, one after the other; pure but for the time that is handed in."""

    def __init__(self, seed: int, devices: int) -> None:
        """`devices` devices, a third of them vehicles."""
        self._rng = random.Random(seed)
        self._devices = [self._device(i) for i in range(devices)]

    def _device(self, number: int) -> Device:
        kind = "vehicle" if number % 3 == 0 else "person"
        # every seventh id is used by a person and by a vehicle: they are two devices
        name = f"d{number // 7 * 7 if number % 7 == 1 else number}"
        return Device(kind, name, *self._place(), self._place())

    def _place(self) -> tuple[float, float]:
        """Mostly on site, sometimes beyond its edge."""
        return self._rng.uniform(-240, 240), self._rng.uniform(-190, 190)

    def next_message(self, now: float) -> Message:
        """The next message of some device."""
        rng = self._rng
        device = rng.choice(self._devices)
        for _ in range(20):
            if device.quiet_until <= now:
                break
            device = rng.choice(self._devices)
        roll = rng.random()
        if roll < 0.03:
            return device.topic.replace("/fix", "/status"), rng.choice(
                (b"online", b"offline", b"offline", b"?")
            )
        if roll < 0.06 and device.last:
            return device.topic, device.last
        if roll < 0.09:
            return device.topic, self._broken(now)
        if roll < 0.13:
            return device.topic, self._at_odd_time(device, now)
        if roll < 0.15:
            device.jumps = rng.randint(1, 4)
        if roll > 0.93:  # silent for long enough to leave, or nearly
            device.quiet_until = now + rng.choice((2.0, HOLD_S[device.kind] + 0.5, LONGEST_HOLD_S + 2))
        return device.topic, self._step(device, now)

    def _step(self, device: Device, now: float) -> bytes:
        rng = self._rng
        dx, dy = device.towards[0] - device.x, device.towards[1] - device.y
        distance = math.hypot(dx, dy)
        step = (8.0 if device.kind == "person" else 20.0) * rng.random()
        if distance < step:
            device.towards = self._place()
        else:
            device.x, device.y = device.x + dx / distance * step, device.y + dy / distance * step
        x, y = device.x + rng.gauss(0, 2), device.y + rng.gauss(0, 2)
        if device.jumps:
            device.jumps -= 1
            x += 30_000
        if rng.random() < 0.1:  # whole seconds, as most apps have them: coincidences are wanted
            device.last_t = float(math.floor(now))
        else:
            device.last_t = now - rng.choice((0.0, 0.0, rng.uniform(0, 1)))
        acc = rng.choice((None, 0, 3, 8, 25, 25, 59.5, 60, 60.5, 150))
        device.last = self._payload(device.last_t, x, y, acc)
        return device.last

    def _at_odd_time(self, device: Device, now: float) -> bytes:
        rng = self._rng
        t = rng.choice(
            (
                device.last_t - rng.uniform(0.1, 3),  # out of order
                now - HOLD_S[device.kind] - rng.uniform(0.2, 5),  # late
                now + 100 + rng.uniform(0, 9),  # future, however long it is on its way
                now + rng.uniform(0, 2),  # a clock that is fast
            )
        )
        return self._payload(t, device.x, device.y, 5)

    def _broken(self, now: float) -> bytes:
        lat, lon = CENTRE
        return self._rng.choice(
            (
                b"",
                b"\xff\xfe\x00",
                b"not json",
                b"[1,2",
                b"[" * 3000,
                json.dumps({"tst": now, "lat": lat}).encode(),
                json.dumps({"tst": now, "lat": str(lat), "lon": lon}).encode(),
                json.dumps({"tst": True, "lat": lat, "lon": lon}).encode(),
                json.dumps({"tst": now, "lat": lat, "lon": math.nan}).encode(),
                json.dumps({"tst": now, "lat": lat, "lon": lon, "acc": "good"}).encode(),
                json.dumps({"tst": now, "lat": lat, "lon": lon, "pad": "x" * 20_000}).encode(),
                json.dumps({"tst": now, "lat": 95, "lon": lon}).encode(),
                json.dumps({"tst": now, "lat": lat, "lon": -180.5}).encode(),
                json.dumps({"tst": now, "lat": 0, "lon": 0}).encode(),
            )
        )

    def _payload(self, t: float, x: float, y: float, acc: float | None) -> bytes:
        lat, lon = degrees(x, y)
        body: dict[str, Any] = {"_type": "location", "tst": math.floor(t), "lat": lat, "lon": lon}
        if t != math.floor(t):
            body["t"] = t
        elif self._rng.random() < 0.5:
            body["t"] = "p"  # OwnTracks' trigger
        if acc is not None:
            body["acc"] = acc
        return json.dumps(body).encode()


@dataclass
class Feeder:
    """Sends the walkers' messages at a rate, over several connections that come back after every break."""

    port: int
    walkers: Walkers
    per_s: float = 150.0
    connections: int = 5
    sent: int = 0
    _end: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._clients = [self._connect(n) for n in range(self.connections)]
        self._thread = threading.Thread(target=self._feed, name="feeder")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Send no more, once what is under way has gone."""
        if self._end.is_set():
            return
        self._end.set()
        self._thread.join()
        with suppress(AssertionError):  # a client without a connection keeps its messages
            wait_until(lambda: not any(c.want_write() for c in self._clients), "empty queues", BUSY_S)
        for client in self._clients:
            client.disconnect()
            client.loop_stop()

    def _connect(self, number: int) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2, f"feeder-{number}", protocol=paho.MQTTv311)
        client.reconnect_delay_set(1, 2)
        client.connect_async("127.0.0.1", self.port)
        client.loop_start()
        return client

    def _feed(self) -> None:
        rng = random.Random(len(self._clients))
        due = time.monotonic()

        while not self._end.is_set():
            due = max(due + 1 / self.per_s, time.monotonic() - 0.2)
            if (wait := due - time.monotonic()) > 0:
                self._end.wait(wait)
            topic, payload = self.walkers.next_message(time.time())

            # a device keeps to its connection, as a real one does
            client = self._clients[hash(topic) % len(self._clients)]
            if client.is_connected():
                client.publish(topic, payload, qos=rng.choice((0, 1)))
                self.sent += 1
