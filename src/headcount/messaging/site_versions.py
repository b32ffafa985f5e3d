"""The sites of a deployment and their versions, kept current in a process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from itertools import groupby

from headcount.counting.site import Site
from headcount.counting.site_file import at_speed
from headcount.counting.site_versions import OLDEST_S, Sites, SiteVersion, SiteVersions, counted_site
from headcount.errors import LogError, SettingsError
from headcount.messaging.connection import Connection
from headcount.messaging.site_store import SiteStore, StoredSite

#: The interval at which new versions are read; much shorter than SITE_DELAY_S.
POLL_INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


class SiteFollower(Sites):
    """The sites of a deployment, kept current; until the first `refresh`, that of a site file or none."""

    def __init__(self, connection: Connection, site: Site | None = None, speed: float = 1.0) -> None:
        """Start with `site`, for a time-lapse run of that speed."""
        sites = []
        if site is not None:
            counted = site if speed == 1 else at_speed(site, speed)
            sites = [SiteVersions([SiteVersion(1, 0, counted)], complete_s=0.0)]
        super().__init__(sites)
        self._store = SiteStore(connection)
        self._speed = speed
        self._revision = -1
        self._turn = asyncio.Lock()
        self._awake = asyncio.Event()

    @property
    def is_read(self) -> bool:
        """Whether the stored sites have been read once."""
        return self._revision >= 0

    async def refresh(self) -> bool:
        """Read what is new; return whether anything is.

        Raises:
            LogError: the core does not answer.
        """
        async with self._turn:
            revision, now_s = await self._store.state()
            is_new = revision != self._revision
            if is_new:
                stored = await self._store.versions_up_to(revision)
                if stored is None:
                    raise LogError("the newest version of the site is not replicated yet")
                if stored:  # else no role has started that stores the first version
                    await self._use(stored, now_s)
                self._revision = revision
            complete_s = max([now_s, *(site.complete_s for site in self.all)])
            for site in self.all:
                site.complete_s = complete_s
                for version in site.all[: site.all.index(site.oldest)]:
                    version.__dict__.pop("zones", None)  # no longer counted: free its memory
            return is_new

    async def _use(self, stored: list[StoredSite], now_s: float) -> None:
        # the first version that is stored may differ from the site file
        versions_known = self._revision > 0
        found = await asyncio.to_thread(_counted, stored, self._speed, self.all, versions_known)
        self.all = [site for site in found if not site.is_removed(now_s - OLDEST_S)] or found[-1:]

    async def run(self, on_new: Callable[[], None] = lambda: None) -> None:
        """Read new versions until cancelled; `on_new` is called after each change."""
        while True:
            self._awake.clear()
            try:
                if await self.refresh():
                    on_new()
            except LogError as error:
                _log.debug("versions of the sites: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._awake.wait(), POLL_INTERVAL_S)

    def wake(self) -> None:
        """Have `run` read immediately: the core is connected again."""
        self._awake.set()


async def deployment_sites(connection: Connection, site: Site, speed: float) -> SiteFollower:
    """The sites of the deployment; where it has none, `site` becomes the first.

    Raises:
        SettingsError: the deployment does not count `site`.
        LogError: the core does not answer.
    """
    digest = site.digest().hex()
    stored = await SiteStore(connection).seeded(
        StoredSite("start", digest, site.geojson, 1, is_seed=True, site=site.id, number=1)
    )
    newest = {each.site: each for each in stored}
    counted = sorted(each.site for each in newest.values() if each.file is not None)
    if site.id not in newest:
        raise SettingsError(
            "site",
            f"is the site {site.id!r}, and this deployment counts {', '.join(counted)}; start it with one of them, "
            "and add others with `headcount site add FILE`",
        )
    own = newest[site.id]
    if own.file is not None and own.digest != digest:
        _log.warning(
            "the site file differs from version %d of the site, which is counted; to count by the file, run "
            "`headcount site update FILE`",
            own.number,
        )
    follower = SiteFollower(connection, site, speed)
    await follower.refresh()
    return follower


def _counted(
    stored: list[StoredSite], speed: float, known: list[SiteVersions], versions_known: bool
) -> list[SiteVersions]:
    """The sites with their versions; those in `known` stay the same objects, and get what is new."""
    sites = {site.key: site for site in known}
    found = []
    for (id_, added), of_site in groupby(stored, lambda each: (each.site, each.added)):
        *_, last = versions_of_site = list(of_site)
        if last.file is None:
            versions_of_site.pop()
        if not versions_of_site:
            continue
        site = sites.get(f"{id_}.{added}")
        numbers = {version.number: version for version in site.all} if site and versions_known else {}
        versions: list[SiteVersion] = []
        for each in versions_of_site:
            # if the core's clock was set back, none takes effect before its predecessor
            tick = max(versions[-1].from_tick if versions else 0, each.from_tick)
            file, name = each.file or {}, f"version {each.number} of {id_}"
            versions.append(
                numbers.get(each.number) or SiteVersion(each.number, tick, counted_site(file, name, speed))
            )
        if site is None:
            begins_tick = 0 if last.is_seed else versions[0].from_tick
            site = SiteVersions(versions, 0.0, added=added, begins_tick=begins_tick)
        site.all = versions
        if last.file is None:
            site.ends_tick = max(last.from_tick, versions[-1].from_tick)
        found.append(site)
    return found
