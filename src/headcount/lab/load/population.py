"""The devices of a day from a seed: people and cars, their routes, and how they send. Pure.

A day of 24 hours lasts minutes, so devices are very fast, which the rules of the site allow.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from headcount.counting.site_file import parse_site
from headcount.messages.fixes import encode_fix
from headcount.messages.topics import FIX_TOPIC, STATUS_TOPIC, Kind
from headcount.simulate.places import POINTS_PER_PLACE, find_places, to_degrees

#: How a device sends: on its own topic, or on the topic of an older flow, plain or in Base64.
Flow = Literal["own", "iotp", "iotp64"]
FLOWS: tuple[Flow, ...] = ("own", "iotp", "iotp64")
IOTP_TOPIC: dict[Kind, str] = {"person": "mobile-iotp", "vehicle": "car-iotp"}

VEHICLE_SHARE, QOS1_SHARE, IOTP_SHARE = 0.25, 0.4, 0.15
#: Number of places on a device's route, and of fixes between two places.
STOPS, FIXES_BETWEEN = 5, 12
#: Rules of the site for a day of minutes: seconds, metres per second.
RULES: dict[str, Any] = {
    "hold_s": {"person": 20, "vehicle": 15},
    "fresh_s": 6,
    "max_speed_mps": 20_000,
    "on_offline": "stay",
}
#: The zone of the probes: a square of about 10 m, and its distance from the south-west corner (degrees).
PROBE_ZONE, PROBE_OFF, PROBE_SIZE = "bench-probe", 0.003, 0.0001


class FixMessage(NamedTuple):
    """A fix to send."""

    topic: bytes
    payload: bytes
    qos: int
    kind: Kind
    device: str
    t_ms: int  # event time; with kind and device it identifies the fix


@dataclass(slots=True)
class LoadDevice:
    """A phone or a car."""

    kind: Kind
    id: str
    flow: Flow
    qos: int
    route: list[tuple[float, float]]  # degrees
    acc_m: int
    fixes: int = 0
    last_ms: int = 0

    def topic(self, site: str) -> str:
        """The topic that it publishes on."""
        if self.flow != "own":
            return IOTP_TOPIC[self.kind]
        return FIX_TOPIC.format(site=site, kind=self.kind, device=self.id)

    def status_topic(self, site: str) -> str:
        """The topic of its last will."""
        return STATUS_TOPIC.format(site=site, kind=self.kind, device=self.id)

    def next_fix(self, topic: bytes, now_s: float) -> FixMessage:
        """Create its next fix."""
        self.last_ms = max(self.last_ms + 1, int(now_s * 1000))
        lat, lon = self.position()
        self.fixes += 1
        payload = self._payload(self.last_ms / 1000, lat, lon)
        return FixMessage(topic, payload, self.qos, self.kind, self.id, self.last_ms)

    def position(self) -> tuple[float, float]:
        """Its current position in degrees."""
        leg, step = divmod(self.fixes, FIXES_BETWEEN)
        (lat0, lon0), (lat1, lon1) = (self.route[(leg + i) % len(self.route)] for i in (0, 1))
        share = step / FIXES_BETWEEN
        return round(lat0 + share * (lat1 - lat0), 7), round(lon0 + share * (lon1 - lon0), 7)

    def _payload(self, t_s: float, lat: float, lon: float) -> bytes:
        if self.flow == "own":
            return encode_fix(t_s, lat, lon, acc=self.acc_m)
        body = json.dumps({"id": self.id, "t": t_s, "lat": lat, "lon": lon, "acc": self.acc_m}).encode()
        return body if self.flow == "iotp" else base64.b64encode(body)


def bench_site(geojson: dict[str, Any]) -> dict[str, Any]:
    """A site file with the rules for a day of minutes, and the zone of the probes."""
    site, *zones = geojson["features"]
    west, south = (min(axis) for axis in zip(*site["geometry"]["coordinates"][0], strict=True))
    x, y = west - PROBE_OFF, south - PROBE_OFF
    ring = [[x, y], [x + PROBE_SIZE, y], [x + PROBE_SIZE, y + PROBE_SIZE], [x, y + PROBE_SIZE], [x, y]]
    # the boundary gets a second part around the zone of the probes
    parts = {"type": "MultiPolygon", "coordinates": [site["geometry"]["coordinates"], [ring]]}
    probe = {
        "type": "Feature",
        "properties": {"role": "zone", "id": PROBE_ZONE, "name": "Probes", "type": "area"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    boundary = site | {"properties": site["properties"] | RULES, "geometry": parts}
    return geojson | {"features": [boundary, *zones, probe]}


def probe_position(geojson: dict[str, Any]) -> tuple[float, float]:
    """The centre of the zone of the probes: latitude and longitude."""
    lon, lat = geojson["features"][-1]["geometry"]["coordinates"][0][0]
    return round(lat + PROBE_SIZE / 2, 7), round(lon + PROBE_SIZE / 2, 7)


def population(geojson: dict[str, Any], number: int, seed: int) -> list[LoadDevice]:
    """The devices of a day, determined by the seed."""
    rng = np.random.default_rng(seed)
    # the last zone is that of the probes: no other device goes there
    site = parse_site(geojson | {"features": geojson["features"][:-1]}, "bench")
    places = find_places(site, rng)
    lat, lon = to_degrees(site, places.x_m, places.y_m)
    indoors = np.concatenate([places.works, places.lawns]) if len(places.lawns) else places.works
    devices = []
    for index in range(number):
        kind: Kind = "vehicle" if rng.random() < VEHICLE_SHARE else "person"
        flow = FLOWS[int(rng.integers(1, 3))] if rng.random() < IOTP_SHARE else "own"
        stops = rng.choice(places.parks if kind == "vehicle" else indoors, STOPS)
        points = rng.integers(0, POINTS_PER_PLACE, STOPS)
        route = [(float(lat[s, p]), float(lon[s, p])) for s, p in zip(stops, points, strict=True)]
        qos = int(rng.random() < QOS1_SHARE)
        name = f"{'car' if kind == 'vehicle' else 'phone'}-{index:05d}"
        devices.append(LoadDevice(kind, name, flow, qos, route, int(rng.integers(3, 25))))
    return devices
