"""Queries of counts by the minute, of flows by the hour, and of stays."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from headcount.errors import QueryError
from headcount.history.count_queries import CountBucket, CountSummary
from headcount.history.derive import DERIVED_COLUMNS, EVENT_COLUMNS, zone_events
from headcount.history.flows import FlowTable, flows, needed_from_s
from headcount.history.hours import HOUR_S
from headcount.history.minutes import COUNT_COLUMNS, MINUTE_COLUMNS, MINUTE_S, minutes, steps
from headcount.history.reader import HistoryView
from headcount.history.retention import KEEP_S
from headcount.history.stays import US, Stay, stays
from headcount.messages.times import DAY_S
from headcount.messages.topics import KINDS, Kind

#: The longest span of flows that is read, in hours.
MAX_HOURS = 401 * 24
#: Minutes that are read together: all zones of a week.
CHUNK_S = 7 * DAY_S
QUARTER_S = 900


class Correction(NamedTuple):
    """The newest version among the rows of an answer, and when it was derived (Unix seconds)."""

    version: int
    derived_s: float


@dataclass(frozen=True, slots=True)
class Flow:
    """A cell of a table in a period."""

    from_s: float
    kind: Kind
    zone: str
    other: str
    events: int
    people: int


class Period(NamedTuple):
    """A period of flows."""

    is_closed: bool  # all its hours are derived
    correction: Correction | None  # None: no hour of it has a flow, or is derived


@dataclass(frozen=True, slots=True)
class FlowPeriods:
    """The flows of a table, and the periods in which something was recorded, oldest first."""

    flows: list[Flow]
    periods: dict[float, Period]


def needs_minutes(view: HistoryView, from_s: float, step_s: float, *, site: str) -> bool:
    """Whether a history needs stored minutes: its instants have expired, or its steps are longer than they last."""
    oldest_s = _oldest_instant_s(view, site)
    return step_s > KEEP_S or any(
        segment.from_s <= oldest_s for segment in view.manifest.of("minutes", from_s, site=site)
    )


def _oldest_instant_s(view: HistoryView, site: str) -> float:
    """The beginning of the oldest hour of which all counts are stored."""
    return min((segment.hour_s for segment in view.manifest.of("counts", site=site)), default=math.inf)


def zones_minutes(
    view: HistoryView, zones: Sequence[str], from_s: float, to_s: float, *, site: str
) -> pa.Table:
    """The minutes of zones whose end is in a span (inclusive), as `minutes` returns them; also those not derived yet.

    Raises:
        QueryError, DataFolderError, StoreError: see `HistoryView.scan`.
    """
    mark_s = view.manifest.derived.get("minutes", 0.0)
    stored = view.scan(
        "minutes", columns=MINUTE_COLUMNS, site=site, from_s=from_s, to_s=min(to_s, mark_s - 1)
    )
    first_s = max(from_s, mark_s) - MINUTE_S + 0.001
    instants = view.scan("counts", columns=COUNT_COLUMNS, site=site, from_s=first_s, to_s=to_s)
    tables = [_of_zones(table, zones) for table in (stored, instants) if len(table)]
    if len(instants):
        tables[-1] = minutes(tables[-1])
        # the last one may still be missing instants
        ends = tables[-1]["at"].cast(pa.int64())
        tables[-1] = tables[-1].filter(pc.less_equal(ends, round(to_s * 1e3)))
    if not tables:
        return pa.table({name: pa.array([], pa.null()) for name in MINUTE_COLUMNS})
    found = pa.concat_tables([_plain(table) for table in tables], promote_options="permissive")
    return found.sort_by([(name, "ascending") for name in ("site", "zone", "at")])


def zones_history(
    view: HistoryView, zones: Sequence[str], from_s: float, to_s: float, step_s: float, *, site: str
) -> dict[str, list[CountBucket]]:
    """The counts of zones in steps of whole minutes, each of which ends at a multiple of `step_s`, oldest first.

    Raises:
        QueryError: the step is not a multiple of a minute; see also `HistoryView.scan`.
        DataFolderError, StoreError: the history cannot be read.
    """
    if step_s % MINUTE_S:
        problem = (
            f"{step_s:g} s: counts of this time are stored by the minute; use a multiple of {MINUTE_S} s"
        )
        raise QueryError("step", problem)
    found: dict[str, list[CountBucket]] = {zone: [] for zone in zones}
    rows = zones_minutes(view, zones, from_s, to_s, site=site)
    if len(rows):
        for row in steps(rows, int(step_s)).to_pylist():
            kinds = (
                CountSummary(
                    row[f"{kind}_last"],
                    row[f"{kind}_min"],
                    row[f"{kind}_max"],
                    row[f"{kind}_sum"] / row["instants"],
                )
                for kind in KINDS
            )
            found[row["zone"]].append(CountBucket(row["at"].timestamp(), *kinds))
    return found


def counts_on_minutes(
    view: HistoryView, from_s: float, to_s: float, step_s: float, *, site: str
) -> dict[float, dict[str, tuple[int, int]]]:
    """The counts of all zones (people, vehicles) at the multiples of `step_s` in a span, of which instants have expired.

    Raises:
        QueryError, DataFolderError, StoreError: see `HistoryView.scan`.
    """
    columns = ["at", "zone", "person_last", "vehicle_last", "ended"]
    found: dict[float, dict[str, tuple[int, int]]] = defaultdict(dict)
    for first_s, last_s in _chunks(from_s, min(to_s, _oldest_instant_s(view, site))):
        rows = view.scan("minutes", columns=columns, site=site, from_s=first_s, to_s=last_s)
        if not len(rows):
            continue
        at_s = rows["at"].cast(pa.int64()).to_numpy() / 1e3
        wanted = (rows["ended"].to_numpy() == 0) & (at_s % step_s == 0)
        for row in rows.filter(pa.array(wanted)).to_pylist():
            found[row["at"].timestamp()][row["zone"]] = (row["person_last"], row["vehicle_last"])
    return found


def quarter_means(
    view: HistoryView, zone: str, from_s: float, to_s: float, *, site: str
) -> dict[Kind, dict[float, float]]:
    """The mean counts of a zone in each quarter of an hour, by its beginning.

    Raises:
        QueryError, DataFolderError, StoreError: see `HistoryView.scan`.
    """
    found: dict[Kind, dict[float, float]] = {kind: {} for kind in KINDS}
    for first_s, last_s in _chunks(from_s + MINUTE_S, to_s):
        rows = zones_minutes(view, [zone], first_s, last_s, site=site)
        for row in steps(rows, QUARTER_S).to_pylist() if len(rows) else ():
            for kind in KINDS:
                at_s = row["at"].timestamp() - QUARTER_S
                found[kind][at_s] = row[f"{kind}_sum"] / row["instants"]
    return found


def _chunks(from_s: float, to_s: float) -> Iterator[tuple[float, float]]:
    """A span in parts of CHUNK_S, whose ends are the ends of quarters, and are no part of the next one."""
    while from_s <= to_s:
        last_s = min((from_s // CHUNK_S + 1) * CHUNK_S, to_s)
        yield from_s, last_s
        from_s = last_s + 0.001


def correction(
    view: HistoryView, dataset: str, from_s: float, to_s: float, *, site: str
) -> Correction | None:
    """The newest version of a site's derived rows in a span; None if there are none.

    Raises:
        QueryError, DataFolderError, StoreError: see `HistoryView.scan`.
    """
    rows = view.scan(dataset, columns=["version", "derived"], site=site, from_s=from_s, to_s=to_s)
    if not len(rows):
        return None
    newest = max(
        rows.group_by(["version", "derived"]).aggregate([]).to_pylist(), key=lambda row: row["version"]
    )
    return Correction(newest["version"], newest["derived"].timestamp())


def flow_periods(
    view: HistoryView,
    table: FlowTable,
    from_s: float,
    to_s: float,
    step_s: float,
    *,
    site: str,
    zone: str | None,
) -> FlowPeriods:
    """The flows of the periods that begin in [from, to), at multiples of `step_s`, which are whole hours.

    Args:
        view: of the history.
        table: of the flows.
        from_s: Unix seconds.
        to_s: the same.
        step_s: the length of a period.
        site: the id of the site.
        zone: only this one; None: all.

    Raises:
        QueryError, DataFolderError, StoreError: see `HistoryView.scan`.
    """
    first_s, end_s = -(-from_s // step_s) * step_s, -(-to_s // step_s) * step_s
    if (end_s - first_s) / HOUR_S > MAX_HOURS:
        raise QueryError("from", f"is more than {MAX_HOURS // 24} days before `to`")
    sums: dict[tuple[float, Kind, str, str], list[int]] = defaultdict(lambda: [0, 0])
    corrections: dict[float, Correction] = {}
    recorded = {
        period_s
        for segment in view.manifest.of("minutes", first_s, end_s - 1, site)
        for period_s in _starts(max(segment.from_s, first_s), min(segment.to_s, end_s - 1), step_s)
    }
    for hour_s, kind, name, place, other, events, people, version in _flow_rows(view, first_s, end_s, site):
        period_s = hour_s // step_s * step_s
        recorded.add(period_s)
        if version is not None:
            corrections[period_s] = max(corrections.get(period_s, version), version)
        if name == table and zone in (None, place):
            cell = sums[period_s, kind, place, other]
            cell[0] += events
            cell[1] += people
    mark_s = view.manifest.derived.get("flows", 0.0)
    periods = {at_s: Period(at_s + step_s <= mark_s, corrections.get(at_s)) for at_s in sorted(recorded)}
    return FlowPeriods([Flow(*cell, *numbers) for cell, numbers in sorted(sums.items())], periods)


def _starts(from_s: float, to_s: float, step_s: float) -> list[float]:
    """The beginnings of the periods that a span touches."""
    first = int(from_s // step_s)
    return [step_s * n for n in range(first, int(to_s // step_s) + 1)]


def _flow_rows(
    view: HistoryView, from_s: float, end_s: float, site: str
) -> Iterator[tuple[float, Kind, str, str, str, int, int, Correction | None]]:
    mark_s = view.manifest.derived.get("flows", 0.0)
    rows = view.scan(
        "flows", columns=DERIVED_COLUMNS["flows"], site=site, from_s=from_s, to_s=min(end_s, mark_s) - 1
    )
    for row in rows.to_pylist() if len(rows) else ():
        version = Correction(row["version"], row["derived"].timestamp())
        yield (
            row["at"].timestamp(), row["kind"], row["table"], row["zone"], row["other"],
            row["events"], row["people"], version,
        )  # fmt: skip
    oldest_s = min((each.hour_s for each in view.manifest.of("events", site=site)), default=end_s)
    hour_s = max(from_s, mark_s, oldest_s) // HOUR_S * HOUR_S
    if hour_s >= end_s:
        return
    events = view.scan(
        "events", columns=EVENT_COLUMNS, site=site, from_s=needed_from_s(hour_s), to_s=end_s - 1e-6
    )
    stored = zone_events(events) if len(events) else []
    last_us = max((event.t_us for event in stored), default=0)
    while hour_s < end_s and hour_s * US <= last_us:
        for cell, numbers in flows(stored, hour_s).items():
            yield hour_s, cell.kind, cell.table, cell.zone, cell.other, *numbers, None  # type: ignore[misc]
        hour_s += HOUR_S


def stays_in(
    view: HistoryView,
    from_s: float,
    to_s: float,
    *,
    site: str,
    zone: str | None = None,
    kinds: Sequence[Kind] = KINDS,
    devices: Collection[str] | None = None,
) -> list[Stay]:
    """The stays that touch a span, from the events of the last day.

    Args:
        view: of the history.
        from_s: Unix seconds.
        to_s: the same.
        site: the id of the site.
        zone: only this one; None: all.
        kinds: the kinds wanted.
        devices: only these pseudonyms, which are all of one device: its stays continue over midnight.

    Raises:
        QueryError, DataFolderError, StoreError: see `HistoryView.scan`.
    """
    rows = view.scan("events", columns=EVENT_COLUMNS, site=site)
    events = zone_events(rows) if len(rows) else []
    wanted = (event for event in events if event.kind in kinds and zone in (None, event.zone))
    if devices is not None:
        wanted = (event._replace(device="") for event in wanted if event.device in devices)
    from_us, to_us = round(from_s * US), round(to_s * US)
    return [
        stay
        for stay in stays(wanted)
        if (stay.from_us is None or stay.from_us <= to_us) and (stay.to_us is None or stay.to_us >= from_us)
    ]


def _of_zones(table: pa.Table, zones: Sequence[str]) -> pa.Table:
    return table.filter(pc.is_in(table["zone"].cast(pa.string()), pa.array(list(zones), pa.string())))


def _plain(table: pa.Table) -> pa.Table:
    """The columns of minutes with plain names."""
    table = table.select(list(MINUTE_COLUMNS))
    for name in ("site", "zone"):
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.string()))
    return table
