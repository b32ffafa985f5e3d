"""Who has looked at single devices: from the audit log, read now and then for all who ask."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from typing import Any

from headcount.access.audit_log import Audit

#: Entries that are read at most, newest first, and so many at once.
MOST_ENTRIES, PAGE = 2_000, 500
#: So old what is told may be.
WITHIN_S = 15.0


class Looks:
    """By the pseudonym that an entry is about: who, when, why."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._by_name: dict[str, list[dict[str, Any]]] = {}
        self._read_s = -math.inf
        self._turn = asyncio.Lock()

    async def at(
        self, audit: Audit, names: Iterable[str], within_s: float = WITHIN_S
    ) -> list[dict[str, Any]]:
        """The looks at who has these pseudonyms, newest first, as of `within_s` seconds ago at most.

        Raises:
            LogError: the log doesn't answer.
        """
        asked_s = time.monotonic()
        async with self._turn:
            if asked_s - self._read_s >= within_s:
                self._read_s, self._by_name = asked_s, await _read(audit)
        found = [look for name in set(names) for look in self._by_name.get(name, ())]
        return sorted(found, key=lambda look: str(look["at"]), reverse=True)


async def _read(audit: Audit) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    before, read = None, 0
    while read < MOST_ENTRIES:
        entries, before = await audit.entries(before=before, limit=PAGE, action="positions")
        for entry in entries:
            if entry.subject:
                look = {"at": entry.at, "actor": entry.actor, "action": entry.action}
                found.setdefault(entry.subject, []).append(look | {"reason": entry.detail.get("reason")})
        read += len(entries)
        if before is None:
            break
    return found
