"""The stored counts of each minute, and the stored fixes."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import shapely

from headcount.api.counts_lookup import feed_for
from headcount.api.live_sites import ServedSite
from headcount.api.ogc.collection import (
    AT_PROPERTY,
    COUNT_PROPERTIES,
    ZONE_PROPERTIES,
    Chunk,
    Collection,
    Reading,
    count_and_limit,
    cursor_pair,
    of_kinds,
    zone_values,
)
from headcount.api.ogc.feature_table import FeatureTable, Property, PropertyType, table
from headcount.api.ogc.parameters import MAX_LIMIT, ItemsQuery
from headcount.api.parameters import MAX_MOMENT_S
from headcount.api.public_counts import PublicCounts
from headcount.counting.disclosure import GRID_S
from headcount.counting.site import Zone
from headcount.counting.verdicts import FUTURE_S
from headcount.history.hours import HOUR_S
from headcount.history.queries import StoredFix
from headcount.history.reader import HistoryView
from headcount.history.series import zones_history
from headcount.messages.topics import KINDS
from headcount.services.positions import FixPage, PositionQuery

#: Rows of one chunk of counts over time.
_MAX_CHUNK_ROWS = 20_000
_SUMMARY: tuple[tuple[str, PropertyType, str], ...] = (
    ("min", "integer", "The smallest count within the minute; null in public counts."),
    ("max", "integer", "The largest count within the minute; null in public counts."),
    ("mean", "number", "The mean count within the minute; null in public counts."),
)


class HistoryCollection(Collection):
    """The counts of each minute."""

    name = "history"
    title = "Counts over time"
    description = "The counts of each zone and minute, with its outline, oldest first."
    properties = (*ZONE_PROPERTIES, AT_PROPERTY, *of_kinds(*COUNT_PROPERTIES, *_SUMMARY))
    time = "at"
    is_small = False

    async def chunks(self, reading: Reading, query: ItemsQuery) -> AsyncIterator[Chunk]:
        """Yield minutes; a cursor is Unix seconds and the number of zones to leave out."""
        zones = _zones_of_any_version(self.site)
        wanted = [id_ for id_ in zones if query.equals.get("zone", id_) == id_]
        now_s = time.time()
        first_s, last_s = query.span_s or (0.0, now_s)
        minute, skip = cursor_pair(query.cursor) if query.cursor else (math.ceil(first_s / GRID_S), 0)
        last = math.floor(min(last_s, now_s) / GRID_S)
        length, longest = query.limit // max(len(wanted), 1) + 1, _MAX_CHUNK_ROWS // max(len(wanted), 1) + 1
        while wanted and minute <= last:
            of_zones = [zones[id_] for id_ in wanted]
            features, minute = await self._minutes(reading, of_zones, minute, min(length, longest), last)
            length *= 4
            rest = features.take(range(min(skip, len(features)), len(features)))
            yield Chunk(rest, f"{minute}.0" if minute <= last else None)
            skip = 0

    async def _minutes(
        self, reading: Reading, zones: Sequence[Zone], first: int, length: int, last: int
    ) -> tuple[FeatureTable, int]:
        """Return the first stored minutes, at most `length`, and the one after them."""
        state, site = reading.state, self.site
        feed = feed_for(state, site, reading.caller)

        def read(view: HistoryView) -> tuple[FeatureTable, int]:
            begin = max(first, math.ceil(_first_stored_s(view, site.id, first * GRID_S) / GRID_S))
            if begin > last:
                return table(self.properties, [], [], []), begin
            end = min(begin + length - 1, last)
            span_s = begin * GRID_S, end * GRID_S
            found: list[tuple[float, int, dict[str, Any], dict[str, Any]]] = []
            if isinstance(feed, PublicCounts):
                for i, zone in enumerate(zones):
                    for at_s, row in feed.history(view, zone.id, span_s, GRID_S):
                        found.append((at_s, i, *(row[kind] for kind in KINDS)))  # type: ignore[arg-type]
            else:
                ids = [zone.id for zone in zones]
                stored = zones_history(view, ids, *span_s, GRID_S, site=site.id)
                for i, id_ in enumerate(ids):
                    for step in stored[id_]:
                        summaries = (msgspec.structs.asdict(each) for each in (step.person, step.vehicle))
                        found.append((step.at, i, *summaries))  # type: ignore[arg-type]
            found.sort(key=lambda row: row[:2])
            rows = [
                (
                    *zone_values(zones[i]),
                    at_s,
                    *(n for c in kinds for n in (*count_and_limit(c), c["min"], c["max"], c["mean"])),
                )
                for at_s, i, *kinds in found
            ]
            ids_ = [f"{zones[i].id}@{round(at_s)}" for at_s, i, *_ in found]
            features = table(self.properties, rows, [zones[i].geometry for _, i, *_ in found], ids_)
            cursors = _cursors([round(at_s / GRID_S) for at_s, *_ in found])
            return replace(features, cursors=cursors), end + 1

        return await state.history.run(read)

    def query_of(self, feature_id: str) -> ItemsQuery | None:
        """An id is the zone's, and the instant in Unix seconds."""
        zone, _, at = feature_id.rpartition("@")
        if not at.isascii() or not at.isdigit():
            return None
        at_s = float(at[:12])
        return ItemsQuery(1, span_s=(at_s, at_s), equals={"zone": zone})


