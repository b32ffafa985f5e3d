"""One feature of a site file during parsing: its values, and the problems with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shapely.geometry.base import BaseGeometry

from headcount.counting.polygons import PolygonError, is_number, outline
from headcount.counting.reference_system import foreign_system
from headcount.counting.time_zones import similar_time_zone, time_zones
from headcount.errors import SiteError
from headcount.messages.topics import ID, KINDS

#: The id and type of the zone that is the boundary itself.
BOUNDARY = "site"
#: Of seconds, metres, speeds and places: the engine computes with the squares of larger ones as infinite.
MAX_AMOUNT = 1e12
ON_OFFLINE_LEAVE = (False, False)

EXPORT_AS_WGS_84 = (
    "Export it as EPSG:4326 (WGS 84): positions in GeoJSON are longitude and latitude in degrees"
)
_ID_RULE = "An id has 1 to 64 characters from A-Z a-z 0-9 _ -"


@dataclass(eq=False)
class FeatureReader:
    """One feature during parsing: a value with a problem is noted and replaced by its default."""

    source: str
    label: str
    role: str
    properties: Mapping[str, Any]
    raw: Mapping[str, Any]
    problems: list[SiteError] = field(repr=False)

    def note(self, problem: str, remedy: str) -> None:
        """Add a problem of this feature."""
        self.problems.append(SiteError(self.source, self.label, problem, remedy))

    def id(self) -> str:
        """Its id; empty if it has no valid one."""
        value = self.properties.get("id")
        if value is None:
            self.note("has no id", f'Give it a property "id". {_ID_RULE}')
        elif not isinstance(value, str) or not ID.fullmatch(value):
            self.note(f"has the id {str(value)[:80]!r}, which is no id", _ID_RULE)
        elif self.role == "zone" and value == BOUNDARY:
            self.note('has the id "site", which is the boundary\'s own', "Give the zone another id")
        else:
            return value
        return ""

    def text(self, key: str, default: str) -> str:
        """A property that is a text."""
        value = self.properties.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or not value.strip():
            self.note(f"has a {key} that is not a text", f'Set "{key}" to a text, or leave it out')
            return default
        return value

    def time_zone(self, name: str) -> str:
        """The name of a time zone, if every machine knows it; else `UTC`."""
        if name in time_zones():
            return name
        meant = similar_time_zone(name)
        remedy = f'Do you mean "{meant}"?' if meant else 'Use a name such as "Europe/Dublin"'
        self.note(f"has the unknown time zone {name[:80]!r}", remedy)
        return "UTC"

    def number(self, key: str, default: float) -> float:
        """A property that is a number, 0 or more."""
        value = self.properties.get(key)
        return default if value is None else self._amount(key, value, default)

    def pair(self, key: str, default: tuple[float, float]) -> tuple[float, float]:
        """A number per kind: one number for both, or an object with one for each."""
        value = self.properties.get(key)
        if isinstance(value, dict):
            person, vehicle = self._kinds(key, value)
            return (
                default[0] if person is None else self._amount(f"{key}.person", person, default[0]),
                default[1] if vehicle is None else self._amount(f"{key}.vehicle", vehicle, default[1]),
            )
        return default if value is None else (self._amount(key, value, default[0]),) * 2

    def capacity(self) -> tuple[int | None, int | None]:
        """The capacity for persons and vehicles."""
        value = self.properties.get("capacity")
        if value is None:
            return None, None
        if not isinstance(value, dict):
            self.note("has a capacity that is not one per kind", 'Write "capacity": {"person": 400}')
            return None, None
        person, vehicle = self._kinds("capacity", value)
        return self._whole("capacity.person", person), self._whole("capacity.vehicle", vehicle)

    def on_offline(self) -> tuple[bool, bool]:
        """Whether a device of each kind leaves when its last will is published."""
        value = self.properties.get("on_offline")
        if value is None:
            return ON_OFFLINE_LEAVE
        each = self._kinds("on_offline", value) if isinstance(value, dict) else (value, value)
        if any(word not in (None, "leave", "stay") for word in each):
            self.note(
                f"has on_offline = {str(value)[:80]!r}", 'Set "on_offline" to "leave" or "stay", or per kind'
            )
        return each[0] == "leave", each[1] == "leave"

    def outline(self) -> BaseGeometry | None:
        """Its polygon or multipolygon; None if it has no valid one."""
        geometry = self.raw.get("geometry")
        system = foreign_system(self.raw) or (
            foreign_system(geometry) if isinstance(geometry, dict) else None
        )
        if system:
            self.note(system, EXPORT_AS_WGS_84)
            return None
        try:
            return outline(geometry)
        except PolygonError as error:
            self.note(error.problem, error.remedy)
            return None

    def _kinds(self, key: str, value: dict[str, Any]) -> tuple[Any, Any]:
        for kind in value.keys() - set(KINDS):
            self.note(f"has {key} of the unknown kind {kind[:80]!r}", "The kinds are person and vehicle")
        return value.get("person"), value.get("vehicle")

    def _amount(self, key: str, value: object, default: float) -> float:
        if not is_number(value):
            self.note(f"has {key} = {str(value)[:80]!r}", f'Set "{key}" to a finite number, 0 or more')
            return default
        amount = float(value)  # type: ignore[arg-type]  # checked by is_number
        if amount < 0:
            self.note(f"has {key} = {amount:g}, which is negative", f'Set "{key}" to 0 or more')
        if amount > MAX_AMOUNT:
            self.note(f"has {key} = {amount:g}, which is too large", f'Set "{key}" to {MAX_AMOUNT:g} at most')
            return default
        return amount

    def _whole(self, key: str, value: object) -> int | None:
        if value is None:
            return None
        amount = self._amount(key, value, 0)
        if amount != int(amount):
            self.note(f"has {key} = {amount:g}, which is not a whole number", "Write it without fractions")
        return int(amount)
