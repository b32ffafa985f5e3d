"""The updates for one reader of a live stream.

A reader has no queue. When its interval is over and it has taken the last update, it gets the difference to
the newest snapshot; snapshots between are never sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Literal

import msgspec
import numpy as np
from starlette.requests import HTTPConnection

from headcount.api.counts_lookup import CountsBody, age_s, changes_body, feed_for
from headcount.api.live_counts import CountsFeed, CountsSnapshot
from headcount.api.live_sites import ServedSite
from headcount.api.middleware.identity import identity_of
from headcount.api.schemas.problems import invalid
from headcount.api.state import ApiState
from headcount.messages.times import iso


class PingBody(msgspec.Struct):
    """A keep-alive message with the age of the counts."""

    at: str | None
    age_s: float | None


class StreamUpdate(msgspec.Struct):
    """A message of a stream."""

    event: Literal["counts", "ping"]
    data: CountsBody | PingBody


class StreamReader:
    """The state of one reader: its last snapshot, and when updates are due."""

    def __init__(
        self, state: ApiState, site: ServedSite, connection: HTTPConnection, zones: str | None, every_s: float
    ) -> None:
        """Read these zones of a site (ids with commas between) at most every `every_s`, with the caller's rights.

        Raises:
            ProblemError: `invalid-parameter`, naming the unknown zone.
        """
        self._feed = feed_for(state, site, identity_of(connection).caller)
        self._ping_s = state.settings.ping_s
        self._zones = zone_indices(self._feed, zones)
        self._ids = None if zones is None else set(zones.split(","))
        self._site = self._feed.site
        self._every_s = every_s
        self._known: CountsSnapshot | None = None
        self._ping_due = _now() + self._ping_s
        self._counts_due = 0.0

    async def updates(self) -> AsyncIterator[StreamUpdate]:
        """Yield updates until the feed is closed; a reader that takes them late gets fewer."""
        feed = self._feed
        while not feed.closed.is_set():
            if (update := self._changes()) is not None:
                yield update
            elif (now := _now()) >= self._ping_due:
                self._ping_due = now + self._ping_s
                yield self._ping()
            elif now < self._counts_due:
                await feed.pause(min(self._counts_due, self._ping_due) - now)
            else:
                await feed.newer(self._known.number if self._known else 0, self._ping_due - now)

    def _changes(self) -> StreamUpdate | None:
        """Return the changes since the last update, if one is due."""
        snapshot = self._feed.snapshot
        now = _now()
        if snapshot is None or snapshot is self._known or now < self._counts_due:
            return None
        if self._site is not self._feed.site:  # another version: everything again, with its zones
            self._site, self._known = self._feed.site, None
            ids = self._ids
            self._zones = [i for i, zone in enumerate(self._feed.zones) if ids is None or zone in ids]
        known, self._known = self._known, snapshot
        changed = self._changed_zones(known, snapshot)
        if known and not changed and known.total.partitions_fresh == snapshot.total.partitions_fresh:
            return None
        # readers of the same interval are due together, so that they share a snapshot's JSON
        self._counts_due = (now // self._every_s + 1) * self._every_s
        body = changes_body(self._feed.site.id, snapshot, time.time(), changed, full=known is None)
        return StreamUpdate("counts", body)

    def _changed_zones(self, known: CountsSnapshot | None, snapshot: CountsSnapshot) -> list[int]:
        if known is None:
            return self._zones
        differs = np.any(known.total.values != snapshot.total.values, axis=(1, 2))
        return [zone for zone in self._zones if differs[zone]]

    def _ping(self) -> StreamUpdate:
        snapshot = self._feed.snapshot
        if snapshot is None:
            return StreamUpdate("ping", PingBody(None, None))
        at_s = snapshot.total.at
        return StreamUpdate("ping", PingBody(iso(at_s), age_s(at_s, time.time())))


def zone_indices(feed: CountsFeed, zones: str | None) -> list[int]:
    """Return the indices of zone ids with commas between; None: of all zones.

    Raises:
        ProblemError: `invalid-parameter`, naming the unknown zone.
    """
    if zones is None:
        return list(range(len(feed.zones)))
    unknown = [zone for zone in zones.split(",") if zone not in feed.index]
    if unknown:
        raise invalid("zones", f"there is no zone {unknown[0][:64]!r} in site {feed.site.id}")
    return sorted({feed.index[zone] for zone in zones.split(",")})


def _now() -> float:
    return asyncio.get_running_loop().time()
