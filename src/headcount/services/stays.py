"""Stays of devices in zones; reads of those of others are recorded."""

from __future__ import annotations

from typing import Any

from headcount.access.audit_log import AuditValue
from headcount.access.roles import Caller
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.history.reader import HistoryView
from headcount.history.series import stays_in
from headcount.history.stays import US, Stay
from headcount.messages.records import Device
from headcount.messages.times import iso, iso_or_none
from headcount.messages.topics import KINDS, Kind
from headcount.services.container import Services
from headcount.services.history import HistoryQueries


class StayService:
    """Read stays from the events of the last day."""

    def __init__(self, services: Services, history: HistoryQueries) -> None:
        """Read the history with `history`."""
        self._client = services.client
        self._audit = services.audit
        self._history = history

    async def in_zone(
        self,
        actor: Caller,
        site: str,
        zone: str,
        span_s: tuple[float, float],
        kind: Kind | None,
        reason: str,
        limit: int,
    ) -> tuple[list[dict[str, Any]], bool]:
        """Return the stays in a zone that touch a span, for JSON, and whether there are more than `limit`.

        Raises:
            TooManyQueriesError, QueryError, DataFolderError, StoreError: see `HistoryQueries.run`.
            LogError: the access cannot be recorded.
        """
        kinds = KINDS if kind is None else (kind,)

        def read(view: HistoryView) -> tuple[list[dict[str, Any]], bool]:
            found = stays_in(view, *span_s, site=site, zone=zone, kinds=kinds)
            return [_as_json(stay) for stay in found[:limit]], len(found) > limit

        stays, truncated = await self._history.run(read)
        detail: dict[str, AuditValue] = {"reason": reason, "rows": len(stays), "data": "stays", "site": site}
        detail |= {"zone": zone, "kind": kind or "any", "from": iso(span_s[0]), "to": iso(span_s[1])}
        await self._audit.record(actor, "positions.read", detail=detail)
        return stays, truncated

    async def own(self, device: Device) -> list[dict[str, Any]]:
        """Return the stays of a device in the last day, for JSON; those over midnight are one.

        Raises:
            TooManyQueriesError, QueryError, DataFolderError, StoreError: see `HistoryQueries.run`.
        """
        pseudonyms = await PseudonymKeys(self._client).pseudonyms_of(device.site, device.kind, device.id)
        names = set(pseudonyms.values())

        def read(view: HistoryView) -> list[dict[str, Any]]:
            span_s = (0.0, float("1e11"))
            found = stays_in(view, *span_s, site=device.site, kinds=[device.kind], devices=names)
            own = ("zone", "from", "to", "reason")
            return [{name: _as_json(stay)[name] for name in own} for stay in found]

        return await self._history.run(read)


def _as_json(stay: Stay) -> dict[str, Any]:
    return {
        "zone": stay.zone,
        "kind": stay.kind,
        "device": stay.device,
        "from": _moment(stay.from_us),
        "to": _moment(stay.to_us),
        "reason": stay.reason,
    }


def _moment(t_us: int | None) -> str | None:
    return iso_or_none(None if t_us is None else t_us / US)
