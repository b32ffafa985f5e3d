"""Select fixes of a site by area, span of event time, kind and device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headcount.counting.fix_columns import B1, F8, U8
from headcount.history.at_instant import (
    ACCEPTED,
    DAY_US,
    MAX_GAP_S,
    MAX_GAP_US,
    DevicePositions,
    Exits,
    PresenceRules,
    deciding,
    positions,
    without_position,
)
from headcount.history.cursors import Key
from headcount.history.fix_rows import (
    COLUMNS,
    FixRows,
    codes,
    joined,
    nothing,
    pseudonyms,
    rows_of,
    steps,
    ticks,
)
from headcount.history.manifest import Segment
from headcount.history.pauses import PAUSE_US
from headcount.history.query_areas import EVERYWHERE, Area, Centre
from headcount.history.reader import HistoryView, Ranges, RowPart
from headcount.messages.topics import KINDS, Kind

#: The columns that decide about positions at an instant.
_DECIDING = tuple(name for name in COLUMNS if name != "partition")


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
        self._kinds = kinds
        self._devices = devices
        self._verdict = verdict

    def newest(self, area: Area, least: int, most: int, limit: int, after: Key | None = None) -> FixRows:
        """The newest `limit` fixes in an area and a span that come after a place, newest first, each once."""
        most = most if after is None else min(most, -after[0])
        kept = nothing()
        new = list(self._view.waiting("fixes", self._taking(area, least, most, after), self._site))
        for segment in sorted(self._segments(area, least, most), key=_end, reverse=True):
            if len(kept) == limit:
                least = int(kept.t_us[-1])  # copies and rows of the same time are still wanted
                if _end(segment) < least:
                    break
            for rows in self._read([segment], area, least, most, after):
                new.append(rows)
                if sum(map(len, new)) > max(limit, 10_000):
                    kept, new = self._merged([kept, *new], limit), []
            kept, new = self._merged([kept, *new], limit), []
        return self._merged([kept, *new], limit)

    def nearest(self, centre: Centre, least: int, most: int, k: int) -> tuple[FixRows, F8]:
        """Of the k devices that came nearest in a span, the nearest fix, and its distance in metres."""
        circle = centre.circle()
        waiting = self._view.waiting("fixes", self._taking(circle, least, most), self._site)
        found, distance_m = _nearest(centre, [nothing(), *waiting], k)
        for segment in self._segments(circle, least, most):
            if len(found) == k:  # further away, no device is wanted any more
                circle = centre.circle(float(distance_m[-1]))
            for part in self._read([segment], circle, least, most) if circle.touches(segment.box) else ():
                found, distance_m = _nearest(centre, [found, part], k)
        return found, distance_m

    def at(self, area: Area, at_us: int, rules: PresenceRules) -> DevicePositions:
        """The positions in an area of all devices that were present at an instant."""
        exits = self._exits(at_us / 1e6 - rules.longest_s, (at_us + MAX_GAP_US) / 1e6)
        ages_s = (MAX_GAP_S, rules.base_s, rules.site.max_position_age_s, rules.longest_s)
        recent, base, coarse, longest = (
            max(at_us // DAY_US * DAY_US, at_us - round(age_s * 1e6)) for age_s in ages_s
        )
        rows = self._deciding(EVERYWHERE, at_us, recent, at_us + MAX_GAP_US)
        boxes = rules.long_boxes()
        if area.is_narrow:
            # of older fixes, only those of devices matter whose last one may be in the area
            usual = min(base, coarse)
            older = [self._deciding(area, at_us, usual, recent - 1)]
            if (parks := area.within(boxes)) is not None:
                older.append(self._deciding(parks, at_us, longest, usual - 1))
            devices = _unplaced(rows, joined(older), at_us)
            some = FixQuery(self._view, self._site, self._kinds, devices)
            spans = [(EVERYWHERE, usual, recent - 1), (Area(boxes), longest, base - 1)]
            rest = [some._deciding(where, at_us, *span) for where, *span in spans if len(devices)]
        else:
            rows = joined([rows, self._deciding(EVERYWHERE, at_us, base, recent - 1)])
            # older fixes matter for members of zones with long holds, and where only inaccurate ones came since
            devices = without_position(rows, at_us)
            some = FixQuery(self._view, self._site, self._kinds, devices)
            rest = [some._deciding(EVERYWHERE, at_us, coarse, base - 1)] if len(devices) else []
            rest.append(self._deciding(Area(boxes), at_us, longest, base - 1))
        found = positions(joined([rows, *rest]), exits, at_us, rules)
        return found.take(area.holds(found.lat, found.lon))

    def _deciding(self, area: Area, at_us: int, least: int, most: int) -> FixRows:
        """Of the fixes in an area and a span, those that may decide about positions at an instant."""
        if least > most:
            return nothing()

        def take(part: RowPart) -> FixRows:
            t_us = ticks((table := part.read(_DECIDING))["t"])
            rows = rows_of(table, table, np.flatnonzero((t_us >= least) & (t_us <= most)))
            rows = rows.take(deciding(rows, at_us, least, most))
            wanted = (
                area.holds(rows.lat, rows.lon) if area is not EVERYWHERE else np.ones(len(rows), np.bool_)
            )
            return rows.take(self._is_wanted(rows, wanted))

        # of hours with pauses, these stand for all fixes but the newest
        latest_us, damaged = min(most, at_us - PAUSE_US), self._view.reader.damaged
        pauses = self._view.pauses if least <= latest_us else {}
        hours = {hour_s for hour_s, each in pauses.items() if each.name not in damaged}
        whole, newer = [], []
        for segment in self._segments(area, least, most):
            if segment.hour_s not in hours:
                whole.append(segment)
            elif _end(segment) > latest_us:
                newer.append(segment)
        older = [
            each for each in self._segments(area, least, latest_us, pauses.values()) if each.hour_s in hours
        ]
        found = [
            nothing(),
            *self._view.waiting("fixes", take, self._site),
            *self._parts(older, area, least, latest_us, take),
            *self._parts(newer, area, max(least, latest_us + 1), most, take),
            *self._parts(whole, area, least, most, take),
        ]
        if any(each.name in damaged for each in older):
            return self._deciding(area, at_us, least, most)  # their fixes are read then
        return joined(found)

    def _exits(self, from_s: float, to_s: float) -> Exits:
        columns = ["zone", "type", "device", "kind", "t"]
        table = self._view.scan("events", columns=columns, site=self._site, from_s=from_s, to_s=to_s)
        if len(table):
            is_exit = pc.and_(_equal(table["zone"], "site"), _equal(table["type"], "exit"))
            table = table.filter(is_exit)
        if not len(table):
            return Exits(nothing().device, nothing().kind, nothing().t_us)
        return Exits(pseudonyms(table["device"]), codes(table["kind"], KINDS), ticks(table["t"]))

    def each(self, area: Area, least: int, most: int) -> Iterator[FixRows]:
        """All fixes in an area and a span, in no order; copies come again."""
        yield from self._view.waiting("fixes", self._taking(area, least, most), self._site)
        yield from self._read(self._segments(area, least, most), area, least, most)

    def _read(
        self, segments: Sequence[Segment], area: Area, least: int, most: int, after: Key | None = None
    ) -> Iterator[FixRows]:
        yield from self._parts(segments, area, least, most, self._taking(area, least, most, after))

    def _parts(
        self,
        segments: Sequence[Segment],
        area: Area,
        least: int,
        most: int,
        take: Callable[[RowPart], FixRows],
    ) -> Iterator[FixRows]:
        ranges: list[Ranges] = [{"t": (least, most), **each} for each in area.ranges()]
        names = None if self._devices is None else [f"{device:016x}" for device in self._devices.tolist()]
        return self._view.each(segments, take, ranges, self._site, names)

    def _merged(self, parts: list[FixRows], limit: int) -> FixRows:
        return joined(parts).newest_first(is_one_device=self._devices is not None).take(slice(limit))

    def _segments(
        self, area: Area, least: int, most: int, among: Iterable[Segment] | None = None
    ) -> list[Segment]:
        """The segments that may hold rows of an area and a span; of fixes, if none are given."""
        return [
            each
            for each in (self._view.manifest.of("fixes") if among is None else among)
            if self._site in each.sites
            and _end(each) >= least
            and math.floor(each.t_from_s * 1e6) <= most
            and area.touches(each.box)
        ]

    def _taking(
        self, area: Area, least: int, most: int, after: Key | None = None
    ) -> Callable[[RowPart], FixRows]:
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
            rows = rows_of(first, part.read(COLUMNS[3:]), np.flatnonzero(wanted))
            wanted = self._is_wanted(rows, np.ones(len(rows), np.bool_))
            if after is not None:
                wanted &= rows.after(after)
            return rows.take(wanted)

        return take

    def _is_wanted(self, rows: FixRows, wanted: B1) -> B1:
        """Which of the wanted rows are of the query's kinds, devices and verdict."""
        if len(self._kinds) < len(KINDS):
            wanted = wanted & np.isin(rows.kind, [KINDS.index(kind) for kind in self._kinds])
        if self._devices is not None:
            wanted = wanted & np.isin(rows.device, self._devices)
        if self._verdict is not None:
            wanted = wanted & (rows.verdict == self._verdict)
        return wanted


