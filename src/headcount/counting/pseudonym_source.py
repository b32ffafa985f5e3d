"""The engine's interface to daily pseudonyms."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from headcount.counting.fix_columns import F8, I4, U8
from headcount.messages.times import DAY_S

#: No day: nothing was received or no pseudonym was computed.
NEVER = -1


class PseudonymSource(Protocol):
    """A source of daily pseudonyms; `devices/pseudonyms.py` implements it."""

    def many(self, keys: list[bytes], day: int) -> U8:
        """The pseudonyms of n devices (keys such as `b"person.alice"`) on a day (its number since 1970)."""

    def knows(self, day: int) -> bool:
        """Whether the day's key is known; without it, pseudonyms are random and private to this object."""


def days(t_s: F8) -> I4:
    """The day of each instant, int32 [n]; NEVER for NaN."""
    found: I4 = np.nan_to_num(t_s // DAY_S, nan=NEVER).astype(np.int32)
    return found
