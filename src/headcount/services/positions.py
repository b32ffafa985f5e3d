"""Positions: stored fixes, cells of a coarse grid, and single devices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from headcount.access.audit_log import AuditValue
from headcount.access.roles import Caller
from headcount.devices.trace import device_state
from headcount.errors import QueryError, UnknownDeviceError
from headcount.history import queries
from headcount.history.at_instant import PresenceRules
from headcount.history.cursors import Cursor, cursor_text
from headcount.history.queries import SLOT_S, CellCount, StoredFix
from headcount.history.query_areas import area_of, centre_of, distance_m
from headcount.history.reader import HistoryView
from headcount.messages.times import iso
from headcount.messages.topics import KINDS, Kind, partition_of
from headcount.services.audit import Detail
from headcount.services.container import Services
from headcount.services.history import HistoryQueries

T = TypeVar("T")
#: Rows reach the history within about a minute: a slot is complete this long after its end.
WRITTEN_S = 120.0


@dataclass(frozen=True, slots=True)
class FixPage:
    """A page of positions: with an instant or `k`, one of each device."""

    fixes: list[StoredFix]
    distances_m: list[float] | None  # from the centre, where there is one
    next: str | None = None  # the cursor of the next page
    following: StoredFix | None = None  # its first row


@dataclass(frozen=True, slots=True)
class PositionQuery:
    """Which positions are wanted: at most one area, and an instant or a span."""

    site: str
    limit: int
    kind: Kind | None = None
    at_s: float | None = None  # Unix seconds
    rules: PresenceRules | None = None  # with an instant: those of the site then
    from_s: float = 0.0
    to_s: float = 0.0
    bbox: tuple[float, ...] | None = None  # west, south, east, north in degrees
    near: tuple[float, ...] | None = None  # latitude and longitude in degrees, radius in metres
    within: Any = None  # a geometry, or GeoJSON text
    is_disjoint: bool = False  # positions outside the area instead
    k: int | None = None  # only the nearest devices
    cursor: Cursor | None = None  # only what comes after it
    area: dict[str, AuditValue] = field(default_factory=dict)  # as the caller wrote it, for the audit log

    def filters(self) -> dict[str, Any]:
        """Return the arguments of exact and coarse queries; one row more shows that there are more."""
        kinds = KINDS if self.kind is None else (self.kind,)
        area = area_of(self.bbox, self.within, self.near)
        area = area.outside() if self.is_disjoint else area
        return {"site": self.site, "area": area, "kinds": kinds, "limit": self.limit + 1}

    def read(self, view: HistoryView) -> FixPage:
        """Read a page of exact positions.

        Raises:
            QueryError, DataFolderError, StoreError: see `queries`.
        """
        if self.k is not None:
            return self._nearest(view)
        after = None if self.cursor is None else self.cursor.key
        if self.at_s is not None and self.rules is not None:
            found = queries.fixes_at(view, rules=self.rules, at_s=self.at_s, after=after, **self.filters())
        else:
            found = queries.fixes(view, from_s=self.from_s, to_s=self.to_s, after=after, **self.filters())
        page, following = found[: self.limit], found[self.limit] if len(found) > self.limit else None
        span_us = round(self.from_s * 1e6), round(self.to_s * 1e6)
        next_ = cursor_text(Cursor(*span_us, queries.key(page[-1]))) if following else None
        return FixPage(page, self._distances_m(page), next_, following)

    def _nearest(self, view: HistoryView) -> FixPage:
        if self.near is None or self.is_disjoint:
            raise QueryError("k", "needs near, and no other relation")
        span = (
            {"from_s": self.from_s, "to_s": self.to_s}
            if self.at_s is None
            else {"at_s": self.at_s, "rules": self.rules}
        )
        kinds = self.filters()["kinds"]
        found = queries.nearest(
            view, site=self.site, centre=centre_of(self.near), k=self.k or 0, kinds=kinds, **span
        )
        return FixPage([fix for fix, _ in found], [away_m for _, away_m in found])

    def _distances_m(self, page: list[StoredFix]) -> list[float] | None:
        if self.near is None:
            return None
        lat, lon = (np.array([getattr(fix, name) for fix in page]) for name in ("lat", "lon"))
        found: list[float] = distance_m(lat, lon, *self.near[:2]).tolist()
        return found

    def audit_detail(self) -> dict[str, AuditValue]:
        """Return the details for the audit log."""
        span = (
            {"at": iso(self.at_s)}
            if self.at_s is not None
            else {"from": iso(self.from_s), "to": iso(self.to_s)}
        )
        return {"site": self.site, "kind": self.kind or "any", "limit": self.limit, **self.area, **span}


class PositionService:
    """Read positions; every read of exact ones is recorded before it is returned."""

    def __init__(
        self, services: Services, history: HistoryQueries, *, partitions: int, min_cell: int
    ) -> None:
        """Read the history; cells with fewer than `min_cell` devices are left out."""
        self._client = services.client
        self._audit = services.audit
        self._history = history
        self._partitions = partitions
        self._min_cell = min_cell

    async def fixes(
        self, actor: Caller, query: PositionQuery, reason: str, render: Callable[[FixPage], T]
    ) -> tuple[T, str | None]:
        """Return a page of positions as `render` makes it in the query's thread, and the cursor of the next page.

        Raises:
            TooManyQueriesError, QueryError, DataFolderError: see `HistoryQueries.run`.
            LogError: the access cannot be recorded.
        """

        def read(view: HistoryView) -> tuple[FixPage, T]:
            page = query.read(view)
            return page, render(page)

        page, rendered = await self._history.run(read)
        detail = {"reason": reason, "rows": len(page.fixes), **query.audit_detail()}
        await self._audit.record(actor, "positions.read", detail=detail)
        return rendered, page.next

    async def cells(self, query: PositionQuery, render: Callable[[list[CellCount]], T]) -> T:
        """Return the number of devices in the cells of a grid, as `render` makes them in the query's thread.

        Raises:
            TooManyQueriesError, QueryError, DataFolderError: see `HistoryQueries.run`.
        """
        from_s, to_s = _whole_slots(query)
        return await self._history.run(
            lambda view: render(
                queries.cells(view, **query.filters(), k=self._min_cell, from_s=from_s, to_s=to_s)
            )
        )

    async def device(self, actor: Caller, site: str, kind: Kind, id_: str, reason: str) -> dict[str, Any]:
        """Return what the counting worker knows about a device.

        Raises:
            UnknownDeviceError: the worker knows nothing about it.
            NoAnswerError: the worker does not answer.
            LogError: the access cannot be recorded.
        """
        partition = partition_of(site, id_, self._partitions)
        state = await device_state(self._client, partition, site, kind, id_)
        if not state:
            raise UnknownDeviceError(
                f"{kind} {id_[:64]!r}",
                f"is unknown: nothing was received from it on site {site!r}",
                "Check its id and kind",
            )
        detail: Detail = {"reason": reason, "kind": kind, "rows": 1}
        await self._audit.record_id(actor, "positions.device", site, kind, id_, detail)
        return state


def _whole_slots(query: PositionQuery) -> tuple[float, float]:
    """The slots that are complete, so that nothing is learnt from one that grows."""
    over_s = math.floor((time.time() - WRITTEN_S) / SLOT_S) * SLOT_S
    if query.at_s is not None:
        end_s = min(math.floor(query.at_s / SLOT_S) * SLOT_S, over_s)
        return max(0, end_s - SLOT_S), max(0, end_s)
    return query.from_s, max(query.from_s, min(query.to_s, over_s))
