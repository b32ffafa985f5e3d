"""The access history of single devices' positions, from the audit log."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from typing import Any

from headcount.access.audit_log import AuditLog

#: The maximum number of entries read, newest first, and per request.
MAX_ENTRIES, PAGE_SIZE = 2_000, 500
#: The age up to which entries that were read before are used again.
MAX_AGE_S = 15.0


class AccessHistory:
    """Accesses by the pseudonym of the device; read now and then for all devices."""

    def __init__(self, log: AuditLog) -> None:
        """Read from an audit log."""
        self._log = log
        self._by_pseudonym: dict[str, list[dict[str, Any]]] = {}
        self._read_s = -math.inf
        self._lock = asyncio.Lock()

    async def of(self, pseudonyms: Iterable[str], max_age_s: float = MAX_AGE_S) -> list[dict[str, Any]]:
        """Return the accesses to a device with these pseudonyms, newest first.

        Raises:
            LogError: the log does not answer.
        """
        now_s = time.monotonic()
        async with self._lock:
            if now_s - self._read_s >= max_age_s:
                self._read_s, self._by_pseudonym = now_s, await self._read()
        found = [access for name in set(pseudonyms) for access in self._by_pseudonym.get(name, ())]
        return sorted(found, key=lambda access: str(access["at"]), reverse=True)

    async def _read(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        before, read = None, 0
        while read < MAX_ENTRIES:
            entries, before = await self._log.entries(before=before, limit=PAGE_SIZE, action="positions")
            for entry in entries:
                if entry.subject:
                    access = {"at": entry.at, "actor": entry.actor, "action": entry.action}
                    found.setdefault(entry.subject, []).append(
                        access | {"reason": entry.detail.get("reason")}
                    )
            read += len(entries)
            if before is None:
                break
        return found
