"""A collection of features: its chunks, and pages of what a query selects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import shapely

from headcount.access.roles import Caller
from headcount.api.live_sites import ServedSite
from headcount.api.ogc.feature_table import FeatureTable, Property, PropertyType, concatenated, table
from headcount.api.ogc.parameters import ItemsQuery
from headcount.api.state import ApiState
from headcount.counting.site import Zone
from headcount.errors import QueryError
from headcount.messages.topics import KINDS

#: Chunks that one request reads at most, where a filter selects few features.
MAX_CHUNKS = 20

ZONE_PROPERTIES: tuple[Property, ...] = (
    Property("zone", "string", "The zone's id; `site` is the boundary itself."),
    Property("name", "string", "The zone's name."),
    Property("type", "string", "The zone's type, such as `building`; `site` for the boundary."),
)
AT_PROPERTY = Property("at", "time", "The instant of the counts.")
COUNT_PROPERTIES: tuple[tuple[str, PropertyType, str], ...] = (
    ("count", "integer", "Present {kind}s; null where small counts are hidden."),
    ("below", "integer", "Where the count is hidden because it is small: it is below this."),
)


def of_kinds(*properties: tuple[str, PropertyType, str]) -> tuple[Property, ...]:
    """Return each property once for people and once for vehicles."""
    return tuple(
        Property(f"{kind}_{name}", type_, description.format(kind=kind))
        for kind in KINDS
        for name, type_, description in properties
    )


class Reading(NamedTuple):
    """The application, the reader of features, and the reason for reading positions."""

    state: ApiState
    caller: Caller
    reason: str | None = None


class Chunk(NamedTuple):
    """Some features of a collection, and the cursor of what follows; None: nothing."""

    features: FeatureTable
    following: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """The features of one answer."""

    features: FeatureTable
    cursor: str | None  # of the next page
    matched: int | None  # features that the query selects; None: not counted


class Collection:
    """A collection of one site."""

    name: ClassVar[str]
    title: ClassVar[str]
    description: ClassVar[str]
    properties: ClassVar[tuple[Property, ...]]
    #: The property that `datetime` is about.
    time: ClassVar[str | None] = None
    #: The whole collection is one chunk.
    is_small: ClassVar[bool] = True
    needs_reason: ClassVar[bool] = False

    def __init__(self, site: ServedSite) -> None:
        self.site = site

    @property
    def id(self) -> str:
        """The id in addresses, unique among all sites."""
        return f"{self.site.id}.{self.name}"

    @property
    def bounds(self) -> list[float]:
        """West, south, east, north of all zones in degrees."""
        bounds: list[float] = shapely.total_bounds([zone.geometry for zone in self.site.site.zones]).tolist()
        return bounds

    def chunks(self, reading: Reading, query: ItemsQuery) -> AsyncIterator[Chunk]:
        """Yield the features from the query's cursor on; at least those that the query selects."""
        raise NotImplementedError

    def query_of(self, feature_id: str) -> ItemsQuery | None:
        """Return a query that selects a feature; None: no feature has such an id."""
        raise NotImplementedError


async def read_page(collection: Collection, reading: Reading, query: ItemsQuery) -> Page:
    """Return the features that a query selects, at most `query.limit`.

    Raises:
        QueryError: the cursor is not valid.
        ProblemError, TooManyQueriesError, DataFolderError, LogError: as the service behind the collection.
    """
    taken: list[FeatureTable] = []
    left, skip, matched = query.limit, 0, None
    if collection.is_small and query.cursor:
        skip = cursor_pair(query.cursor)[0]
    async with aclosing(collection.chunks(reading, query)) as chunks:  # type: ignore[type-var]
        async for features, following in chunks:
            rows = np.flatnonzero(query.matches(features, collection.time))
            matched = len(rows) if collection.is_small else None
            rows = rows[rows >= skip]
            taken.append(features.take(rows[:left]))
            if len(rows) > left:
                return Page(concatenated(taken), features.cursors[rows[left]], matched)
            left -= len(rows)
            if following is not None and (len(taken) == MAX_CHUNKS or left == 0):
                return Page(concatenated(taken), following, matched)
    nothing = table(collection.properties, [], [], [])
    return Page(concatenated(taken or [nothing]), None, matched)


def zone_values(zone: Zone) -> tuple[str, str, str]:
    """Return the values of `ZONE_PROPERTIES`."""
    return zone.id, zone.name, zone.type


def count_and_limit(numbers: dict[str, Any]) -> tuple[int | None, int | None]:
    """Return a count, and what it is below where it is hidden."""
    count = numbers["count"]
    return (None, int(count.removeprefix("<"))) if isinstance(count, str) else (count, None)


def cursor_pair(cursor: str) -> tuple[int, int]:
    """Return the numbers of a cursor.

    Raises:
        QueryError: it is not a cursor.
    """
    first, _, second = cursor[:40].partition(".")
    if not (f"{first}{second}".isascii() and first.isdigit() and second.isdigit()):
        raise QueryError("cursor", "is not from a `next` link")
    return int(first), int(second)