def _unplaced(rows: FixRows, older: FixRows, at_us: int) -> U8:
    """The devices with older accepted fixes, and without any among `rows` up to an instant."""
    placed = rows.device[(rows.t_us <= at_us) & (rows.verdict == ACCEPTED)]
    return np.setdiff1d(older.device[older.verdict == ACCEPTED], placed)


def _nearest(centre: Centre, parts: list[FixRows], k: int) -> tuple[FixRows, F8]:
    """The nearest fix of each of the k nearest devices, with its distance, nearest first."""
    rows = joined(parts)
    distance_m = centre.distances_m(rows.lat, rows.lon)
    order = np.lexsort((rows.seq, -rows.t_us, distance_m, rows.device, rows.kind))
    rows, distance_m = rows.take(order), distance_m[order]
    is_first = np.ones(len(rows), np.bool_)
    is_first[1:] = (rows.device[1:] != rows.device[:-1]) | (rows.kind[1:] != rows.kind[:-1])
    rows, distance_m = rows.take(is_first), distance_m[is_first]
    order = np.lexsort((rows.device, rows.kind, distance_m))[:k]
    return rows.take(order), distance_m[order]


def _equal(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    return pc.equal(column.cast(pa.string()), name)


def _end(segment: Segment) -> int:
    """The largest event time of a segment, or a little more."""
    return math.ceil(segment.t_to_s * 1e6)
