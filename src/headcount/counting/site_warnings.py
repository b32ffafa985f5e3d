"""Warnings about values of a site that are allowed, but probably not meant."""

from __future__ import annotations

import shapely

from headcount.counting.site import Site, Zone
from headcount.messages.topics import KINDS

#: In a narrower zone, the error of a phone's position (10 to 40 m in a building) decides more than the position.
MIN_WIDTH_M = 20.0
#: Of the site. Distances are computed in one plane, which is exact near its middle only.
MAX_EXTENT_M = 100_000.0
_MAX_NAMES = 10


def site_warnings(site: Site) -> list[str]:
    """A sentence for each warning."""
    return [*_extent(site), *_holds(site), *_narrow_zones(site.zones[1:])]


def _extent(site: Site) -> list[str]:
    west, south, east, north = site.zones[0].plane.bounds
    extent_m = max(east - west, north - south)
    if extent_m <= MAX_EXTENT_M:
        return []
    accurate = f"Distances are exact within {MAX_EXTENT_M / 1000:g} km"
    question = "are its positions longitude and latitude in degrees (EPSG:4326)?"
    return [f"the site is {extent_m / 1000:,.0f} km across. {accurate}: {question}"]


def _holds(site: Site) -> list[str]:
    return [
        f'zone "{zone.id}": its hold_s of {own:g} s for kind {kind} has no effect. It is below the site\'s, {whole:g} s, '
        "and a member of a zone is also one of the site"
        for zone in site.zones[1:]
        for kind, own, whole in zip(KINDS, zone.hold_s, site.hold_s, strict=True)
        if own < whole
    ]


def _narrow_zones(zones: tuple[Zone, ...]) -> list[str]:
    narrow = [zone.id for zone in zones if shapely.buffer(zone.plane, -MIN_WIDTH_M / 2).is_empty]
    if not narrow:
        return []
    names = ", ".join(narrow[:_MAX_NAMES]) + (", …" if len(narrow) > _MAX_NAMES else "")
    subject = "1 zone is" if len(narrow) == 1 else f"{len(narrow)} zones are"
    advice = "Errors of positions are as large; compare low and high of their counts"
    return [f"{subject} narrower than {MIN_WIDTH_M:g} m everywhere: {names}. {advice}"]
