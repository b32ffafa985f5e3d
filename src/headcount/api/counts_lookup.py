"""Find the counts of a moment: live, from the memory of the last minutes, or from the history."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from headcount.access.roles import Caller
from headcount.api.live_counts import CountsFeed, CountsSnapshot, fragment
from headcount.api.live_sites import ServedSite
from headcount.api.public_counts import PublicCounts
from headcount.api.schemas.problems import NO_COUNTS, NOT_RECORDED, ProblemError, invalid
from headcount.api.state import ApiState
from headcount.history.count_queries import counts_at as stored_counts_at
from headcount.history.series import Correction
from headcount.messages.times import iso

#: A moment at most this far ahead counts as now: clocks differ.
MAX_AHEAD_S = 5.0


class CountsBody(msgspec.Struct, kw_only=True):
    """The counts of zones at an instant, as `CountsResponse`; `zones` are JSON already."""

    site: str
    at: str
    partitions_fresh: int
    partitions_total: int
    age_s: float
    full: bool | msgspec.UnsetType = msgspec.UNSET  # only in streams
    zones: list[msgspec.Raw]


def feed_for(state: ApiState, site: ServedSite, caller: Caller) -> CountsFeed:
    """Return a site's exact counts, or the public ones for callers who may not see the exact ones."""
    # where everything is open, small counts are hidden only on request of the operator: then from anybody
    anybody = state.settings.open and caller.subject == "anybody"
    return site.live if caller.may("counts:exact", site.id) and not anybody else site.public_feed


async def counts_at(state: ApiState, site: ServedSite, caller: Caller, at: float | None) -> CountsBody:
    """Return a site's counts of a moment (Unix seconds; None: now), as the caller may see them.

    Raises:
        ProblemError: `invalid-parameter`, `no-counts-yet` or `not-recorded`.
        TooManyQueriesError, DataFolderError: the history cannot be queried now.
    """
    now_s = time.time()
    if at is not None and at > now_s + MAX_AHEAD_S:
        raise invalid("at", "is in the future")
    feed = feed_for(state, site, caller)
    if isinstance(feed, PublicCounts):
        return await _public_counts(state, feed, at, now_s)
    return await _exact_counts(state, site, at, now_s)


def counts_body(site: str, snapshot: CountsSnapshot, requested_s: float) -> CountsBody:
    """Return all zones of a snapshot; `requested_s` is the requested moment in Unix seconds."""
    total = snapshot.total
    return CountsBody(
        site=site,
        at=iso(total.at),
        partitions_fresh=total.partitions_fresh,
        partitions_total=total.partitions_total,
        age_s=age_s(total.at, requested_s),
        zones=snapshot.fragments,
    )


def changes_body(
    site: str, snapshot: CountsSnapshot, requested_s: float, zones: Sequence[int], *, full: bool
) -> CountsBody:
    """Return some zones of a snapshot, by their indices, for a stream."""
    body = counts_body(site, snapshot, requested_s)
    body.full = full
    body.zones = [snapshot.fragments[i] for i in zones]
    return body


def corrected(newest: Correction | None) -> dict[str, Any]:
    """Return the version of derived numbers and when they were corrected, for an answer."""
    if newest is None:
        return {"version": None, "corrected": None}
    return {
        "version": newest.version,
        "corrected": iso(newest.derived_s) if newest.version > 1 else None,
    }


def age_s(at_s: float, requested_s: float) -> float:
    """Return the seconds from an instant to the requested moment, never negative, in milliseconds."""
    return round(max(0.0, requested_s - at_s), 3)


async def _public_counts(state: ApiState, feed: PublicCounts, at: float | None, now_s: float) -> CountsBody:
    snapshot, requested_s = feed.snapshot, now_s if at is None else at
    # after a start, earlier counts are in the history only
    if snapshot is None or requested_s < snapshot.total.at:
        snapshot = await state.history.run(lambda view: feed.at(view, requested_s))
    if snapshot is not None:
        return counts_body(feed.site.id, snapshot, requested_s)
    if at is None:
        wait_s = str(feed.seconds_to_next(now_s))
        detail = f"Public counts change each minute; the first ones are available in {wait_s} s."
        raise ProblemError(NO_COUNTS, detail, headers={"retry-after": wait_s})
    raise _not_recorded(at)


async def _exact_counts(state: ApiState, site: ServedSite, at: float | None, now_s: float) -> CountsBody:
    live = site.live
    snapshot = live.snapshot
    if at is None:
        if snapshot is None:
            raise ProblemError(NO_COUNTS, NO_COUNTS.meaning, headers={"retry-after": "1"})
        return counts_body(site.id, snapshot, now_s)
    if snapshot is not None and at >= snapshot.total.at:
        return counts_body(site.id, snapshot, at)
    total = live.remembered(at)
    if total is not None:
        return counts_body(site.id, live.snapshot_of(total), at)
    return await _stored_counts(state, site, at)


async def _stored_counts(state: ApiState, site: ServedSite, at: float) -> CountsBody:
    found = await state.history.run(lambda view: stored_counts_at(view, at, site=site.id))
    if found is None:
        raise _not_recorded(at)
    at_s, zones = found
    by_id = {zone.id: zone for zone in site.versions.at(at_s).site.zones}
    return CountsBody(
        site=site.id,
        at=iso(at_s),
        partitions_fresh=state.settings.partitions,
        partitions_total=state.settings.partitions,
        age_s=age_s(at_s, at),
        zones=[
            fragment(
                by_id[row.zone], [msgspec.structs.asdict(row.person), msgspec.structs.asdict(row.vehicle)]
            )
            for row in zones
            if row.zone in by_id
        ],
    )


def _not_recorded(at: float) -> ProblemError:
    return ProblemError(NOT_RECORDED, f"Nothing is recorded at or before {iso(at)}. {NOT_RECORDED.meaning}")
