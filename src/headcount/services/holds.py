"""Legal holds: rows that retention and erasure keep; each one is recorded in the audit log."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from dataclasses import dataclass

import msgspec

from headcount.access.roles import Caller
from headcount.errors import QueryError
from headcount.history.catalog import Catalog
from headcount.history.manifest import Hold, Manifest
from headcount.messages.times import iso
from headcount.services.audit import AuditTrail
from headcount.settings.retention_periods import PERIODS

MAX_HOLDS = 100
MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class HeldRows:
    """A hold, and the rows that are kept only for it."""

    hold: Hold
    rows: int
    bytes: int


class HoldService:
    """Operations on the holds of a history; every method raises LogError if the core does not answer."""

    def __init__(self, catalog: Catalog, audit: AuditTrail) -> None:
        """Work on `catalog`."""
        self._catalog = catalog
        self._audit = audit

    async def add(
        self,
        actor: Caller,
        reason: str,
        span_s: tuple[float, float],
        site: str = "",
        datasets: tuple[str, ...] = (),
    ) -> Hold:
        """Place a hold; when this returns, no row under it is deleted any more.

        Args:
            actor: recorded, with the reason.
            reason: of the hold.
            span_s: the first and last time of the rows, Unix seconds.
            site: its id; "": all sites.
            datasets: such as `fixes`; (): all of them.

        Raises:
            QueryError: an argument is not valid.
            DataFolderError, StoreError: the history cannot be read or written.
        """
        _check(reason, span_s, datasets)
        hold = Hold(
            f"hold-{secrets.token_hex(4)}", reason, actor.subject, time.time(), *span_s, site, datasets
        )
        # recorded first: no hold exists that the log does not show
        detail = {
            "reason": reason,
            "from": iso(hold.from_s),
            "to": iso(hold.to_s),
            "site": site,
            "data_sets": ",".join(datasets),
        }
        await self._audit.record(actor, "hold.add", hold.id, detail)
        await asyncio.to_thread(self._catalog.commit, lambda before: _with(before, hold))
        return hold

    async def all(self) -> list[HeldRows]:
        """Return the holds in force, oldest first.

        Raises:
            DataFolderError, StoreError: the history cannot be read.
        """
        manifest = await asyncio.to_thread(self._catalog.manifest)
        rows: Counter[str] = Counter()
        size: Counter[str] = Counter()
        for each in manifest.held:
            rows[each.hold] += each.segment.rows
            size[each.hold] += each.segment.bytes
        return [HeldRows(hold, rows[hold.id], size[hold.id]) for hold in manifest.holds]

    async def release(self, actor: Caller, id_: str, reason: str) -> bool:
        """Release a hold; rows kept only for it are deleted within minutes. False: there is none.

        Raises:
            QueryError: the reason is missing.
            DataFolderError, StoreError: the history cannot be read or written.
        """
        _check_reason(reason)
        manifest = await asyncio.to_thread(self._catalog.manifest)
        if all(hold.id != id_ for hold in manifest.holds):
            return False
        await self._audit.record(actor, "hold.release", id_, {"reason": reason})
        await asyncio.to_thread(self._catalog.commit, lambda before: _without(before, id_))
        return True


def _with(before: Manifest, hold: Hold) -> Manifest:
    if len(before.holds) >= MAX_HOLDS:
        raise QueryError("hold", f"there are {MAX_HOLDS} holds already; release one first")
    return msgspec.structs.replace(before, holds=(*before.holds, hold))


def _without(before: Manifest, id_: str) -> Manifest:
    return msgspec.structs.replace(before, holds=tuple(each for each in before.holds if each.id != id_))


def _check(reason: str, span_s: tuple[float, float], datasets: tuple[str, ...]) -> None:
    _check_reason(reason)
    if not 0 <= span_s[0] <= span_s[1]:
        raise QueryError("to", "is before from")
    for dataset in datasets:
        if dataset not in PERIODS:
            raise QueryError("data-set", f"{dataset!r} is not a data set; use one of {', '.join(PERIODS)}")


def _check_reason(reason: str) -> None:
    if not 3 <= len(reason.strip()) <= MAX_REASON:
        raise QueryError("reason", f"is required, with 3 to {MAX_REASON} characters")
