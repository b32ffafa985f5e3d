"""Select fixes of a site by area, span of event time, kind and device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from headcount.counting.fix_columns import B1, U8
from headcount.history.fix_rows import COLUMNS, FixRows, joined, nothing, rows_of, steps, ticks
from headcount.history.manifest import Segment
from headcount.history.query_areas import EVERYWHERE, Area
from headcount.history.reader import HistoryView, Ranges, RowPart
from headcount.messages.topics import KINDS, Kind


class FixQuery:
    """A query for fixes of one site; times are event times in microseconds, spans include both ends."""

    def __init__(
        self,
        view: HistoryView,
        site: str,
        kinds: Sequence[Kind],
        devices: U8 | None = None,
        *,
        verdict: int | None = None,
    ) -> None:
        """`devices` are pseudonyms of one device; `verdict` is an index into VERDICTS; None: all."""
        self._view = view
        self._site = site
        self._kinds = [KINDS.index(kind) for kind in kinds]
        self._devices = devices
        self._verdict = verdict

    def newest(self, area: Area, least: int, most: int, limit: int) -> FixRows:
        """The newest `limit` fixes in an area and a span, newest first, each once."""
        kept = nothing()
        new = list(self._view.waiting("fixes", self._taking(area, least, most), self._site))
        for segment in sorted(self._segments(area, least, most), key=_end, reverse=True):
            if len(kept) == limit:
                least = int(kept.t_us[-1])  # copies and rows of the same time are still wanted
                if _end(segment) < least:
                    break
            for rows in self._read([segment], area, least, most):
                new.append(rows)
                if sum(map(len, new)) > max(limit, 10_000):
                    kept, new = self._merged([kept, *new], limit), []
            kept, new = self._merged([kept, *new], limit), []
        return self._merged([kept, *new], limit)

    def last(self, least: int, most: int) -> FixRows:
        """Each device's last fix of a span."""
        rows = joined([nothing(), *self.each(EVERYWHERE, least, most)])
        rows = rows.take(np.lexsort((rows.seq, -rows.t_us, rows.device, rows.kind)))
        is_first: B1 = np.ones(len(rows), np.bool_)
        is_first[1:] = (rows.device[1:] != rows.device[:-1]) | (rows.kind[1:] != rows.kind[:-1])
        return rows.take(is_first)

    def each(self, area: Area, least: int, most: int) -> Iterator[FixRows]:
        """All fixes in an area and a span, in no order; copies come again."""
        yield from self._view.waiting("fixes", self._taking(area, least, most), self._site)
        yield from self._read(self._segments(area, least, most), area, least, most)

    def _read(self, segments: Sequence[Segment], area: Area, least: int, most: int) -> Iterator[FixRows]:
        ranges: list[Ranges] = [{"t": (least, most), **each} for each in area.ranges()]
        names = None if self._devices is None else [f"{device:016x}" for device in self._devices.tolist()]
        yield from self._view.each(segments, self._taking(area, least, most), ranges, self._site, names)

    def _merged(self, parts: list[FixRows], limit: int) -> FixRows:
        return joined(parts).newest_first(is_one_device=self._devices is not None).take(slice(limit))

    def _segments(self, area: Area, least: int, most: int) -> list[Segment]:
        return [
            each
            for each in self._view.manifest.of("fixes", site=self._site)
            if _end(each) >= least and math.floor(each.t_from_s * 1e6) <= most and area.touches(each.box)
        ]

    def _taking(self, area: Area, least: int, most: int) -> Callable[[RowPart], FixRows]:
        """Read the columns that decide first, and the others only where rows are wanted."""

        def take(part: RowPart) -> FixRows:
            first = part.read(["t", "lat", "lon"])
            t_us = ticks(first["t"])
            wanted = (t_us >= least) & (t_us <= most)
            if area is not EVERYWHERE:
                which = np.flatnonzero(wanted)
                wanted[which] = area.holds(steps(first["lat"])[which], steps(first["lon"])[which])
            if not wanted.any():
                return nothing()
            rows = rows_of(first, part.read(COLUMNS[3:]))
            wanted &= np.isin(rows.kind, self._kinds)
            if self._devices is not None:
                wanted &= np.isin(rows.device, self._devices)
            if self._verdict is not None:
                wanted &= rows.verdict == self._verdict
            return rows.take(wanted)

        return take


def _end(segment: Segment) -> int:
    """The largest event time of a segment, or a little more."""
    return math.ceil(segment.t_to_s * 1e6)