class FixCollection(Collection):
    """Stored fixes."""

    name = "fixes"
    title = "Fixes"
    description = "Stored positions under daily pseudonyms, newest first. Needs a reason."
    properties = (
        Property("device", "string", "The daily pseudonym of the device."),
        Property("kind", "string", "person or vehicle."),
        Property("t", "time", "When the device was there."),
        Property("acc", "number", "The radius in metres that contains it with 68 %; null: unknown."),
        Property("verdict", "string", "The verdict on the fix."),
    )
    time = "t"
    is_small = False
    needs_reason = True

    async def chunks(self, reading: Reading, query: ItemsQuery) -> AsyncIterator[Chunk]:
        """Yield fixes; a cursor is microseconds since 1970 and the number of fixes of that instant to leave out."""
        assert reading.reason is not None  # noqa: S101  # checked with the request
        now_s = time.time()
        first_s, last_s = query.span_s or (0.0, now_s + FUTURE_S)
        last_us, skip = cursor_pair(query.cursor) if query.cursor else (round(last_s * 1e6), 0)
        last_us = min(last_us, round(MAX_MOMENT_S * 1e6))
        kind: Any = query.equals.get("kind")
        if kind not in (None, *KINDS) or last_us < first_s * 1e6:
            return
        is_selective = query.filter is not None or len(query.equals) > (kind is not None)
        while True:
            limit = min(MAX_LIMIT if is_selective else query.limit + skip, MAX_LIMIT)
            wanted = PositionQuery(
                site=self.site.id,
                limit=limit,
                kind=kind,
                from_s=first_s,
                to_s=last_us / 1e6,
                bbox=query.bbox,
                area={} if query.bbox is None else {"bbox": ",".join(map(str, query.bbox))},
            )
            found, _ = await reading.state.positions.fixes(
                reading.caller, wanted, reading.reason, _with_following
            )
            features = self._features(found)
            rest = features.take(range(min(skip, len(found)), len(found)))
            if len(found) <= limit:
                yield Chunk(rest)
                return
            # one more than the limit: the next chunk begins with it
            last_us, skip = cursor_pair(features.cursors[-1])
            yield Chunk(rest.take(range(len(rest) - 1)), features.cursors[-1])

    def _features(self, found: Sequence[StoredFix]) -> FeatureTable:
        micros = [round(fix.t * 1e6) for fix in found]
        rows = [(fix.device, fix.kind, fix.t, fix.acc or None, fix.verdict) for fix in found]
        points = shapely.points([fix.lon for fix in found], [fix.lat for fix in found])
        ids = [f"{fix.kind}.{fix.device}.{t_us}" for fix, t_us in zip(found, micros, strict=True)]
        return replace(table(self.properties, rows, points, ids), cursors=_cursors(micros))

    def query_of(self, feature_id: str) -> ItemsQuery | None:
        """An id is the kind, the pseudonym, and the instant in microseconds."""
        kind, _, rest = feature_id.partition(".")
        device, _, t_us = rest.partition(".")
        if not t_us.isascii() or not t_us.isdigit():
            return None
        t_s = int(t_us[:18]) / 1e6
        return ItemsQuery(1, span_s=(t_s, t_s), equals={"kind": kind, "device": device})


def _first_stored_s(view: HistoryView, site: str, from_s: float) -> float:
    """Return when the counts after a moment begin (Unix seconds); those of the last hour may not be in a segment."""
    begins = (
        each.from_s
        for dataset in ("minutes", "counts")
        for each in view.manifest.of(dataset, from_s, site=site)
    )
    return min(begins, default=time.time() - HOUR_S)


def _with_following(page: FixPage) -> list[StoredFix]:
    """Return the rows of a page, and the first one of the next page."""
    return page.fixes if page.following is None else [*page.fixes, page.following]


def _zones_of_any_version(site: ServedSite) -> dict[str, Zone]:
    """Return the zones that the site has or had, each as in its newest version."""
    return {zone.id: zone for version in site.versions.all for zone in version.site.zones}


def _cursors(instants: Sequence[int]) -> list[str]:
    """Return the cursor of each row: its instant, and how many rows before it have the same one."""
    cursors, before = [], 0
    for i, instant in enumerate(instants):
        before = before + 1 if i and instants[i - 1] == instant else 0
        cursors.append(f"{instant}.{before}")
    return cursors
