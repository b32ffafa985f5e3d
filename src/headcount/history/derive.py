"""Derive `minutes` from stored counts, `flows` from events, and `pauses` from fixes, an hour at a time.

An hour is derived once, by any of the writers: its segment and the data set's mark in `Manifest.derived` are
committed together, and only if neither has changed since the rows were read. When the segments that an hour
was derived from have changed, it is derived again. Where the result differs, it replaces the earlier
one with the next `version`: rows came late. Pauses are in no answer, so they have no versions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from headcount.history.catalog import Catalog
from headcount.history.flows import flows, needed_from_s
from headcount.history.hours import HOUR_S
from headcount.history.manifest import PAUSES, Manifest, Segment, digest
from headcount.history.minutes import COUNT_COLUMNS, MINUTE_COLUMNS, MINUTE_S, minutes
from headcount.history.pauses import write_pauses
from headcount.history.reader import scan
from headcount.history.retention import KEEP_S
from headcount.history.stays import ZoneEvent
from headcount.messages.times import DAY_S

#: An hour is derived this long after its end, when every partition has reported counts after it.
CLOSE_S = 120.0
#: A partition that does not report delays an hour for this long.
LATEST_S = 3600.0
#: The hours of a day are merged this long after its rows have expired, when none can come late any more.
MERGE_AFTER_S = 2 * DAY_S
EVENT_COLUMNS = ("site", "kind", "device", "t", "zone", "type", "reason")
#: The columns of derived rows beside their numbers: the version of their site and hour, and when it was derived.
VERSION = ("version", "derived")
DERIVED_COLUMNS = {
    "minutes": (*MINUTE_COLUMNS, *VERSION),
    "flows": ("at", "site", "kind", "table", "zone", "other", "events", "people", *VERSION),
}


@dataclass(frozen=True, slots=True)
class DerivedHours:
    """A data set whose hours are derived from another one."""

    dataset: str
    source: str
    span_s: Callable[[float], tuple[float, float]]  # of the rows that an hour depends on


@dataclass(frozen=True, slots=True)
class Derivation(DerivedHours):
    """How numbers are derived from all rows that an hour depends on."""

    columns: tuple[str, ...]
    table: Callable[[pa.Table, float], pa.Table]


def _minutes(rows: pa.Table, hour_s: float) -> pa.Table:
    del hour_s
    return minutes(rows)


def _flows(rows: pa.Table, hour_s: float) -> pa.Table:
    # the others have no flow in this hour
    t_us = rows["t"].cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    present = rows["device"].filter(pc.greater_equal(t_us, round(hour_s * 1e6))).unique()
    found = flows(zone_events(rows.filter(pc.is_in(rows["device"], present))), hour_s)
    at = pa.array([round(hour_s * 1e3)] * len(found), pa.timestamp("ms", "UTC"))
    names = ("site", "kind", "table", "zone", "other")
    columns = {name: pa.array([cell[i] for cell in found], pa.string()) for i, name in enumerate(names)}
    numbers = {
        "events": pa.array([each.events for each in found.values()], pa.int32()),
        "people": pa.array([each.people for each in found.values()], pa.int32()),
    }
    return pa.table({"at": at} | columns | numbers)


MINUTES = Derivation(
    "minutes",
    "counts",
    # the minutes that end in the hour
    lambda hour_s: (hour_s - MINUTE_S + 0.001, hour_s + HOUR_S - MINUTE_S),
    COUNT_COLUMNS,
    _minutes,
)
FLOWS = Derivation(
    "flows",
    "events",
    lambda hour_s: (needed_from_s(hour_s), hour_s + HOUR_S - 1e-6),
    EVENT_COLUMNS,
    _flows,
)
PAUSES_OF_FIXES = DerivedHours(PAUSES, "fixes", lambda hour_s: (hour_s, hour_s + HOUR_S - 0.001))


def zone_events(rows: pa.Table) -> list[ZoneEvent]:
    """Events of rows with EVENT_COLUMNS."""
    t_us = rows["t"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()
    texts = (rows[name].cast(pa.string()).to_pylist() for name in EVENT_COLUMNS if name != "t")
    return [
        ZoneEvent(site, kind, device, t, zone, type_ == "enter", reason)
        for t, (site, kind, device, zone, type_, reason) in zip(t_us, zip(*texts, strict=True), strict=True)
    ]


def derive(catalog: Catalog, now_s: float, *, kept_s: float = KEEP_S) -> int:
    """Derive the hours that are closed, correct those whose rows came late, and merge the hours of old days.

    Args:
        catalog: of the history.
        now_s: Unix seconds.
        kept_s: how long rows of `counts` and `events` are kept after their hour.

    Returns:
        The number of hours that were derived or corrected.

    Raises:
        DataFolderError, StoreError: a segment cannot be read or written.
    """
    done = 0
    for how in (MINUTES, FLOWS):
        manifest = catalog.manifest()
        end_s = _closed_until(manifest, now_s)
        for hour_s in _hours(manifest, how, end_s, now_s - kept_s):
            complete = _is_complete(how, hour_s, now_s - kept_s)
            result = _derive_hour(catalog, how, hour_s, now_s, is_complete=complete)
            if result is None:  # another writer goes on from here, or this one the next time
                break
            done += result
        _merge_days(catalog, how.dataset, now_s - kept_s - MERGE_AFTER_S, now_s)
    return done + derive_pauses(catalog, now_s)


def derive_pauses(catalog: Catalog, now_s: float) -> int:
    """Derive the pauses of hours that are closed and whose fixes have changed; returns the number of hours.

    Raises:
        DataFolderError, StoreError: a segment cannot be read or written.
    """
    manifest, how = catalog.manifest(), PAUSES_OF_FIXES
    done = 0
    for hour_s in _hours(manifest, how, _closed_until(manifest, now_s), 0.0):
        manifest = catalog.manifest()
        old = derived_segment(manifest, how.dataset, hour_s)
        new = write_pauses(catalog, manifest.of(how.source, *how.span_s(hour_s)))
        if not _commit(catalog, how, hour_s, _sources(manifest, how, hour_s), old, new, now_s):
            break
        done += 1
    return done


def _closed_until(manifest: Manifest, now_s: float) -> float:
    """The end of the newest hour of which every partition has reported all."""
    reported = [
        max((site.counts_at for site in mark.sites.values()), default=0.0)
        for mark in manifest.partitions.values()
    ]
    newest_s = max(min(reported, default=now_s), now_s - LATEST_S)
    return min(newest_s, now_s - CLOSE_S) // HOUR_S * HOUR_S


def _hours(manifest: Manifest, how: DerivedHours, end_s: float, kept_from_s: float) -> list[float]:
    """The hours before `end_s` that have never been derived, or whose source has changed; oldest first."""
    mark_s = manifest.derived.get(how.dataset, 0.0)
    hours: set[float] = set()
    for segment in manifest.of(how.source):
        # the last minute of an hour ends in the next one
        first_s, last_s = segment.from_s // HOUR_S * HOUR_S, (segment.to_s + MINUTE_S) // HOUR_S * HOUR_S
        hours |= {first_s, last_s}
    found = []
    for hour_s in sorted(hours):
        if hour_s + HOUR_S > end_s:
            continue
        old = derived_segment(manifest, how.dataset, hour_s)
        changed = _sources(manifest, how, hour_s) != (old.sources if old else "")
        if hour_s >= mark_s or (changed and _is_complete(how, hour_s, kept_from_s)):
            found.append(hour_s)
    return found


def _is_complete(how: DerivedHours, hour_s: float, kept_from_s: float) -> bool:
    """Whether no row on which an hour depends has expired."""
    return how.span_s(hour_s)[0] // HOUR_S * HOUR_S + HOUR_S >= kept_from_s


def _derive_hour(
    catalog: Catalog, how: Derivation, hour_s: float, now_s: float, *, is_complete: bool
) -> bool | None:
    """Derive one hour and commit it; whether its numbers are new. None: another writer was faster."""
    manifest = catalog.manifest()
    mark_s, old = manifest.derived.get(how.dataset, 0.0), derived_segment(manifest, how.dataset, hour_s)
    sources = _sources(manifest, how, hour_s)
    from_s, to_s = how.span_s(hour_s)
    rows = scan(catalog.store, manifest, how.source, columns=how.columns, from_s=from_s, to_s=to_s)
    table = how.table(rows, hour_s) if len(rows) else None
    if table is not None and not is_complete and "people" in table.column_names:
        # people may be in a cell for the second time; public answers leave the hour out
        column = table.column_names.index("people")
        table = table.set_column(column, "people", pa.array([0] * len(table), pa.int32()))
    known = read_segments(catalog, [old]) if old else None
    table = _merged(known, table, now_s, is_late=hour_s + HOUR_S <= mark_s)
    segment = old
    if table is not None:
        span = pc.min_max(table["at"].cast(pa.int64())).as_py()
        segment = catalog.write(how.dataset, table, (span["min"] / 1e3, span["max"] / 1e3))
    done = _commit(catalog, how, hour_s, sources, old, segment, now_s)
    return table is not None if done else None


def _commit(
    catalog: Catalog,
    how: DerivedHours,
    hour_s: float,
    sources: str,
    old: Segment | None,
    new: Segment | None,
    now_s: float,
) -> bool:
    """Replace the segment of an hour; False: it or its sources have changed, and nothing was replaced."""
    done = False

    def change(before: Manifest) -> Manifest | None:
        nonlocal done
        done = (
            derived_segment(before, how.dataset, hour_s) == old and _sources(before, how, hour_s) == sources
        )
        if not done:
            return None
        after = before.without({old.name}, now_s) if old and (new is None or new.name != old.name) else before
        if new is not None:
            others = (each for each in after.segments if each.name != new.name)
            stated = msgspec.structs.replace(new, sources=sources)
            after = msgspec.structs.replace(after, segments=(*others, stated))
        mark = max(before.derived.get(how.dataset, 0.0), hour_s + HOUR_S)
        return msgspec.structs.replace(after, derived=after.derived | {how.dataset: mark})

    catalog.commit(change)
    if not done and new is not None and (old is None or new.name != old.name):
        catalog.discard([new.name])
    return done


def _merged(known: pa.Table | None, new: pa.Table | None, now_s: float, *, is_late: bool) -> pa.Table | None:
    """The rows of an hour with their versions, site by site; None if nothing has changed.

    Args:
        known: the hour's rows as they were derived before.
        new: the rows as they are derived now.
        now_s: Unix seconds.
        is_late: the hour was derived before: where a site had no rows, answers had none.
    """
    parts, changed = [], False
    for site in sorted({site for table in (known, new) if table is not None for site in _sites(table)}):
        before, after = (
            None
            if table is None or site not in _sites(table)
            else table.filter(pc.equal(table["site"], site))
            for table in (known, new)
        )
        if before is not None and (after is None or not _is_correction(before, after)):
            parts.append(before)
        elif after is not None:
            changed = True
            version = 1 + is_late if before is None else before["version"][0].as_py() + 1
            parts.append(with_version(after, version, now_s))
    return pa.concat_tables(parts, promote_options="permissive") if changed else None


def _sites(table: pa.Table) -> list[str]:
    names: list[str] = table["site"].cast(pa.string()).unique().to_pylist()
    return names


def _is_correction(known: pa.Table, new: pa.Table) -> bool:
    """Whether late rows have changed a site's numbers; numbers stay when rows are erased."""
    columns = [name for name in known.column_names if name not in VERSION]
    if known.select(columns).equals(new.select(columns).cast(known.select(columns).schema)):
        return False
    return _rows_behind(new) >= _rows_behind(known)


