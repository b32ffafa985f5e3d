"""The counting rules as a brute-force program, which the engine is compared with.

It is written from the rules and doesn't import the product: one device, one fix, one zone at a time. It caches
only the projected site and the position of a device's accuracy circle. If code and rules disagree, one of them
has a bug.

Decisions where the rules are silent:

- A device is a pair (kind, id), and devices are independent: each expires when its own rows arrive, by their
  `received`, and when counts are computed.
- An unknown accuracy counts as 0: its circle is a point.
- `late` follows the site's hold of the kind, not a zone's.
- Memberships that a fix outside the site ends have the reason `outside`, those of a coarse one too.
- A coarse fix outside the site ends a run of implausible fixes like any other `outside`.
- The last implausible fix is remembered until the next one, or until the device is forgotten.
- A coarse fix may leave a device in zones whose hold ended before it: it leaves them at the end of that hold.
- "The last fix" of `low` and `stale` is the last used one: an inaccurate fix keeps a device fresh.
- `offline_grace_s` starts at the newest offline; a used fix or an online cancels it.
- A device in no zone is forgotten when the `t` of its last used fix is more than a day old.
- An event has the device's pseudonym of the day on which its last used fix was received, including the fix that
  causes the event.
- A site change moves the plane to the new boundary's centroid: last positions go there by way of degrees.
- A device that is not in the new `site` leaves all its zones. So does one whose hold by the new version, with the
  zones that it would have, ended before the change. Both leave at the change with the reason `site`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from shapely import transform
from shapely.geometry import Point, shape
from shapely.geometry.base import BaseGeometry

EARTH_RADIUS_M = 6_371_008.8
KINDS = ("person", "vehicle")
FORGET_S = DAY_S = 86_400.0


class OracleEvent(NamedTuple):
    """One change of membership."""

    type: str  # enter or exit
    zone: str
    kind: str
    device: str
    t: float
    reason: str
    day: int = -1  # of the pseudonym, days since 1970


#: count, low, high, stale
OracleCount = tuple[int, int, int, int]


class Position(NamedTuple):
    """A position in metres, as numbers and as a geometry."""

    x: float
    y: float
    point: Point


@dataclass
class OracleZone:
    """A zone in metres."""

    area: BaseGeometry
    hold_s: dict[str, float]
    fresh_s: dict[str, float]
    leave_margin_m: float
    box: tuple[float, float, float, float]  # around the area, 1 m wider on every side

    def is_near(self, p: Position, reach: float) -> bool:
        """Whether p may be within reach, by the bounding box."""
        x0, y0, x1, y1 = self.box
        return x0 - reach <= p.x <= x1 + reach and y0 - reach <= p.y <= y1 + reach

    def covers(self, p: Position) -> bool:
        """Whether p is inside or on the edge."""
        return self.is_near(p, 0) and bool(self.area.covers(p.point))

    def is_within(self, reach: float, p: Position) -> bool:
        """Whether p is at most `reach` metres from the zone."""
        return self.is_near(p, reach) and bool(self.area.distance(p.point) <= reach)


@dataclass
class OracleDevice:
    """The state of a device: last used fix, last used position, memberships."""

    last_t: float | None = None
    used: float = math.nan  # when the last used fix was received
    position: Position | None = None
    position_t: float = math.nan
    position_acc: float = 0.0
    implausible: int = 0  # in a row
    implausible_t: float | None = None  # of the last implausible fix
    zones: set[str] = field(default_factory=set)
    offline: float | None = None  # time of receipt of an offline that is not cancelled
    circle: tuple[set[str], set[str]] | None = None  # zones that contain it; others that it touches


def per_kind(value: Any, default: dict[str, float]) -> dict[str, float]:
    """A setting per kind: an object in which kinds may be missing, or one number for both."""
    if value is None:
        return default
    if isinstance(value, dict):
        return {kind: default[kind] if value.get(kind) is None else value[kind] for kind in KINDS}
    return dict.fromkeys(KINDS, float(value))


def is_number(value: Any) -> bool:
    """Whether it is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def known_accuracy(acc: Any) -> float | None:
    """The accuracy of a fix in metres; None if it is missing, not a finite number, zero or negative."""
    return float(acc) if is_number(acc) and acc > 0 else None


