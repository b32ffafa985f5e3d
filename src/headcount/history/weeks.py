"""Days and weeks of a zone by the hour, in local time. Pure.

An hour of a day has a number, None (nothing is recorded), or HIDDEN (public: below the smallest number that is
published). In a typical week, hidden numbers are smaller than all others, so a quartile is hidden
exactly if the number at its place is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

HOUR_S = 3600
HOURS = 24
WEEK_HOURS = 7 * HOURS
HIDDEN = -1.0
#: Lower quartile, median, upper quartile.
QUARTILES = (0.25, 0.5, 0.75)


def heat_map(hours: Mapping[float, float], zone: str) -> dict[date, list[float | None]]:
    """The hours of each local day.

    Args:
        hours: the number of each hour by its beginning (Unix seconds); any part of an hour may begin a local hour.
        zone: the name of the time zone.

    Returns:
        By day, 24 numbers. An hour that a change of the clock repeats has the mean of both.
    """
    local = ZoneInfo(zone)
    cells: dict[tuple[date, int], list[float]] = defaultdict(list)
    for at_s, number in hours.items():
        at = datetime.fromtimestamp(at_s, UTC).astimezone(local)
        cells[at.date(), at.hour].append(number)
    days = sorted({day for day, _ in cells})
    return {day: [_mean(cells.get((day, hour), ())) for hour in range(HOURS)] for day in days}


def typical_week(days: Mapping[date, list[float | None]]) -> list[tuple[int, list[float | None]]]:
    """The number of days, and the quartiles, of each hour of the week from Monday 0:00; 168 of them."""
    cells: list[list[float]] = [[] for _ in range(WEEK_HOURS)]
    for day, hours in days.items():
        for hour, number in enumerate(hours):
            if number is not None:
                cells[day.weekday() * HOURS + hour].append(number)
    return [(len(cell), [_quantile(sorted(cell), share) for share in QUARTILES]) for cell in cells]


def _mean(numbers: Iterable[float]) -> float | None:
    found = list(numbers)
    if not found:
        return None
    return HIDDEN if HIDDEN in found else sum(found) / len(found)


def _quantile(cell: list[float], share: float) -> float | None:
    """Linear between the two numbers around it, as NumPy does; hidden if one of them is."""
    if not cell:
        return None
    place = share * (len(cell) - 1)
    low, high = cell[math.floor(place)], cell[math.ceil(place)]
    if HIDDEN in (low, high):
        return HIDDEN
    return low + (high - low) * (place - math.floor(place))