def _rows_behind(table: pa.Table) -> int:
    """The number of rows that the numbers are made of."""
    if "instants" in table.column_names:
        return pc.sum(table["instants"]).as_py() or 0
    counted = table.filter(pc.is_in(table["table"], pa.array(["arrivals", "departures"])))
    return pc.sum(counted["events"]).as_py() or 0


def with_version(table: pa.Table, version: int, now_s: float) -> pa.Table:
    """The derived rows with the columns VERSION."""
    rows = len(table)
    derived = pa.array([round(now_s * 1e3)] * rows, pa.timestamp("ms", "UTC"))
    return table.append_column("version", pa.array([version] * rows, pa.int16())).append_column(
        "derived", derived
    )


def derived_segment(manifest: Manifest, dataset: str, hour_s: float) -> Segment | None:
    """The segment of an hour, unless the hours of its day are merged."""
    return next(
        (
            each
            for each in manifest.of(dataset, hour_s, hour_s + HOUR_S - 0.001)
            if each.hour_s == hour_s and each.to_s < hour_s + HOUR_S
        ),
        None,
    )


def read_segments(catalog: Catalog, segments: list[Segment]) -> pa.Table:
    """All rows of segments of one derived data set."""
    dataset = segments[0].dataset
    only = Manifest(segments=tuple(segments))
    return scan(catalog.store, only, dataset, columns=DERIVED_COLUMNS[dataset])


