"""Queries over stored positions of the last 24 hours. They block: call them in a thread.

Every query is of one site, and limited in rows and time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from headcount.counting.fix_columns import U8
from headcount.errors import QueryError
from headcount.history.at_instant import DevicePositions, PresenceRules
from headcount.history.cells import CellVisits
from headcount.history.cursors import Key
from headcount.history.fix_query import FixQuery
from headcount.history.fix_rows import STEPS_PER_DEG, FixRows
from headcount.history.hours import T_MAX_S
from headcount.history.query_areas import EVERYWHERE, Area, Centre
from headcount.history.reader import HistoryView, check_time
from headcount.messages.fixes import VERDICTS
from headcount.messages.topics import KINDS, Kind

MAX_ROWS = 100_000
MAX_NEAREST = 1000
#: Coarse positions, for roles that may see only those: 0.001 degrees (110 m) and 5 minutes.
CELLS_PER_DEG = 1000
SLOT_S = 300


class StoredFix(msgspec.Struct, frozen=True):
    """A stored fix."""

    device: str  # pseudonym of the day
    kind: Kind
    t: float  # Unix seconds, event time, whole microseconds
    lat: float  # degrees, 7 decimals
    lon: float
    acc: float  # metres, 0 = unknown
    verdict: str
    is_between: bool = False  # at an instant: the position is between this fix and the next one


class CellCount(msgspec.Struct, frozen=True):
    """A cell of the grid within a slot of time."""

    kind: Kind
    t: float  # Unix seconds, the slot's beginning
    south: float  # degrees, the cell's edges; the others are 1 / CELLS_PER_DEG further
    west: float
    devices: int  # different ones


def fixes(
    view: HistoryView,
    *,
    site: str,
    area: Area = EVERYWHERE,
    from_s: float | None = None,
    to_s: float | None = None,
    limit: int = 1000,
    kinds: Sequence[Kind] = KINDS,
    devices: Sequence[str] | None = None,
    after: Key | None = None,
) -> list[StoredFix]:
    """Stored fixes in an area and a span of event time, newest first; edges count as inside.

    A fix that was delivered again is answered once. The order is total, so pages neither repeat nor miss rows.

    Args:
        view: the history.
        site: the id of the site on which they were counted.
        area: of the positions.
        from_s: event time, Unix seconds, inclusive.
        to_s: the same for the end.
        limit: rows at most (1 to MAX_ROWS), the newest ones.
        kinds: the kinds wanted.
        devices: only these pseudonyms, all of one device.
        after: only rows after this place in the order, the `key` of the last row of a page.

    Raises:
        QueryError: a parameter makes no sense, or the answer takes too long.
        DataFolderError, StoreError: the store cannot be read.
    """
    _check_limit(limit)
    query = FixQuery(view, site, kinds, None if devices is None else _pseudonyms(devices))
    return _stored_fixes(query.newest(area, *_span_us(from_s, to_s), limit, after))


def fixes_at(
    view: HistoryView,
    *,
    site: str,
    rules: PresenceRules,
    at_s: float,
    area: Area = EVERYWHERE,
    limit: int = 1000,
    kinds: Sequence[Kind] = KINDS,
    after: Key | None = None,
) -> list[StoredFix]:
    """The positions in an area of the devices that were present at an instant, by kind and pseudonym.

    Args:
        view: the history.
        site: the id of the site.
        rules: of the version of the site that was in effect.
        at_s: Unix seconds.
        area: of the positions at the instant.
        limit: devices at most (1 to MAX_ROWS).
        kinds: the kinds wanted.
        after: only devices after this one in the order, the `key` of the last row of a page.

    Raises:
        QueryError: a parameter makes no sense, or the answer takes too long.
        DataFolderError, StoreError: the store cannot be read.
    """
    _check_limit(limit)
    found = FixQuery(view, site, kinds).at(area, _microseconds("at", at_s), rules)
    if after is not None:
        kind, device = after[1], after[4]
        found = found.take(
            (found.fixes.kind > kind) | (found.fixes.kind == kind) & (found.fixes.device > device)
        )
    return _stored_positions(found.take(slice(limit)))


def nearest(
    view: HistoryView,
    *,
    site: str,
    centre: Centre,
    k: int,
    from_s: float | None = None,
    to_s: float | None = None,
    at_s: float | None = None,
    rules: PresenceRules | None = None,
    kinds: Sequence[Kind] = KINDS,
) -> list[tuple[StoredFix, float]]:
    """The k devices that came nearest to a position in a span, or were nearest at an instant, with distances.

    Args:
        view: the history.
        site: the id of the site.
        centre: the position, and the largest distance.
        k: devices at most, 1 to MAX_NEAREST.
        from_s: event time, Unix seconds, inclusive.
        to_s: the same for the end.
        at_s: instead of a span, with `rules`.
        rules: of the version of the site that was in effect at the instant.
        kinds: the kinds wanted.

    Raises:
        QueryError: a parameter makes no sense, or the answer takes too long.
        DataFolderError, StoreError: the store cannot be read.
    """
    if not 1 <= k <= MAX_NEAREST:
        raise QueryError("k", f"{k} is not between 1 and {MAX_NEAREST}")
    query = FixQuery(view, site, kinds)
    if at_s is None or rules is None:
        rows, distances_m = query.nearest(centre, *_span_us(from_s, to_s), k)
        return list(zip(_stored_fixes(rows), distances_m.tolist(), strict=True))
    found = query.at(centre.circle(), _microseconds("at", at_s), rules)
    distances_m = centre.distances_m(found.lat, found.lon)
    order = np.argsort(distances_m, kind="stable")[:k]
    return list(zip(_stored_positions(found.take(order)), distances_m[order].tolist(), strict=True))


def cells(
    view: HistoryView,
    *,
    site: str,
    k: int,
    area: Area = EVERYWHERE,
    from_s: float,
    to_s: float,
    limit: int = 1000,
    kinds: Sequence[Kind] = KINDS,
) -> list[CellCount]:
    """The number of devices with accepted fixes in each cell and slot of time, where it is k or more.

    No query reveals parts of a cell: an area selects the cells that overlap it as a whole, and a span the
    slots that begin in it.

    Args:
        view: the history.
        site: the id of the site.
        k: cells with fewer different devices of a kind within a slot are left out.
        area: of cells that overlap it.
        from_s: Unix seconds, inclusive.
        to_s: the end, exclusive.
        limit: cells at most, the newest.
        kinds: the kinds wanted.

    Raises:
        QueryError: a parameter makes no sense, or the answer takes too long or too much memory.
        DataFolderError, StoreError: the store cannot be read.
    """
    _check_limit(limit)
    first, last = math.ceil(max(from_s, 0.0) / SLOT_S), math.ceil(to_s / SLOT_S)
    check_time("from", first * SLOT_S)
    check_time("to", to_s)
    visits = CellVisits(first, SLOT_S, STEPS_PER_DEG // CELLS_PER_DEG)
    query = FixQuery(view, site, kinds, None, verdict=VERDICTS.index("accepted"))
    middles = area.of_cells(1 / CELLS_PER_DEG)
    span_us = first * SLOT_S * 10**6, last * SLOT_S * 10**6 - 1
    for rows in query.each(area.of_cells(3 / CELLS_PER_DEG).boxes_only(), *span_us):
        visits.add(rows)
    found = visits.counted(k)
    step = STEPS_PER_DEG // CELLS_PER_DEG
    found = found.take(middles.holds(found.north * step + step // 2, found.east * step + step // 2))
    return [
        CellCount(KINDS[kind], slot * SLOT_S, north / CELLS_PER_DEG, east / CELLS_PER_DEG, devices)
        for kind, slot, north, east, devices in found.newest_first(limit)
    ]


def key(fix: StoredFix) -> Key:
    """The place of a fix in the order of `fixes`."""
    lat, lon = round(fix.lat * STEPS_PER_DEG), round(fix.lon * STEPS_PER_DEG)
    return -round(fix.t * 1e6), KINDS.index(fix.kind), lat, lon, int(fix.device, 16)


def _stored_positions(found: DevicePositions) -> list[StoredFix]:
    rows = replace(found.fixes, lat=found.lat, lon=found.lon)
    return [
        msgspec.structs.replace(fix, is_between=is_between)
        for fix, is_between in zip(_stored_fixes(rows), found.is_between.tolist(), strict=True)
    ]


def _stored_fixes(rows: FixRows) -> list[StoredFix]:
    columns = (
        [f"{device:016x}" for device in rows.device.tolist()],
        [KINDS[kind] for kind in rows.kind.tolist()],
        (rows.t_us / 1e6).tolist(),
        (rows.lat / STEPS_PER_DEG).tolist(),
        (rows.lon / STEPS_PER_DEG).tolist(),
        rows.acc.tolist(),
        [VERDICTS[verdict] for verdict in rows.verdict.tolist()],
    )
    return [StoredFix(*row) for row in zip(*columns, strict=True)]


def _pseudonyms(devices: Sequence[str]) -> U8:
    """Pseudonyms as numbers; other texts are those of no device."""
    digits = frozenset("0123456789abcdef")
    return np.array([int(d, 16) for d in devices if len(d) == 16 and digits.issuperset(d)], np.uint64)


def _span_us(from_s: float | None, to_s: float | None) -> tuple[int, int]:
    least = 0 if from_s is None else _microseconds("from", from_s)
    return least, round(T_MAX_S * 1e6) if to_s is None else _microseconds("to", to_s)


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_ROWS:
        raise QueryError("limit", f"{limit} is not between 1 and {MAX_ROWS}")


def _microseconds(parameter: str, t_s: float) -> int:
    check_time(parameter, max(t_s, 0.0))
    return round(t_s * 1e6)
