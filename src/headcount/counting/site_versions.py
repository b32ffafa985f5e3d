"""The sites of a deployment, the versions of each, and which of them is in effect when; pure."""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from functools import cached_property
from typing import Any

from headcount.counting.site import Site
from headcount.counting.site_file import at_speed, parse_site
from headcount.counting.zone_lookup import ZoneLookup
from headcount.errors import SnapshotError
from headcount.messages.times import TICK_S, effect_tick, tick_s

#: Nothing in the log is older.
OLDEST_S = 2 * 3600.0


class SiteVersion:
    """A version of a site; its zones are prepared when they are first needed."""

    def __init__(self, number: int, from_tick: int, site: Site) -> None:
        """Take effect at a multiple of TICK_S; `site` is as it is counted, scaled for a time-lapse run."""
        self.number = number
        self.from_tick = from_tick
        self.site = site

    @property
    def from_s(self) -> float:
        """When it takes effect (Unix seconds)."""
        return tick_s(self.from_tick)

    @cached_property
    def zones(self) -> ZoneLookup:
        """The zones, prepared for look-ups; shared by the partitions of a worker."""
        return ZoneLookup(self.site)


class SiteVersions:
    """The versions of a site from when it was added until it is removed, in their order.

    The first version is in effect from `begins_tick`. A site that is added again is another object with the same id.
    """

    def __init__(
        self,
        versions: list[SiteVersion],
        complete_s: float = math.inf,
        *,
        added: int = 1,
        begins_tick: int = 0,
        ends_tick: int = sys.maxsize,
    ) -> None:
        """Start with at least one version.

        Args:
            versions: in the order of their numbers.
            complete_s: every version that the core stored before this is among them.
            added: the number of the version with which the site was added.
            begins_tick: when it was added, in TICK_S; 0: before everything.
            ends_tick: when it is removed, in TICK_S.
        """
        self.all = versions
        self.complete_s = complete_s
        self.added = added
        self.begins_tick = begins_tick
        self.ends_tick = ends_tick

    @property
    def site_id(self) -> str:
        """The id, which never changes."""
        return self.newest.site.id

    @property
    def key(self) -> str:
        """Unique also where a removed site is added again."""
        return f"{self.site_id}.{self.added}"

    def is_removed(self, at_s: float) -> bool:
        """Whether it is no longer counted at Unix seconds."""
        return at_s >= tick_s(self.ends_tick)

    @property
    def newest(self) -> SiteVersion:
        """The last version that was accepted; it may not be in effect yet."""
        return self.all[-1]

    @property
    def oldest(self) -> SiteVersion:
        """A version that was in effect before everything in the log; later ones are applied to no device."""
        return self.all[0] if math.isinf(self.complete_s) else self.at(self.complete_s - OLDEST_S)

    @property
    def last_tick(self) -> int:
        """The last instant, in TICK_S, at which no unknown version can be in effect."""
        return sys.maxsize if math.isinf(self.complete_s) else effect_tick(self.complete_s) - 1

    def at_tick(self, tick: int) -> SiteVersion:
        """The version in effect at an instant."""
        return self.all[max(0, bisect_right(self.all, tick, key=lambda version: version.from_tick) - 1)]

    def at(self, at_s: float) -> SiteVersion:
        """The version in effect at Unix seconds."""
        return self.at_tick(math.floor(at_s / TICK_S + 1e-6))

    def numbered(self, number: int) -> SiteVersion | None:
        """The version with a number; None: it is unknown, or not retained."""
        return next((version for version in self.all if version.number == number), None)

    def of_snapshot(self, number: int) -> SiteVersion:
        """The version with the number in a snapshot.

        Raises:
            SnapshotError: it is not retained.
        """
        version = self.numbered(number)
        if version is None:
            raise SnapshotError(
                f"of version {number} of the site", "cannot be used: the version is not stored"
            )
        return version

    def between(self, number: int, tick: int) -> list[SiteVersion]:
        """The versions after a number that are in effect at or before an instant."""
        return [version for version in self.all if version.number > number and version.from_tick <= tick]


class Sites:
    """The sites of a deployment, in the order of their ids."""

    def __init__(self, sites: list[SiteVersions]) -> None:
        """Start with the sites that are known; those that were removed lately belong to them."""
        self.all = sites

    @property
    def complete_s(self) -> float:
        """Everything that the core stored before this is among them."""
        return min((site.complete_s for site in self.all), default=0.0)

    @property
    def last_tick(self) -> int:
        """The last instant, in TICK_S, at which no unknown version or site can be in effect."""
        return sys.maxsize if math.isinf(self.complete_s) else effect_tick(self.complete_s) - 1

    def current(self, at_s: float) -> list[SiteVersions]:
        """The sites that are not removed at Unix seconds; one that was just added begins seconds later."""
        return [site for site in self.all if not site.is_removed(at_s)]

    def named(self, site_id: str, at_s: float) -> SiteVersions | None:
        """The current site with an id; None: there is none."""
        return next((site for site in self.current(at_s) if site.site_id == site_id), None)

    def with_key(self, key: str) -> SiteVersions | None:
        """The site with a key; None: it is unknown, or was removed long ago."""
        return next((site for site in self.all if site.key == key), None)


def only(site: Site | ZoneLookup) -> SiteVersions:
    """The versions of a site that never changes, with its prepared zones where they are given."""
    if isinstance(site, Site):
        return SiteVersions([SiteVersion(1, 0, site)])
    version = SiteVersion(1, 0, site.site)
    version.zones = site
    return SiteVersions([version])


def counted_site(geojson: dict[str, Any], source: str, speed: float) -> Site:
    """The site of a stored file, scaled for a time-lapse run of that speed.

    Raises:
        SiteError: the file is not valid.
    """
    site = parse_site(geojson, source)
    return site if speed == 1 else at_speed(site, speed)
