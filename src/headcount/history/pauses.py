"""Derive `pauses` from stored fixes: those after which a device was silent for a while.

Where a device was at an instant follows from its last fix, which may be hours old: a parked car is silent. To
find it, a query would read the area's fixes of all these hours. Of an hour that is over it reads its pauses
instead, which are some fixes of each device (decision 0059). They are copies of rows of `fixes`.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa

from headcount.counting.fix_columns import B1, I8
from headcount.history.at_instant import ACCEPTED, INACCURATE
from headcount.history.catalog import Catalog
from headcount.history.compaction import codes, fix_keys
from headcount.history.damage import read_whole
from headcount.history.fix_rows import codes as codes_of
from headcount.history.fix_rows import ticks
from headcount.history.manifest import PAUSES, Segment
from headcount.history.replacing import write_like
from headcount.messages.fixes import VERDICTS
from headcount.messages.topics import KINDS

#: A pause is longer than this. Older fixes of a device that may be its last ones at an instant are pauses.
PAUSE_S = 900.0
PAUSE_US = round(PAUSE_S * 1e6)


def write_pauses(catalog: Catalog, fixes: list[Segment]) -> Segment | None:
    """Write the pauses among the fixes of an hour as a segment that is not yet in the manifest; None: no fixes.

    Raises:
        DamagedSegmentError: a segment of fixes is damaged.
        DataFolderError, StoreError: the store cannot be read or written.
    """
    parts = []
    for segment in fixes:  # one by one: a segment in memory takes about 100 bytes a row
        table = read_whole(catalog.store, segment)
        parts.append(table.filter(pa.array(_at_least_one(last_of_quarters(*_columns(table))))))
    if not parts:
        return None
    table = pa.concat_tables(parts, promote_options="default").unify_dictionaries()
    table = table.filter(pa.array(_at_least_one(before_pauses(*_columns(table)))))
    order = np.lexsort(tuple(reversed(fix_keys(table)))).astype(np.int32)
    renamed = [
        msgspec.structs.replace(each, name=f"{PAUSES}/{each.name.partition('/')[2]}") for each in fixes
    ]
    return write_like(catalog, renamed, table.take(pa.array(order)))


def last_of_quarters(device: I8, t_us: I8, is_accepted: B1, is_used: B1) -> B1:
    """The last accepted and the last used fixes of each device in each PAUSE_S: all pauses, and more.

    Used fixes are at most some minutes late (rule 1), so a segment has few quarters.
    """
    found: B1 = np.zeros(len(device), np.bool_)
    if not is_used.any():
        return found
    slot = t_us // PAUSE_US - t_us[is_used].min() // PAUSE_US
    group = device * (int(slot[is_used].max()) + 1) + slot
    for which in (is_accepted, is_used):
        newest = np.full(int(group[is_used].max()) + 1, np.iinfo(np.int64).min)
        np.maximum.at(newest, group[which], t_us[which])
        index = np.flatnonzero(which)
        found[index] |= t_us[index] == newest[group[index]]
    return found


def before_pauses(device: I8, t_us: I8, is_accepted: B1, is_used: B1) -> B1:
    """The fixes that no accepted one of their device follows within PAUSE_S, or no used one.

    Of fixes of one time all are kept: which of them is the last one is decided by the query.

    Args:
        device: a number for each device, from 0.
        t_us: event times.
        is_accepted: by rule 1.
        is_used: accepted or inaccurate.
    """
    found: B1 = np.zeros(len(device), np.bool_)
    order = np.lexsort((t_us, device))
    for which in (is_accepted, is_used):
        index = order[which[order]]
        of, at_us = device[index], t_us[index]
        is_next = (of[1:] != of[:-1]) | (at_us[1:] != at_us[:-1])  # not of the same time
        run = np.append(0, np.cumsum(is_next)) if len(index) else np.zeros(0, np.int64)
        last = np.flatnonzero(np.append(is_next, True)) if len(index) else run
        is_last = np.append((of[last][1:] != of[last][:-1]) | (np.diff(at_us[last]) > PAUSE_US), True)
        found[index[is_last[run]]] = True
    return found


def _at_least_one(found: B1) -> B1:
    """The rows found; without any, the first one, so that the hour has a segment and is not derived again."""
    found[:1] |= not found.any()
    return found


def _columns(table: pa.Table) -> tuple[I8, I8, B1, B1]:
    verdict = codes_of(table["verdict"], VERDICTS)
    is_accepted = verdict == ACCEPTED
    kind = codes_of(table["kind"], KINDS).astype(np.int64)
    site = codes(table["site"])
    device = (codes(table["device"]) * len(KINDS) + kind) * (int(site.max(initial=0)) + 1) + site
    return device, ticks(table["t"]), is_accepted, is_accepted | (verdict == INACCURATE)
