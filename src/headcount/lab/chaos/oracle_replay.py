"""`headcount replay` by its definition, with the oracle.

A recording is counted in the order of `received`; rows received together in the order of the file.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any, NamedTuple

from headcount.lab.chaos.oracle import DAY_S, Oracle


class TraceRow(NamedTuple):
    """A row of a recording."""

    t: float
    device: str
    kind: str
    lat: float
    lon: float
    acc: float | None = None
    received: float | None = None


def in_order_of_receipt(rows: list[TraceRow]) -> list[tuple[float, TraceRow]]:
    """Each row with the instant at which it was received; without `received`, the largest `t` so far."""
    if any(row.received is not None for row in rows):
        arrived = [(row.t if row.received is None else row.received, row) for row in rows]
        return sorted(arrived, key=lambda each: each[0])
    return list(zip(accumulate((row.t for row in rows), max), rows, strict=True))


def replay(
    rows: list[TraceRow],
    geojson: dict[str, Any],
    every: float,
    changes: Iterable[tuple[float, dict[str, Any]]] = (),
) -> Iterator[tuple[float, dict[str, dict[str, int]]]]:
    """The instants and counts of `headcount replay`, by its definition.

    At each multiple of `every`, starting at the first received row, all rows with `received <= at` count. The
    last tick is the one at which all rows are included and no device is present, at most one tick after the first
    one that includes all rows. If no device is present and no row follows within a day, the next tick is the first
    one that includes the next row. `changes` are site files with the instants at which they take effect.
    """
    later = deque(changes)
    waiting = deque(in_order_of_receipt(rows))
    oracle = Oracle(geojson)
    tick, last = (math.ceil(end[0] / every) for end in (waiting[0], waiting[-1]))
    while tick <= last + 1:
        while waiting and waiting[0][0] <= tick * every:
            received, row = waiting.popleft()
            while later and later[0][0] < received:
                oracle.change_site(*later.popleft())
            oracle.fix(received, row.kind, row.device, row.t, row.lat, row.lon, row.acc)
        while later and later[0][0] <= tick * every:
            oracle.change_site(*later.popleft())
        oracle.advance(tick * every)
        yield tick * every, oracle.sizes()
        is_empty = not any(d.zones for d in oracle.devices.values())
        if tick >= last and is_empty:
            return
        is_gap = is_empty and bool(waiting) and waiting[0][0] - tick * every > DAY_S
        tick = math.ceil(waiting[0][0] / every) if is_gap else tick + 1
