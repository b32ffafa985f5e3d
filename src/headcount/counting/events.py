"""Changes of membership, as columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from headcount.counting.fix_columns import B1, F8, I4, U1
from headcount.counting.membership_sets import MembershipSets

Reason = Literal["moved", "outside", "coarse", "silent", "removed", "site"]
REASONS: tuple[Reason, ...] = ("moved", "outside", "coarse", "silent", "removed", "site")
MOVED, OUTSIDE, COARSE, SILENT, REMOVED, SITE = range(len(REASONS))
NO_ROW = -1


@dataclass(frozen=True, slots=True)
class Events:
    """n events; those of one device are in the order in which they happened."""

    device: I4  # slot
    zone: I4  # index into the site's zones
    enter: B1  # else exit
    t_s: F8  # Unix seconds
    reason: U1  # index into REASONS
    day: I4  # on which the device's last used fix was received; selects the pseudonym to publish
    row: I4  # of the batch, whose fix caused it; NO_ROW for an expired hold

    def __len__(self) -> int:
        return len(self.device)


def changes(
    sets: MembershipSets, device: I4, old: I4, new: I4, t_s: F8, reason: U1, day: I4, batch_row: I4
) -> Events:
    """The events of devices that moved from one set of zones to another; rows without a change are allowed."""
    row, zone, enter = sets.changes(old, new)
    return Events(device[row], zone.astype(np.int32), enter, t_s[row], reason[row], day[row], batch_row[row])


def joined(parts: list[Events]) -> Events:
    """All events of some parts, in their order."""
    parts = [part for part in parts if len(part)]
    if len(parts) <= 1:
        return parts[0] if parts else NO_EVENTS
    return Events(*(np.concatenate([getattr(part, column) for part in parts]) for column in Events.__slots__))


_NOTHING = np.zeros(0, np.int32)
NO_EVENTS = Events(
    _NOTHING, _NOTHING, np.zeros(0, np.bool_), np.zeros(0), np.zeros(0, np.uint8), _NOTHING, _NOTHING
)
