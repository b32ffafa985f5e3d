"""The regions of a site for the app OwnTracks: circles around the boundary and the largest zones."""

from __future__ import annotations

import hashlib
import math
import zlib

import shapely

from headcount.counting.site import Site, Zone
from headcount.messages.records import AppRegion

#: iOS monitors at most 20 regions of an app.
MAX_REGIONS = 20
#: Phones do not notice smaller regions.
MIN_RADIUS_M = 50
#: Suffix of the site's region: the iOS app changes to `move` on entering and to `manual` on leaving, in which
#: it reports only that it enters a region.
_MODES = "|2|0"


def site_regions(site: Site) -> list[AppRegion]:
    """The region of the site, then those of its largest zones."""
    boundary, *zones = site.zones
    largest = sorted(zones, key=lambda zone: (-zone.plane.area, zone.id))
    return [_region(site, zone) for zone in (boundary, *largest)][:MAX_REGIONS]


def _region(site: Site, zone: Zone) -> AppRegion:
    center = shapely.minimum_bounding_circle(zone.plane).centroid
    radius_m = shapely.minimum_bounding_radius(zone.plane)
    lat_deg, lon_deg = site.unproject(center.x, center.y)
    key = f"{site.id}/{zone.id}".encode()
    is_boundary = zone is site.zones[0]
    # a colon separates the parts of a beacon's name
    name = (site.name if is_boundary else zone.name).replace(":", " ").replace("|", " ")
    return AppRegion(
        id=hashlib.blake2b(key, digest_size=6).hexdigest(),
        name=name + (_MODES if is_boundary else ""),
        lat=round(float(lat_deg), 6),
        lon=round(float(lon_deg), 6),
        radius_m=max(MIN_RADIUS_M, math.ceil(radius_m)),
        # the Android app replaces the region with the same time of creation
        created=1_000_000_000 + zlib.crc32(key) % 600_000_000,
    )
