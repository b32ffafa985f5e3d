"""Counts by the minute, from stored instants, and longer steps from minutes. Pure.

A minute is named by its end: it has the instants in (at - 60 s, at]. So steps of whole minutes, which end at
multiples of their length, are made of whole minutes.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headcount.counting.fix_columns import I8
from headcount.messages.topics import KINDS

MINUTE_S = 60
#: The columns of `counts` that minutes are made of.
COUNT_COLUMNS = ("at", "site", "zone", *(f"{kind}_count" for kind in KINDS), "partitions", "partitions_total")
#: The numbers of each kind in a minute.
NUMBERS = ("min", "max", "last", "sum")
MINUTE_COLUMNS = (
    "at",
    "site",
    "zone",
    *(f"{kind}_{number}" for kind in KINDS for number in NUMBERS),
    "instants",
    "ended",
)


def minutes(counts: pa.Table) -> pa.Table:
    """The minutes of stored instants; those that some partition never reported are left out.

    Args:
        counts: rows with COUNT_COLUMNS. Rows of the same instant, site and zone add up.

    Returns:
        `at` timestamp (ms, UTC), `site`, `zone`; `person_min`, `person_max`, `person_last` int32, `person_sum`
        int64, the same of vehicles; `instants` int16; `ended` int16: seconds from the last instant to `at`.
        Sorted by site, zone and time.
    """
    names = {
        name: counts[name].cast(pa.string()).combine_chunks().dictionary_encode() for name in ("site", "zone")
    }
    site, zone = (names[name].indices.to_numpy(zero_copy_only=False).astype(np.int64) for name in names)
    at_ms = counts["at"].cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).to_numpy()
    values = {name: counts[name].to_numpy().astype(np.int64) for name in COUNT_COLUMNS[3:]}
    # one row for each instant, site and zone
    order = np.lexsort((at_ms, zone, site))
    first = _starts(site[order], zone[order], at_ms[order])
    total = {name: _at(np.add, column[order], first) for name, column in values.items()}
    needed = _at(np.maximum, values["partitions_total"][order], first)
    whole = total["partitions"] >= needed
    site, zone, at_ms = (column[order][first][whole] for column in (site, zone, at_ms))
    # one row for each minute
    at_s = -(-at_ms // (MINUTE_S * 1000)) * MINUTE_S
    first = _starts(site, zone, at_s)
    ends = np.append(first[1:], len(at_s)) - 1 if len(first) else first
    columns: dict[str, pa.Array] = {
        "at": pa.array(at_s[first] * 1000, pa.timestamp("ms", "UTC")),
        "site": names["site"].dictionary.take(pa.array(site[first])),
        "zone": names["zone"].dictionary.take(pa.array(zone[first])),
    }
    for kind in KINDS:
        number = total[f"{kind}_count"][whole]
        columns[f"{kind}_min"] = pa.array(_at(np.minimum, number, first), pa.int32())
        columns[f"{kind}_max"] = pa.array(_at(np.maximum, number, first), pa.int32())
        columns[f"{kind}_last"] = pa.array(number[ends], pa.int32())
        columns[f"{kind}_sum"] = pa.array(_at(np.add, number, first), pa.int64())
    columns["instants"] = pa.array(ends - first + 1, pa.int16())
    columns["ended"] = pa.array((at_s[ends] * 1000 - at_ms[ends]) // 1000, pa.int16())
    return pa.table(columns).sort_by([(name, "ascending") for name in ("site", "zone", "at")])


def steps(rows: pa.Table, step_s: int) -> pa.Table:
    """Minutes in steps that end at multiples of `step_s` seconds, which is a multiple of 60.

    Args:
        rows: of `minutes`, sorted by site, zone and time, each minute once.
        step_s: the length of a step.

    Returns:
        The same columns; `at` is the end of the step.
    """
    site, zone = (
        rows[name]
        .cast(pa.string())
        .combine_chunks()
        .dictionary_encode()
        .indices.to_numpy(zero_copy_only=False)
        for name in ("site", "zone")
    )
    minute_s = rows["at"].cast(pa.int64()).to_numpy() // 1000
    at_s = -(-minute_s // step_s) * step_s
    first = _starts(site, zone, at_s)
    ends = np.append(first[1:], len(at_s)) - 1 if len(first) else first
    columns = {
        "at": pa.array(at_s[first] * 1000, pa.timestamp("ms", "UTC")),
        "site": pc.take(rows["site"], pa.array(first)),
        "zone": pc.take(rows["zone"], pa.array(first)),
    }
    for kind in KINDS:
        for number, combine in (("min", np.minimum), ("max", np.maximum), ("sum", np.add)):
            values = rows[f"{kind}_{number}"].to_numpy().astype(np.int64)
            columns[f"{kind}_{number}"] = pa.array(_at(combine, values, first))
        columns[f"{kind}_last"] = pc.take(rows[f"{kind}_last"], pa.array(ends))
    columns["instants"] = pa.array(_at(np.add, rows["instants"].to_numpy().astype(np.int64), first))
    ended_s = at_s[ends] - minute_s[ends] + rows["ended"].to_numpy()[ends]
    columns["ended"] = pa.array(ended_s, pa.int64())
    return pa.table(columns)


def _starts(*keys: I8) -> I8:
    """Where sorted rows with the same keys begin."""
    if not len(keys[0]):
        return np.zeros(0, np.int64)
    changes = np.logical_or.reduce([np.diff(key) != 0 for key in keys])
    return np.concatenate([[0], np.flatnonzero(changes) + 1])


def _at(combine: np.ufunc, values: I8, first: I8) -> I8:
    if not len(first):
        return np.zeros(0, np.int64)
    combined: I8 = combine.reduceat(values, first)
    return combined
