"""The site as a device needs it: rules 1 to 3 of the counting rules for one device, without other packages.

The device predicts the zones in which the system counts it after a fix, and so knows which fixes change counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from headcount.device.positions import DevicePosition

DeviceKind = Literal["person", "vehicle"]
KINDS: tuple[DeviceKind, ...] = ("person", "vehicle")
Ring = list[tuple[float, float]]

EARTH_RADIUS_M = 6_371_008.8
#: The id of the zone that is the site's boundary.
BOUNDARY = "site"
#: Defaults of the counting rules.
HOLD_S = {"person": 900.0, "vehicle": 300.0}
LEAVE_MARGIN_M, LEAVE_MARGIN_ACC, MAX_ACCURACY_M, MAX_SPEED_MPS = 15.0, 1.5, 100.0, 70.0
#: A geometry wider than this crosses the antimeridian, and is refused as in a site file.
MAX_WIDTH_DEG = 180.0


@dataclass(frozen=True, slots=True)
class SiteArea:
    """A zone: the rings of all its polygons, and what the counting rules need of it."""

    id: str
    rings: list[Ring]  # (lon, lat) in degrees, closed
    box: tuple[float, float, float, float]  # west, south, east, north
    leave_margin_m: float
    hold_s: float

    def covers(self, lat: float, lon: float) -> bool:
        """Whether the position is inside by the even-odd rule, or on an edge."""
        west, south, east, north = self.box
        if not (west <= lon <= east and south <= lat <= north):
            return False
        inside = False
        for (x1, y1), (x2, y2) in _edges(self.rings):
            if not min(y1, y2) <= lat <= max(y1, y2):
                continue
            side = (x2 - x1) * (lat - y1) - (lon - x1) * (y2 - y1)
            if side == 0 and min(x1, x2) <= lon <= max(x1, x2):
                return True
            if (y1 > lat) != (y2 > lat) and (side > 0) == (y2 > y1):
                inside = not inside
        return inside

    def is_within(self, lat: float, lon: float, metres: float) -> bool:
        """Whether the position is at most this far from the zone."""
        if self.covers(lat, lon):
            return True
        x_scale, y_scale = _scales(lat)
        west, south, east, north = self.box
        dx, dy = max(west - lon, 0, lon - east) * x_scale, max(south - lat, 0, lat - north) * y_scale
        if math.hypot(dx, dy) > metres:
            return False
        return any(
            _distance_to_edge(
                (x1 - lon) * x_scale, (y1 - lat) * y_scale, (x2 - lon) * x_scale, (y2 - lat) * y_scale
            )
            <= metres
            for (x1, y1), (x2, y2) in _edges(self.rings)
        )


class SiteAreas:
    """The zones of a site for devices of one kind."""

    def __init__(self, geojson: object, kind: DeviceKind) -> None:
        """Take the retained message of the topic `site`; zones without a valid outline are left out.

        Raises:
            ValueError: it is not a site file, or its boundary is not a valid outline.
        """
        features = geojson.get("features") if isinstance(geojson, dict) else None
        if not isinstance(features, list):
            raise ValueError("is not a GeoJSON FeatureCollection")  # noqa: TRY004  # one error for all problems
        found = [feature for feature in features if isinstance(feature, dict)]
        boundaries = [feature for feature in found if _properties(feature).get("role") == "site"]
        if len(boundaries) != 1:
            raise ValueError(f"has {len(boundaries)} features with the role site")
        site = _properties(boundaries[0])
        margin_m, hold_s = (
            _amount(site.get("leave_margin_m"), LEAVE_MARGIN_M),
            _of_kind(site, "hold_s", kind, HOLD_S[kind]),
        )
        self.leave_margin_acc = _amount(site.get("leave_margin_acc"), LEAVE_MARGIN_ACC)
        self.max_accuracy_m = _amount(site.get("max_accuracy_m"), MAX_ACCURACY_M)
        self.max_speed_mps = _of_kind(site, "max_speed_mps", kind, MAX_SPEED_MPS)
        self.boundary = SiteArea(BOUNDARY, *_outline(boundaries[0]), margin_m, hold_s)
        self.areas = {BOUNDARY: self.boundary}
        for feature in found:
            zone = _properties(feature)
            id_ = zone.get("id")
            if zone.get("role") != "zone" or not isinstance(id_, str):
                continue
            try:
                rings, box = _outline(feature)
            except ValueError:
                continue
            own_margin_m = _amount(zone.get("leave_margin_m"), margin_m)
            self.areas[id_] = SiteArea(id_, rings, box, own_margin_m, _of_kind(zone, "hold_s", kind, hold_s))

    def is_coarse(self, position: DevicePosition) -> bool:
        """Whether a fix only ends memberships (verdict `inaccurate`)."""
        return position.acc_m > self.max_accuracy_m

    def is_implausible(self, before: DevicePosition, position: DevicePosition) -> bool:
        """Whether a device would be too fast between two positions (verdict `implausible`)."""
        limit_m = self.max_speed_mps * (position.t - before.t) + position.acc_m + before.acc_m
        return distance_m(before, position) > limit_m

    def move(self, before: Collection[str], position: DevicePosition) -> frozenset[str]:
        """The zones that count a device after a fix: rule 2, and `coarse` fixes of rule 1.

        Args:
            before: ids of the zones before the fix.
            position: that of the fix.

        Returns:
            The ids after; empty where the device is off site, else the boundary `site` is among them.
        """
        lat, lon, acc_m = position.lat, position.lon, position.acc_m
        if self.is_coarse(position):
            if not self.boundary.is_within(lat, lon, 2 * acc_m):
                return frozenset()
            known = (self.areas[id_] for id_ in before if id_ in self.areas)
            return frozenset(area.id for area in known if area.is_within(lat, lon, 2 * acc_m))
        reach_m = self.leave_margin_acc * acc_m if acc_m else math.inf
        after = frozenset(
            area.id
            for area in self.areas.values()
            if (
                area.is_within(lat, lon, min(area.leave_margin_m, reach_m))
                if area.id in before
                else area.covers(lat, lon)
            )
        )
        return after if BOUNDARY in after else frozenset()

    def hold_s(self, zones: Collection[str]) -> float:
        """Seconds for which a device in these zones stays present without a fix (rule 3)."""
        return max((self.areas[id_].hold_s for id_ in zones if id_ in self.areas), default=0.0)


def distance_m(one: DevicePosition, other: DevicePosition) -> float:
    """The distance of two positions, in the plane at the latitude of the second."""
    x_scale, y_scale = _scales(other.lat)
    return math.hypot((one.lon - other.lon) * x_scale, (one.lat - other.lat) * y_scale)


def _scales(lat: float) -> tuple[float, float]:
    """Metres per degree of longitude and of latitude."""
    y_scale = EARTH_RADIUS_M * math.pi / 180
    return y_scale * math.cos(lat * math.pi / 180), y_scale


def _distance_to_edge(x1: float, y1: float, x2: float, y2: float) -> float:
    """The distance of the origin to the edge between two points."""
    dx, dy = x2 - x1, y2 - y1
    length2 = dx * dx + dy * dy
    share = 0.0 if length2 == 0 else min(1.0, max(0.0, -(x1 * dx + y1 * dy) / length2))
    return math.hypot(x1 + share * dx, y1 + share * dy)


def _edges(rings: list[Ring]) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    for ring in rings:
        yield from pairwise(ring)


def _properties(feature: dict[str, Any]) -> dict[str, Any]:
    properties = feature.get("properties")
    return properties if isinstance(properties, dict) else {}


def _outline(feature: dict[str, Any]) -> tuple[list[Ring], tuple[float, float, float, float]]:
    geometry = feature.get("geometry")
    geometry = geometry if isinstance(geometry, dict) else {}
    parts: Any = geometry.get("coordinates")
    if geometry.get("type") == "Polygon":
        parts = [parts]
    elif geometry.get("type") != "MultiPolygon":
        raise ValueError("has no Polygon or MultiPolygon")
    try:
        rings = [[(float(p[0]), float(p[1])) for p in ring] for polygon in parts for ring in polygon]
        lons, lats = [x for ring in rings for x, _ in ring], [y for ring in rings for _, y in ring]
        box = min(lons), min(lats), max(lons), max(lats)
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"has no valid coordinates: {error}") from error
    if not all(map(math.isfinite, (*lons, *lats))) or any(ring[0] != ring[-1] for ring in rings):
        raise ValueError("has a ring that is not closed or not finite")
    if box[2] - box[0] > MAX_WIDTH_DEG:
        raise ValueError("crosses the antimeridian")
    return rings, box


def _of_kind(properties: dict[str, Any], name: str, kind: DeviceKind, default: float) -> float:
    value = properties.get(name)
    return _amount(value.get(kind) if isinstance(value, dict) else value, default)


def _amount(value: object, default: float) -> float:
    """A number of 0 or more; the default in place of anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return default
    return float(value)
