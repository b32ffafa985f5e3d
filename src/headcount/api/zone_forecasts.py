"""Forecasts of one zone, exact or public."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from headcount.api.live_sites import ServedSite
from headcount.api.public_counts import FORECAST_DAYS, PublicCounts
from headcount.counting.disclosure import SUPPRESSED, WITHHELD, as_public
from headcount.counting.fix_columns import F8
from headcount.history.forecast import MAX_DAYS, SLOT_S, SLOTS, SeriesForecast, forecast
from headcount.history.quarter_hours import QuarterCounts, QuarterHours, local_slot, means, on_local_clock
from headcount.history.reader import HistoryView
from headcount.messages.times import iso
from headcount.messages.topics import KINDS

#: The longest time ahead, in hours.
MAX_HOURS = 24


@dataclass(frozen=True, slots=True)
class ForecastQuery:
    """A zone, the present, how many hours ahead, and the level of the interval."""

    zone: str
    now_s: float
    hours: float
    level: float


def zone_forecast(
    quarters: QuarterHours,
    view: HistoryView,
    site: ServedSite,
    public: PublicCounts | None,
    query: ForecastQuery,
) -> dict[str, Any]:
    """Return the body of an answer, as `ForecastResponse`; may block.

    Args:
        quarters: cached counts.
        view: of the history.
        site: that of the zone.
        public: the public counts if the caller may not see exact ones. The forecast rests on those then: a
            function of what is public discloses nothing more.
        query: what to forecast.

    Raises:
        QueryError, DataFolderError, StoreError: the history cannot be read.
    """
    clock = ZoneInfo(site.site.timezone)
    newest = int(query.now_s // SLOT_S)
    steps = np.arange(1, math.ceil(query.hours * 3600 / SLOT_S) + 1)
    days = MAX_DAYS if public is None else FORECAST_DAYS
    zones = quarters.zones(view, site.id, query.now_s, days)
    last = local_slot(newest, clock)
    # where the clock is put back, slots repeat
    horizons = [min(max(local_slot(newest + int(step), clock) - last, 1), SLOTS) for step in steps]
    kinds, first = {}, newest
    for index, kind in enumerate(KINDS):
        if public is not None:
            series, last = _public_series(public, zones, query.zone, index, newest, clock)
        elif query.zone in zones:
            series, last = means(zones[query.zone], index, newest, clock)
        else:
            series = np.zeros(0)
        first = min(first, newest - len(series))
        found = forecast(series, last, horizons, query.level)
        kinds[kind] = _public_rows(found, public.smallest) if public is not None else _exact_rows(found)
    return {
        "site": site.id,
        "zone": query.zone,
        "at": iso(newest * SLOT_S),
        "step_s": SLOT_S,
        "level": query.level,
        "from": iso(first * SLOT_S),
        "rows": [
            {"at": iso((newest + int(step)) * SLOT_S)} | {kind: rows[i] for kind, rows in kinds.items()}
            for i, step in enumerate(steps)
        ],
    }


def _public_series(
    public: PublicCounts,
    zones: Mapping[str, QuarterCounts],
    zone: str,
    kind: int,
    newest: int,
    clock: ZoneInfo,
) -> tuple[F8, int]:
    """The public counts of the ends of quarters; a count below k is taken as half of that."""
    at_end: dict[int, dict[str, list[int]]] = {}
    for name, found in zones.items():
        stored = found.last[:, 0] >= 0
        for quarter, last in zip(found.quarter[stored].tolist(), found.last[stored].tolist(), strict=True):
            at_end.setdefault(quarter, {})[name] = last
    values = {SUPPRESSED: (public.smallest - 1) / 2, WITHHELD: np.nan}
    known = {}
    for quarter, counts in sorted(at_end.items()):
        published = public.published(float(quarter * SLOT_S), counts)
        if published is not None and zone in published:
            known[quarter] = values.get(published[zone][kind], published[zone][kind])
    quarters = np.array(list(known), np.int64)
    return on_local_clock(quarters, np.array(list(known.values()), np.float64), newest, clock)


def _exact_rows(found: SeriesForecast) -> list[dict[str, Any]]:
    return [
        {"expected": round(expected, 1), "low": round(low), "high": round(high), "checks": checks}
        if not math.isnan(expected)
        else {"expected": None, "low": None, "high": None, "checks": checks}
        for expected, low, high, checks in _rows(found)
    ]


def _public_rows(found: SeriesForecast, smallest: int) -> list[dict[str, Any]]:
    """The same as multiples of k, `<k` below it; the interval is rounded outwards."""

    def as_multiple(value: float, rounded: float) -> int | str | None:
        if math.isnan(value):
            return None
        number = int(rounded) * smallest
        return as_public(number if number >= smallest else SUPPRESSED, smallest)

    return [
        {
            "expected": as_multiple(expected, expected // smallest + (expected % smallest >= smallest / 2)),
            "low": as_multiple(low, low // smallest),
            "high": as_multiple(high, -(-high // smallest)),
            "checks": checks,
        }
        for expected, low, high, checks in _rows(found)
    ]


def _rows(found: SeriesForecast) -> list[tuple[float, float, float, int]]:
    columns = (found.expected, found.low, found.high, found.checks)
    return list(zip(*(column.tolist() for column in columns), strict=True))
