"""Expiry: segments whose rows are all too old leave the manifest, and rows of a kind leave their segments."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headcount.history import replacing
from headcount.history.catalog import Catalog
from headcount.history.damage import read_whole
from headcount.history.hours import HOUR_S
from headcount.history.manifest import PAUSES, HeldSegment, Hold, Manifest, Segment
from headcount.history.replacing import Replacement
from headcount.messages.topics import KINDS
from headcount.settings.retention_periods import PERIODS, RetentionPeriods

#: The default period of fixes, counts and events.
KEEP_S = round(PERIODS["fixes"].default_s)
_log = logging.getLogger(__name__)

#: Segments in one commit: a plan that another process crosses is small.
_BATCH = 64


def expire(catalog: Catalog, periods: RetentionPeriods, now_s: float) -> int:
    """Remove expired rows, except those under a legal hold; returns the number of rows that are deleted.

    A segment expires as a whole when the hour of its newest row does; rows of a kind with a shorter period leave
    it when that hour is that old. So a row is kept for up to an hour longer than its period (the
    span of a segment; a day for minutes and flows).

    Raises:
        DamagedSegmentError: a segment that must be read is damaged; set it aside and call again.
        DataFolderError, StoreError: the store cannot be read or written.
    """
    rows = 0
    while True:
        manifest = catalog.manifest()
        plan = _plan(catalog, manifest, periods, now_s)
        if not plan:
            return rows
        if replacing.apply(catalog, plan, manifest.holds, now_s):
            dropped = sum(each.dropped_rows for each in plan if each.segment.dataset != PAUSES)
            _log.info("%d rows of the history have expired, in %d segments", dropped, len(plan))
            rows += dropped


def expired_kinds(segment: Segment, periods: RetentionPeriods, now_s: float) -> set[str] | None:
    """The kinds whose rows have all expired; None: every row has."""
    dataset = "fixes" if segment.dataset == PAUSES else segment.dataset
    if dataset not in PERIODS:
        return set()
    # by whole hours: the flows of a day's last hour depend on the events of its first one
    end_s = (segment.to_s // HOUR_S + 1) * HOUR_S
    if not periods.by_kinds(dataset):
        return None if end_s <= now_s - periods.period_s(dataset) else set()
    kinds = set(segment.kinds or KINDS)
    expired = {kind for kind in kinds if end_s <= now_s - periods.period_s(dataset, kind)}
    return None if expired == kinds else expired


def _plan(catalog: Catalog, manifest: Manifest, periods: RetentionPeriods, now_s: float) -> list[Replacement]:
    plan: list[Replacement] = []
    for segment in manifest.segments:
        if len(plan) == _BATCH:
            return plan
        expired = expired_kinds(segment, periods, now_s)
        if expired is None:
            plan.append(replacing.drop(catalog, segment, manifest.holds))
        elif expired:
            plan.append(_without_kinds(catalog, segment, expired, manifest.holds))
    # whole damaged segments under a hold stay, because a repair may read them
    plan += [
        Replacement(damaged.segment)
        for damaged in manifest.damaged
        if expired_kinds(damaged.segment, periods, now_s) is None
        and not any(hold.touches(damaged.segment) for hold in manifest.holds)
    ]
    return plan + [_released(catalog, held, manifest.holds) for held in _ended(manifest)]


def _without_kinds(
    catalog: Catalog, segment: Segment, expired: set[str], holds: Sequence[Hold]
) -> Replacement:
    table = read_whole(catalog.store, segment)
    gone = pc.is_in(table["kind"].cast(pa.string()), value_set=pa.array(sorted(expired))).to_numpy()
    return replacing.split(catalog, segment, table, gone.astype(np.bool_), holds)


def _ended(manifest: Manifest) -> list[HeldSegment]:
    """Held segments whose hold is released."""
    ids = {hold.id for hold in manifest.holds}
    return [each for each in manifest.held if each.hold not in ids]


def _released(catalog: Catalog, held: HeldSegment, holds: Sequence[Hold]) -> Replacement:
    """Move the rows that another hold covers to it; the others are deleted."""
    return replacing.drop(catalog, held.segment, holds)