class Oracle:
    """Memberships by the rules, row after row."""

    def __init__(self, geojson: dict[str, Any]) -> None:
        """Use a decoded site file: a FeatureCollection with one feature of the role `site`."""
        self.devices: dict[tuple[str, str], OracleDevice] = {}
        self.events: list[OracleEvent] = []
        self._use(geojson)

    def _use(self, geojson: dict[str, Any]) -> None:
        """Read the rules and zones of a site file."""
        boundary = next(f for f in geojson["features"] if f["properties"]["role"] == "site")
        rules = boundary["properties"]
        self.hold_s = per_kind(rules.get("hold_s"), {"person": 900.0, "vehicle": 300.0})
        self.leave_margin_m = rules.get("leave_margin_m", 15.0)
        self.leave_margin_acc = rules.get("leave_margin_acc", 1.5)
        self.max_accuracy_m = rules.get("max_accuracy_m", 100.0)
        self.max_position_age_s = rules.get("max_position_age_s", 3600.0)
        self.max_speed_mps = per_kind(rules.get("max_speed_mps"), {"person": 70.0, "vehicle": 70.0})
        self.fresh_s = per_kind(rules.get("fresh_s"), {"person": 120.0, "vehicle": 120.0})
        leave = rules.get("on_offline") or {}
        self.on_offline = leave if isinstance(leave, dict) else dict.fromkeys(KINDS, leave)
        self.offline_grace_s = rules.get("offline_grace_s", 60.0)

        centre = shape(boundary["geometry"]).centroid
        self.lat0, self.lon0 = centre.y, centre.x
        self.zones = {"site": self._zone(boundary["geometry"], {})}
        for feature in geojson["features"]:
            if feature["properties"]["role"] == "zone":
                own = feature["properties"]
                self.zones[own["id"]] = self._zone(feature["geometry"], own)

    def change_site(self, at: float, geojson: dict[str, Any]) -> None:
        """Rule 6: a new version of the site takes effect, after everything received at or before `at`."""
        self.advance(at)
        lat0, lon0, names = self.lat0, self.lon0, list(self.zones)
        self._use(geojson)
        names += [name for name in self.zones if name not in names]
        for key, d in self.devices.items():
            d.circle = None
            if d.position is not None and (lat0, lon0) != (self.lat0, self.lon0):
                lat = lat0 + math.degrees(d.position.y / EARTH_RADIUS_M)
                east = math.degrees(d.position.x / (EARTH_RADIUS_M * math.cos(math.radians(lat0))))
                d.position = self._position(lat, lon0 + east)
            if d.zones and d.position is not None:
                p, acc = d.position, d.position_acc or None
                zones = {name for name in self.zones if self._is_member(name, p, acc, name in d.zones)}
                if "site" not in zones or self._deadline(key[0], d, zones) < at:
                    zones = set()
                self._move(key, zones, at, "site", names)

    def remove_site(self, at: float) -> None:
        """Rule 6: the site is removed, after everything received at or before `at`."""
        self.advance(at)
        for key in self.devices:
            self._move(key, set(), at, "site", list(self.zones))

    def _zone(self, geometry: dict[str, Any], own: dict[str, Any]) -> OracleZone:
        area = transform(shape(geometry), lambda lon_lat: [self._project(y, x) for x, y in lon_lat])
        margin = own.get("leave_margin_m", self.leave_margin_m)
        x0, y0, x1, y1 = area.bounds
        hold_s = per_kind(own.get("hold_s"), self.hold_s)
        fresh_s = per_kind(own.get("fresh_s"), self.fresh_s)
        return OracleZone(area, hold_s, fresh_s, margin, (x0 - 1, y0 - 1, x1 + 1, y1 + 1))

    def _project(self, lat: float, lon: float) -> tuple[float, float]:
        x = EARTH_RADIUS_M * math.radians(lon - self.lon0) * math.cos(math.radians(self.lat0))
        return x, EARTH_RADIUS_M * math.radians(lat - self.lat0)

    def fix(
        self, received: float, kind: str, device: str, t: Any, lat: Any, lon: Any, acc: Any = None
    ) -> str:
        """Process a fix; return its verdict (rule 1)."""
        key = (kind, device)
        d = self._device(key, received)
        if not (is_number(t) and is_number(lat) and is_number(lon)):
            return "malformed"
        if abs(lat) > 90 or abs(lon) > 180 or lat == lon == 0:
            return "invalid"
        if t > received + 60:
            return "future"
        if t in (d.last_t, d.implausible_t):
            return "duplicate"
        if d.last_t is not None and t < d.last_t:
            return "out_of_order"
        if t + self.hold_s[kind] < received:
            return "late"
        acc = known_accuracy(acc)
        p = self._position(lat, lon)
        if acc is not None and acc > self.max_accuracy_m:
            return self._coarse_fix(key, received, t, p, acc)
        if d.position is not None and d.implausible < 2:
            reach = self.max_speed_mps[kind] * (t - d.position_t) + (acc or 0.0) + d.position_acc
            if p.point.distance(d.position.point) > reach:
                d.implausible += 1
                d.implausible_t = t
                return "implausible"
        d.last_t, d.used, d.offline = t, received, None
        d.position, d.position_t, d.position_acc, d.implausible = p, t, acc or 0.0, 0
        zones = {name for name in self.zones if self._is_member(name, p, acc, name in d.zones)}
        if "site" not in zones:
            self._move(key, set(), t, "outside")
            return "outside"
        self._move(key, zones, t, "moved")
        return "accepted"

    def _coarse_fix(self, key: tuple[str, str], received: float, t: float, p: Position, acc: float) -> str:
        """Use a fix with an accuracy above the limit: it can only take the device out of zones."""
        d = self.devices[key]
        d.last_t, d.used, d.offline = t, received, None
        if not self.zones["site"].is_within(2 * acc, p):
            d.implausible = 0
            self._move(key, set(), t, "outside")
            return "outside"
        self._move(key, {name for name in d.zones if self.zones[name].is_within(2 * acc, p)}, t, "coarse")
        return "inaccurate"

    def is_stored(self, verdict: str, lat: Any, lon: Any) -> bool:
        """Whether a fix with this verdict and position is stored in the history."""
        if verdict in ("late", "out_of_order"):
            return self.zones["site"].covers(self._position(lat, lon))
        return verdict in ("inaccurate", "accepted")

    def _position(self, lat: float, lon: float) -> Position:
        x, y = self._project(lat, lon)
        return Position(x, y, Point(x, y))

    def _is_member(self, name: str, p: Position, acc: float | None, member: bool) -> bool:
        """Rule 2: whether a device at p is a member from now on."""
        zone = self.zones[name]
        if not member:
            return zone.covers(p)
        margin = zone.leave_margin_m
        return zone.is_within(margin if acc is None else min(margin, self.leave_margin_acc * acc), p)

    def _move(
        self, key: tuple[str, str], zones: set[str], t: float, reason: str, names: Iterable[str] = ()
    ) -> None:
        d = self.devices[key]
        for name in names or self.zones:
            if (name in d.zones) != (name in zones):
                change = "enter" if name in zones else "exit"
                self.events.append(OracleEvent(change, name, *key, t, reason, int(d.used // DAY_S)))
        d.zones, d.circle = zones, None

    def status(self, received: float, kind: str, device: str, online: bool) -> None:
        """Process a status message."""
        self._device((kind, device), received).offline = None if online else received

    def forget(self, received: float, kind: str, device: str) -> None:
        """Process an erasure marker: the device leaves all its zones and is forgotten."""
        key = (kind, device)
        if key in self.devices:
            self._expire(key, received)
            self._move(key, set(), received, "removed")
            del self.devices[key]

    def _device(self, key: tuple[str, str], now: float) -> OracleDevice:
        """The device's state now, after expiry."""
        d = self.devices.setdefault(key, OracleDevice())
        self._expire(key, now)
        if not d.zones and d.last_t is not None and d.last_t < now - FORGET_S:
            d = self.devices[key] = OracleDevice()
        return d

    def _expire(self, key: tuple[str, str], now: float) -> None:
        """Rule 3: a device is present up to its deadline, that instant included."""
        d = self.devices[key]
        if not d.zones or d.last_t is None:
            return
        deadline = self._deadline(key[0], d, d.zones)
        if now > deadline:
            self._move(key, set(), deadline, "silent")

    def _deadline(self, kind: str, d: OracleDevice, zones: set[str]) -> float:
        """Rule 3: until when the device is present as a member of these zones."""
        assert d.last_t is not None
        hold = max(self.zones[name].hold_s[kind] for name in zones)
        deadline = d.last_t + hold
        if d.last_t > d.position_t:  # only inaccurate fixes have come since
            deadline = min(deadline, d.position_t + max(hold, self.max_position_age_s))
        if d.offline is not None and self.on_offline.get(kind) == "leave":
            deadline = min(deadline, d.offline + self.offline_grace_s)
        return deadline

    def advance(self, now: float) -> None:
        """Expire all devices whose deadline has passed."""
        for key in self.devices:
            self._expire(key, now)

    def counts(self, now: float) -> dict[str, dict[str, OracleCount]]:
        """All counts of all zones now (rule 4)."""
        self.advance(now)
        found = {name: {kind: [0, 0, 0, 0] for kind in KINDS} for name in self.zones}
        for (kind, _), d in self.devices.items():
            if not d.zones or d.position is None or d.last_t is None:
                continue
            age = now - d.last_t
            d.circle = d.circle or self._circle(d, d.position)
            whole, touched = d.circle
            for name in d.zones:
                numbers, fresh_s = found[name][kind], self.zones[name].fresh_s[kind]
                numbers[0] += 1
                numbers[1] += name in whole and age < fresh_s
                numbers[2] += 1
                numbers[3] += age > fresh_s
            for name in touched:
                found[name][kind][2] += 1
        return {
            name: {kind: (n[0], n[1], n[2], n[3]) for kind, n in kinds.items()}
            for name, kinds in found.items()
        }

    def _circle(self, d: OracleDevice, p: Position) -> tuple[set[str], set[str]]:
        """The device's zones that contain its whole accuracy circle, and the others that it touches."""
        whole, touched = set(), set()
        for name, zone in self.zones.items():
            if name in d.zones:
                if zone.covers(p) and zone.area.boundary.distance(p.point) >= d.position_acc:
                    whole.add(name)
            elif zone.is_within(d.position_acc, p):
                touched.add(name)
        return whole, touched

    def sizes(self) -> dict[str, dict[str, int]]:
        """Number of members of each zone and kind, as of the last `advance`."""
        members = {name: dict.fromkeys(KINDS, 0) for name in self.zones}
        for (kind, _), d in self.devices.items():
            for name in d.zones:
                members[name][kind] += 1
        return members
