"""The site and its zones, as the engine uses them."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from shapely.geometry.base import BaseGeometry

from headcount.counting.fix_columns import F8

EARTH_RADIUS_M = 6_371_008.8  # mean radius R1 of WGS 84 (IUGG), as in the counting rules


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone; pairs are (person, vehicle)."""

    id: str
    name: str
    type: str  # one of `ZONE_TYPES`; the boundary has `site`
    geometry: BaseGeometry  # WGS 84, lon and lat in degrees
    plane: BaseGeometry  # the same in metres, see Site.project
    capacity: tuple[int | None, int | None]
    hold_s: tuple[float, float]
    fresh_s: tuple[float, float]
    leave_margin_m: float


@dataclass(frozen=True, slots=True)
class Site:
    """A campus. `zones[0]` is the boundary itself, with the id `site`; pairs are (person, vehicle)."""

    id: str
    name: str
    timezone: str
    zones: tuple[Zone, ...]
    lat0_deg: float  # the boundary's centroid
    lon0_deg: float
    hold_s: tuple[float, float]
    leave_margin_m: float
    leave_margin_acc: float
    max_accuracy_m: float
    max_position_age_s: float
    max_speed_mps: tuple[float, float]
    fresh_s: tuple[float, float]
    on_offline_leave: tuple[bool, bool]
    offline_grace_s: float
    geojson: dict[str, Any]  # as read, with windings corrected

    def digest(self) -> bytes:
        """A digest of the zones and limits, which differs between two sites."""
        return hashlib.blake2b(
            msgspec.json.encode(self.geojson, order="deterministic"), digest_size=16
        ).digest()

    @np.errstate(over="ignore")  # of hostile numbers
    def project(self, lat_deg: F8, lon_deg: F8) -> tuple[F8, F8]:
        """Coordinates x and y in metres: local equirectangular projection at the boundary's centroid."""
        x_m = EARTH_RADIUS_M * np.radians(lon_deg - self.lon0_deg) * math.cos(math.radians(self.lat0_deg))
        y_m = EARTH_RADIUS_M * np.radians(lat_deg - self.lat0_deg)
        return x_m, y_m

    def unproject(self, x_m: F8, y_m: F8) -> tuple[F8, F8]:
        """Latitudes and longitudes in degrees of positions in the plane."""
        scale_m = EARTH_RADIUS_M * math.cos(math.radians(self.lat0_deg))
        return self.lat0_deg + np.degrees(y_m / EARTH_RADIUS_M), self.lon0_deg + np.degrees(x_m / scale_m)