def _sources(manifest: Manifest, how: DerivedHours, hour_s: float) -> str:
    return digest(manifest.of(how.source, *how.span_s(hour_s)))


def _merge_days(catalog: Catalog, dataset: str, before_s: float, now_s: float) -> None:
    """Merge the hours of old days: a segment of an hour is mostly its footer."""
    days: dict[float, list[Segment]] = {}
    for each in catalog.manifest().of(dataset, to_s=before_s // DAY_S * DAY_S - 0.001):
        days.setdefault(each.from_s // DAY_S * DAY_S, []).append(each)
    for day in days.values():
        if len(day) > 1:
            _merge(catalog, day, now_s)


def _merge(catalog: Catalog, day: list[Segment], now_s: float) -> None:
    table = read_segments(catalog, day)
    keys = [name for name in ("site", "kind", "table", "zone", "other", "at") if name in table.column_names]
    table = table.sort_by([(name, "ascending") for name in keys])
    names = {each.name for each in day}
    span_s = min(each.from_s for each in day), max(each.to_s for each in day)
    merged = catalog.write(day[0].dataset, table, span_s)
    done = False

    def change(before: Manifest) -> Manifest | None:
        nonlocal done
        done = names <= {each.name for each in before.segments}
        return before.without(names, now_s).with_segments(merged) if done else None

    catalog.commit(change)
    if not done:
        catalog.discard([merged.name])
