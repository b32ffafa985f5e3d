"""Queries over stored counts: histories of zones, and the counts of an instant. They block: call them in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headcount.counting.fix_columns import I8
from headcount.errors import QueryError
from headcount.history.fix_rows import ticks
from headcount.history.hours import HOUR_S
from headcount.history.reader import HistoryView, check_span, check_time
from headcount.history.retention import KEEP_S
from headcount.messages.counts import COUNT_FIELDS, KindCount
from headcount.messages.topics import KINDS

MAX_BUCKETS = 10_000
_NUMBERS = tuple(f"{kind}_{number}" for kind in KINDS for number in COUNT_FIELDS)
_COUNTS = tuple(f"{kind}_count" for kind in KINDS)


class CountSummary(msgspec.Struct, frozen=True):
    """A zone's count of one kind over a bucket of time."""

    count: int  # at the bucket's last stored instant
    min: int
    max: int
    mean: float


class CountBucket(msgspec.Struct, frozen=True):
    """The instants in (at - step, at] within the span of the query."""

    at: float  # Unix seconds, a multiple of the step
    person: CountSummary
    vehicle: CountSummary


class ZoneCountRow(msgspec.Struct, frozen=True):
    """A zone's counts at one instant."""

    zone: str
    person: KindCount
    vehicle: KindCount


@dataclass(frozen=True, slots=True)
class _Counts:
    """n counts of different instants and zones, reported by all partitions, by instant; sums of all rows."""

    at_ms: I8
    zone: list[str]
    values: I8  # [n, columns]


def zones_history(
    view: HistoryView, zones: Sequence[str], from_s: float, to_s: float, step_s: float, *, site: str
) -> dict[str, list[CountBucket]]:
    """The counts of a site's zones with from <= at <= to, summed up in buckets of `step_s`, oldest first.

    Buckets end at multiples of the step, so the same bucket is the same in every answer; those
    without a stored instant are left out, and so are instants that some partition never reported.

    Raises:
        QueryError: the times or the step make no sense, or would give more than MAX_BUCKETS.
        DataFolderError, StoreError: the store cannot be read.
    """
    check_span(from_s, to_s)
    if not 1.0 <= step_s <= KEEP_S:
        raise QueryError("step", f"{step_s:g} s is not between 1 s and {KEEP_S} s")
    if (to_s - from_s) / step_s > MAX_BUCKETS:
        raise QueryError("step", f"gives more than {MAX_BUCKETS} buckets; take a longer one")
    found: dict[str, list[CountBucket]] = {zone: [] for zone in zones}
    counts = _counts(view, site, (from_s, to_s), _COUNTS, zones)
    step_us = round(step_s * 1e6)
    buckets = -(-counts.at_ms * 1000 // step_us)
    names, codes = np.unique(np.array(counts.zone, str), return_inverse=True)
    order = np.lexsort((counts.at_ms, buckets, codes))
    is_first = np.diff(buckets[order], prepend=-1).astype(bool) | np.diff(codes[order], prepend=-1).astype(
        bool
    )
    for rows in np.split(order, np.flatnonzero(is_first)[1:]) if len(order) else ():
        person, vehicle = (
            CountSummary(int(of[-1]), int(of.min()), int(of.max()), float(of.mean()))
            for of in counts.values[rows].T
        )
        at_s = int(buckets[rows[0]]) * step_us / 1e6
        found[str(names[codes[rows[0]]])].append(CountBucket(at_s, person, vehicle))
    return found


def counts_at(view: HistoryView, at_s: float, *, site: str) -> tuple[float, list[ZoneCountRow]] | None:
    """The newest stored counts of a site at or before `at_s`, reported by all partitions, at most 24 h older.

    Returns:
        The instant found and its zones in the order of the site file; None where there is none.

    Raises:
        QueryError: `at_s` is not a valid time.
        DataFolderError, StoreError: the store cannot be read.
    """
    check_time("at", at_s)
    oldest_s = max(at_s - KEEP_S, 0.0)
    hours = {each.hour_s for each in view.segments("counts", site, oldest_s, at_s)}
    if "counts" in view.tail:
        hours |= set((ticks(view.tail["counts"]["at"]) // (HOUR_S * 1000) * HOUR_S).tolist())
    for hour_s in sorted(hours, reverse=True):
        span_s = max(oldest_s, hour_s), min(at_s, hour_s + HOUR_S - 0.001)
        counts = _counts(view, site, span_s, _NUMBERS, None)
        if len(counts.at_ms):
            newest = np.flatnonzero(counts.at_ms == counts.at_ms[-1])
            return float(counts.at_ms[-1]) / 1e3, [
                ZoneCountRow(counts.zone[row], KindCount(*values[:4]), KindCount(*values[4:]))
                for row in newest
                for values in [counts.values[row].tolist()]
            ]
    return None


def counts_on_grid(
    view: HistoryView, from_s: float, to_s: float, step_s: float, *, site: str
) -> dict[float, dict[str, tuple[int, int]]]:
    """The counts of all zones of a site (people, vehicles) at the stored multiples of `step_s` with from <= at <= to.

    Instants that some partition never reported are left out.

    Raises:
        QueryError: the times make no sense, or would give more than MAX_BUCKETS instants.
        DataFolderError, StoreError: the store cannot be read.
    """
    check_span(from_s, to_s)
    if (to_s - from_s) / step_s > MAX_BUCKETS:
        raise QueryError("step", f"gives more than {MAX_BUCKETS} instants; take a longer one")
    counts = _counts(view, site, (from_s, to_s), _COUNTS, None)
    found: dict[float, dict[str, tuple[int, int]]] = {}
    for row in np.flatnonzero(counts.at_ms * 1000 % round(step_s * 1e6) == 0):
        person, vehicle = counts.values[row].tolist()
        found.setdefault(float(counts.at_ms[row]) / 1e3, {})[counts.zone[row]] = (person, vehicle)
    return found


def _counts(
    view: HistoryView,
    site: str,
    span_s: tuple[float, float],
    numbers: Sequence[str],
    zones: Sequence[str] | None,
) -> _Counts:
    """The complete counts of a span: rows of the same instant and zone add up."""
    columns = ["at", "zone", *numbers, "partitions", "partitions_total"]
    table = view.scan("counts", columns=columns, site=site, from_s=span_s[0], to_s=span_s[1])
    if not len(table):
        return _Counts(np.zeros(0, np.int64), [], np.zeros((0, len(numbers)), np.int64))
    zone = pc.dictionary_encode(table["zone"].cast(pa.string())).combine_chunks()
    names = zone.dictionary.to_pylist()
    code = np.asarray(zone.indices.to_numpy(), np.int64)
    at_ms = ticks(table["at"])
    if zones is not None:
        wanted = np.isin(code, [i for i, name in enumerate(names) if name in set(zones)])
        table, code, at_ms = table.filter(pa.array(wanted)), code[wanted], at_ms[wanted]
    keys, first, inverse = np.unique(np.stack([at_ms, code]), axis=1, return_index=True, return_inverse=True)
    sums = np.zeros((len(first), len(numbers) + 1), np.int64)
    rows = np.stack(
        [np.asarray(table[name].to_numpy(), np.int64) for name in (*numbers, "partitions")], axis=1
    )
    np.add.at(sums, inverse.ravel(), rows)
    total = np.asarray(table["partitions_total"].to_numpy(), np.int64)[first]
    complete = sums[:, -1] >= total
    zone_names = [names[each] for each in keys[1, complete]]
    return _Counts(keys[0, complete], zone_names, sums[complete, :-1])
