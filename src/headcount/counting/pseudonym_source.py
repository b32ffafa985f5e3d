"""What the engine needs to know of names that change every day."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from headcount.counting.fix_columns import F8, I4, U8
from headcount.messages.times import DAY_S

#: No day: it stands where nothing has been heard or named.
NEVER = -1


class PseudonymSource(Protocol):
    """Gives devices names that say nothing; `devices/pseudonyms.py` has the real ones."""

    def many(self, keys: list[bytes], day: int) -> U8:
        """The names of n devices (`b"person.alice"`) on a day (its number since 1970), as numbers."""

    def knows(self, day: int) -> bool:
        """Whether the names of that day are the same wherever the day is named."""


def days(t_s: F8) -> I4:
    """The day of each instant, int32 [n]; NEVER for NaN."""
    found: I4 = np.nan_to_num(t_s // DAY_S, nan=NEVER).astype(np.int32)
    return found
