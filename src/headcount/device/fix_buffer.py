"""Fixes that wait for an acknowledgement, bounded: a full buffer is thinned out, and keeps what changes counts."""

from __future__ import annotations

from typing import NamedTuple

#: Below the 3,000 messages that the broker accepts from a device in one go.
MAX_FIXES = 2_000


class WaitingFix(NamedTuple):
    """A fix that is not acknowledged yet."""

    number: int  # rises with each fix
    t: float
    is_counted: bool  # it changes the zones in which the device is counted
    payload: bytes


class FixBuffer:
    """The waiting fixes, in the order of time."""

    def __init__(self, capacity: int = MAX_FIXES, fixes: list[WaitingFix] | None = None) -> None:
        if not 1 <= capacity <= MAX_FIXES:
            raise ValueError(f"capacity {capacity}: must be 1 to {MAX_FIXES}")
        self.capacity = capacity
        self.fixes = fixes or []

    def append(self, fix: WaitingFix) -> WaitingFix | None:
        """Add the newest fix; returns the one that is dropped if the buffer is full."""
        self.fixes.append(fix)
        return self.fixes.pop(self._dispensable()) if len(self.fixes) > self.capacity else None

    def remove(self, numbers: set[int]) -> None:
        """Remove acknowledged fixes; those that are not in the buffer any more are ignored."""
        self.fixes = [fix for fix in self.fixes if fix.number not in numbers]

    def _dispensable(self) -> int:
        """The index of the fix whose neighbours are closest in time, among those that change no count.

        The first and the last are never among them. Without any, it is the oldest fix.
        """
        fixes = self.fixes
        inner = [i for i in range(1, len(fixes) - 1) if not fixes[i].is_counted]
        return min(inner, key=lambda i: fixes[i + 1].t - fixes[i - 1].t, default=0)
