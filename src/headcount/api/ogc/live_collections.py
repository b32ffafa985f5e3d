"""The zones of a site, and their newest counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

import msgspec

from headcount.api.counts_lookup import counts_at
from headcount.api.ogc.collection import (
    AT_PROPERTY,
    COUNT_PROPERTIES,
    ZONE_PROPERTIES,
    Chunk,
    Collection,
    Reading,
    count_and_limit,
    of_kinds,
    zone_values,
)
from headcount.api.ogc.feature_table import PropertyType, table
from headcount.api.ogc.parameters import ItemsQuery
from headcount.messages.topics import KINDS

_BOUNDS: tuple[tuple[str, PropertyType, str], ...] = (
    ("low", "integer", "{kind}s that are certainly inside; null in public counts."),
    ("high", "integer", "{kind}s that may be inside; null in public counts."),
    ("stale", "integer", "{kind}s whose last fix is no longer fresh; null in public counts."),
    ("share", "number", "The count divided by the capacity."),
)
_CAPACITY: tuple[tuple[str, PropertyType, str], ...] = (
    ("capacity", "integer", "The zone's capacity for {kind}s, if it has one."),
)


class ZoneCollection(Collection):
    """The zones."""

    name = "zones"
    title = "Zones"
    description = "The zones of the site, its boundary first."
    properties = (*ZONE_PROPERTIES, *of_kinds(*_CAPACITY))

    async def chunks(self, reading: Reading, query: ItemsQuery) -> AsyncIterator[Chunk]:
        """Yield all zones."""
        del reading, query
        zones = self.site.site.zones
        rows = [(*zone_values(zone), *zone.capacity) for zone in zones]
        yield Chunk(table(self.properties, rows, [zone.geometry for zone in zones], [z.id for z in zones]))

    def query_of(self, feature_id: str) -> ItemsQuery | None:
        """A zone's id is that of its feature."""
        return ItemsQuery(1, equals={"zone": feature_id})


class CountCollection(ZoneCollection):
    """The newest counts."""

    name = "counts"
    title = "Counts now"
    description = "The newest counts of each zone, with its outline."
    properties = (*ZONE_PROPERTIES, AT_PROPERTY, *of_kinds(*COUNT_PROPERTIES, *_BOUNDS, *_CAPACITY))
    time = "at"

    async def chunks(self, reading: Reading, query: ItemsQuery) -> AsyncIterator[Chunk]:
        """Yield the counts of all zones."""
        del query
        body = await counts_at(reading.state, self.site, reading.caller, None)
        at_s, zones = (
            datetime.fromisoformat(body.at).timestamp(),
            {zone.id: zone for zone in self.site.site.zones},
        )
        found = [msgspec.json.decode(raw) for raw in body.zones]
        found = [counted for counted in found if counted["zone"] in zones]
        names = ("low", "high", "stale", "share", "capacity")
        rows = [
            (
                *zone_values(zones[counted["zone"]]),
                at_s,
                *(
                    n
                    for kind in KINDS
                    for n in (*count_and_limit(counted[kind]), *map(counted[kind].get, names))
                ),
            )
            for counted in found
        ]
        ids = [counted["zone"] for counted in found]
        yield Chunk(table(self.properties, rows, [zones[id_].geometry for id_ in ids], ids))
