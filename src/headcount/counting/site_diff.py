"""The differences of two versions of a site; pure."""

from __future__ import annotations

from typing import Any

import msgspec

from headcount.counting.site import Site, Zone

#: Properties whose changes have a line of their own.
_OWN = {"id", "name"}


class MovedZone(msgspec.Struct, frozen=True):
    """A zone with another outline, and its area before and after."""

    zone: str
    area_before_m2: float
    area_after_m2: float


class RenamedZone(msgspec.Struct, frozen=True):
    """A zone with the same id and another name."""

    zone: str
    before: str
    after: str


class SiteDiff(msgspec.Struct, frozen=True):
    """The differences; the boundary is the zone `site`."""

    added: list[str]
    removed: list[str]
    renamed: list[RenamedZone]
    moved: list[MovedZone]
    changed: dict[str, list[str]]  # zone → other properties that differ

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        return not (self.added or self.removed or self.renamed or self.moved or self.changed)

    def lines(self) -> list[str]:
        """One line for each difference."""
        return [
            *(f"added    {zone}" for zone in self.added),
            *(f"removed  {zone}" for zone in self.removed),
            *(f"renamed  {each.zone}: {each.before} → {each.after}" for each in self.renamed),
            *(f"moved    {each.zone}: {_areas(each)}" for each in self.moved),
            *(f"changed  {zone}: {', '.join(names)}" for zone, names in self.changed.items()),
        ]


def site_diff(before: Site, after: Site) -> SiteDiff:
    """The differences between two versions of a site."""
    old = {zone.id: zone for zone in before.zones}
    new = {zone.id: zone for zone in after.zones}
    both = [(old[zone], new[zone]) for zone in new if zone in old]
    was, now = _properties(before), _properties(after)
    changed = {
        b.id: sorted(
            name
            for name in (was[b.id].keys() | now[b.id].keys()) - _OWN
            if was[b.id].get(name) != now[b.id].get(name)
        )
        for b, _ in both
    }
    return SiteDiff(
        added=[zone for zone in new if zone not in old],
        removed=[zone for zone in old if zone not in new],
        renamed=[RenamedZone(b.id, b.name, a.name) for b, a in both if b.name != a.name],
        moved=[
            MovedZone(b.id, round(b.plane.area, 1), round(a.plane.area, 1))
            for b, a in both
            if not _same_outline(b, a)
        ],
        changed={zone: names for zone, names in changed.items() if names},
    )


def _same_outline(before: Zone, after: Zone) -> bool:
    return bool(before.geometry.normalize().equals_exact(after.geometry.normalize(), 0.0))


def _properties(site: Site) -> dict[str, dict[str, Any]]:
    """The properties of each zone in the site file, by zone id."""
    properties = [feature["properties"] for feature in site.geojson["features"]]
    return {"site" if own["role"] == "site" else own["id"]: own for own in properties}


def _areas(moved: MovedZone) -> str:
    difference = moved.area_after_m2 - moved.area_before_m2
    return f"{moved.area_before_m2:,.0f} m² → {moved.area_after_m2:,.0f} m² ({difference:+,.0f} m²)"
