"""Positions: stored fixes, cells of a coarse grid, and single devices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from headcount.access.audit_log import AuditValue
from headcount.access.roles import Caller
from headcount.devices.trace import device_state
from headcount.errors import UnknownDeviceError
from headcount.history import queries
from headcount.history.queries import SLOT_S, CellCount, StoredFix
from headcount.history.query_areas import area_of
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
class PositionQuery:
    """Which positions are wanted: at most one area, and a moment or a span."""

    site: str
    limit: int
    kind: Kind | None = None
    at_s: float | None = None  # Unix seconds
    from_s: float = 0.0
    to_s: float = 0.0
    bbox: tuple[float, ...] | None = None  # west, south, east, north in degrees
    near: tuple[float, ...] | None = None  # latitude and longitude in degrees, radius in metres
    within: Any = None  # a geometry, or GeoJSON text
    area: dict[str, AuditValue] = field(default_factory=dict)  # as the caller wrote it, for the audit log

    def filters(self) -> dict[str, Any]:
        """Return the arguments of exact and coarse queries; one row more shows that there are more."""
        kinds = KINDS if self.kind is None else (self.kind,)
        area = area_of(self.bbox, self.within, self.near)
        return {"site": self.site, "area": area, "kinds": kinds, "limit": self.limit + 1}

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
        self, actor: Caller, query: PositionQuery, reason: str, render: Callable[[list[StoredFix]], T]
    ) -> T:
        """Return stored fixes, newest first, as `render` makes them in the query's thread.

        Raises:
            TooManyQueriesError, QueryError, DataFolderError: see `HistoryQueries.run`.
            LogError: the access cannot be recorded.
        """
        span: dict[str, Any] = (
            {"at_s": query.at_s} if query.at_s is not None else {"from_s": query.from_s, "to_s": query.to_s}
        )

        def read(view: HistoryView) -> tuple[int, T]:
            found = queries.fixes(view, **query.filters(), **span)
            return min(len(found), query.limit), render(found)

        rows, rendered = await self._history.run(read)
        detail = {"reason": reason, "rows": rows, **query.audit_detail()}
        await self._audit.record(actor, "positions.read", detail=detail)
        return rendered

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
