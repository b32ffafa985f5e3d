"""A total as JSON, and which one a caller may see."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headcount.access.roles import Caller
from headcount.api.live_counts import CountsFeed, CountsSnapshot
from headcount.api.state import ApiState
from headcount.messages.times import iso


class Counts(msgspec.Struct, kw_only=True):
    """The numbers of zones at an instant; `zones` are already JSON."""

    site: str
    at: str
    partitions_fresh: int
    partitions_total: int
    age_s: float
    full: bool | msgspec.UnsetType = msgspec.UNSET  # only in streams
    zones: list[msgspec.Raw]


def feed_for(state: ApiState, caller: Caller) -> CountsFeed:
    """The counts as they are, or what the public is told of them."""
    # where everything is open, small counts are hidden only if somebody has asked for it: then from anybody
    anybody = state.settings.open and caller.subject == "anybody"
    if state.public is None or (caller.may("counts:exact", state.settings.site.id) and not anybody):
        return state.live
    return state.public


def counts(site: str, snapshot: CountsSnapshot, asked_s: float) -> Counts:
    """All zones of a snapshot; `asked_s` is the moment that was asked for, Unix seconds."""
    total = snapshot.total
    return Counts(
        site=site,
        at=iso(total.at),
        partitions_fresh=total.partitions_fresh,
        partitions_total=total.partitions_total,
        age_s=age_s(total.at, asked_s),
        zones=snapshot.fragments,
    )


def update(
    site: str, snapshot: CountsSnapshot, asked_s: float, zones: Sequence[int], *, full: bool
) -> Counts:
    """Some zones of a snapshot, by their indices, for a stream."""
    chosen = counts(site, snapshot, asked_s)
    chosen.full = full
    chosen.zones = [snapshot.fragments[i] for i in zones]
    return chosen


def age_s(at_s: float, asked_s: float) -> float:
    """Seconds from an instant to the moment that was asked for, not negative, in milliseconds."""
    return round(max(0.0, asked_s - at_s), 3)
