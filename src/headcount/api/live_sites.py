"""The live counts of all sites: each site has exact counts, and those that the public sees."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from headcount.access.roles import Caller
from headcount.api.live_counts import CountsFeed, LiveCounts
from headcount.api.public_counts import PublicCounts
from headcount.counting.site import Site
from headcount.counting.site_versions import Sites, SiteVersions
from headcount.counting.totals import FRESH_S
from headcount.messages.counts import site_of_counts
from headcount.messages.times import tick_s

_log = logging.getLogger(__name__)


class ServedSite:
    """The feeds of one site, from when it is added until it is removed."""

    def __init__(self, versions: SiteVersions, live: LiveCounts, public: PublicCounts | None) -> None:
        """`public` is None where the public sees exact counts."""
        self.versions = versions
        self.live = live
        self.public = public

    @property
    def id(self) -> str:
        """The site's id."""
        return self.versions.site_id

    @property
    def site(self) -> Site:
        """The version whose zones are served."""
        return self.live.site

    @property
    def public_feed(self) -> CountsFeed:
        """The counts that the public sees."""
        return self.public or self.live

    def is_due(self, now_s: float) -> bool:
        """Whether it has been counted long enough that all partitions must have reported."""
        return now_s >= tick_s(self.versions.begins_tick) + FRESH_S

    def close(self) -> None:
        """End all streams."""
        self.live.close()
        if self.public is not None:
            self.public.close()


class LiveSites:
    """The served sites. `refresh` follows `sites`: it creates the feeds of new sites and closes those of removed ones."""

    def __init__(
        self,
        sites: Sites,
        partitions: int,
        public: Callable[[SiteVersions], PublicCounts | None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Serve the current sites; `public` creates the public counts of one, `clock` returns Unix seconds."""
        self.sites = sites
        self.partitions = partitions
        self._public = public
        self._clock = clock
        self._served: dict[str, ServedSite] = {}
        self._rejected = 0  # messages of unknown sites, and those of sites that were removed
        self.refresh()

    @property
    def current(self) -> list[ServedSite]:
        """The served sites, by id; of a site that is being removed and was added again, the removed one first."""
        return list(self._served.values())

    @property
    def rejected(self) -> int:
        """The number of messages that could not be used."""
        return self._rejected + sum(served.live.rejected for served in self._served.values())

    def named(self, site: str) -> ServedSite | None:
        """Return the served site with an id; None: there is none."""
        return next((served for served in self._served.values() if served.id == site), None)

    def visible(self, caller: Caller) -> list[ServedSite]:
        """Return the served sites that a caller may see."""
        return [served for served in self._served.values() if caller.sees(served.id)]

    def take(self, payload: bytes) -> None:
        """Take a message of counts; those of unknown sites are counted in `rejected`, and the first is logged."""
        try:
            site = site_of_counts(payload)
        except msgspec.DecodeError:
            site = ""
        served = self.named(site)
        if served is not None:
            served.live.take(payload)
            return
        self._rejected += 1
        if self._rejected == 1:
            _log.warning("ignoring counts of the unknown site %r", site)

    def refresh(self) -> None:
        """Create the feeds of new sites, and close those of removed ones: their streams end."""
        current = {site.key: site for site in self.sites.current(self._clock())}
        for key in self._served.keys() - current.keys():
            removed = self._served.pop(key)
            self._rejected += removed.live.rejected
            removed.close()
        self._served = {key: self._served.get(key) or self._new(site) for key, site in current.items()}

    def on_new_versions(self) -> None:
        """Serve what was learned about the sites."""
        self.refresh()
        for served in self._served.values():
            served.live.on_new_site()

    def check_overdue(self) -> None:
        """Publish what is overdue, and follow removals; to be called every `CHECK_INTERVAL_S`."""
        self.refresh()
        for served in self._served.values():
            served.live.check_overdue()

    def close(self) -> None:
        """End all streams."""
        for served in self._served.values():
            served.close()

    def _new(self, site: SiteVersions) -> ServedSite:
        public = self._public(site)
        on_total = public.take if public else lambda _: None
        return ServedSite(site, LiveCounts(site, self.partitions, self._clock, on_total), public)
