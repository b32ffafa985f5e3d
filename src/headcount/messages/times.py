"""The grid of the log's clock, and times as text."""

from __future__ import annotations

import math
from datetime import UTC, datetime

#: The grid of the log's clock: counts are computed at multiples of this, at as many of them as the load calls for.
TICK_S = 0.025
#: Counts are stored in the history at multiples of this.
HISTORY_TICK_S = 10.0
#: A version of the site takes effect this long after the core has stored it: by then, every worker knows it.
SITE_DELAY_S = 5.0
DAY_S = 86_400


def iso(t: float) -> str:
    """Unix seconds as RFC 3339 in UTC with milliseconds: `2026-11-24T13:00:00.000Z`."""
    moment = datetime.fromtimestamp(round(t * 1000) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_or_none(t: float | None) -> str | None:
    """As `iso`; None stays None."""
    return None if t is None else iso(t)


def tick_s(tick: int) -> float:
    """The instant of a tick (Unix seconds)."""
    return tick * round(TICK_S * 1e9) / 1e9


def effect_tick(stored_s: float) -> int:
    """When a version takes effect that the core stored at Unix seconds, in TICK_S: at a tenth of a second."""
    return math.ceil((stored_s + SITE_DELAY_S) * 10) * round(0.1 / TICK_S)
