"""The versions of a deployment's site, kept current in a process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from headcount.counting.site import Site
from headcount.counting.site_file import at_speed
from headcount.counting.site_versions import SiteVersion, SiteVersions, counted_site
from headcount.errors import LogError, SettingsError
from headcount.messaging.connection import Connection
from headcount.messaging.site_store import SiteStore, StoredSite

#: The interval at which new versions are read; much shorter than SITE_DELAY_S.
POLL_INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


class SiteFollower(SiteVersions):
    """The versions of a deployment's site, kept current; until the first `refresh`, those of a site file."""

    def __init__(self, connection: Connection, site: Site, speed: float = 1.0) -> None:
        """Start with `site`, for a time-lapse run of that speed."""
        counted = site if speed == 1 else at_speed(site, speed)
        super().__init__([SiteVersion(1, 0, counted)], complete_s=0.0)
        self._store = SiteStore(connection)
        self._speed = speed
        self._revision = -1
        self._turn = asyncio.Lock()
        self._awake = asyncio.Event()

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
                stored = [each for each in stored if each.site == self.newest.site.id]
                if stored:  # else no role has started that stores the first version
                    known = self.all if self._revision > 0 else []
                    self.all = await asyncio.to_thread(_counted, stored, self._speed, known)
                self._revision = revision
            for version in self.all[: self.all.index(self.oldest)]:
                version.__dict__.pop("zones", None)  # no longer counted: free its memory
            self.complete_s = max(self.complete_s, now_s)
            return is_new

    async def run(self, on_new: Callable[[], None] = lambda: None) -> None:
        """Read new versions until cancelled; `on_new` is called after each change."""
        while True:
            self._awake.clear()
            try:
                if await self.refresh():
                    on_new()
            except LogError as error:
                _log.debug("versions of the site: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._awake.wait(), POLL_INTERVAL_S)

    def wake(self) -> None:
        """Have `run` read immediately: the core is connected again."""
        self._awake.set()


async def deployment_site(connection: Connection, site: Site, speed: float) -> SiteFollower:
    """The versions of the deployment's site; where it has none, `site` becomes the first.

    Raises:
        SettingsError: the deployment's site has another id.
        LogError: the core does not answer.
    """
    stored = await SiteStore(connection).seeded(
        StoredSite("start", site.digest().hex(), site.geojson, site.id, 1)
    )
    newest = stored[-1]
    if newest.site != site.id:
        raise SettingsError(
            "site",
            f"is the site {site.id!r}, and this deployment counts {newest.site!r}; use another data folder",
        )
    if newest.digest != site.digest().hex():
        _log.warning(
            "the site file differs from version %d of the site, which is counted; to count by the file, run "
            "`headcount site update FILE`",
            newest.number,
        )
    follower = SiteFollower(connection, site, speed)
    await follower.refresh()
    return follower


def _counted(stored: list[StoredSite], speed: float, known: list[SiteVersion]) -> list[SiteVersion]:
    """The versions with their sites, those in `known` as they are."""
    versions: list[SiteVersion] = []
    numbers = {version.number: version for version in known}
    for each in stored:
        # if the core's clock was set back, none takes effect before its predecessor
        tick = max(versions[-1].from_tick if versions else 0, each.from_tick)
        site = f"version {each.number} of {each.site}"
        versions.append(
            numbers.get(each.number) or SiteVersion(each.number, tick, counted_site(each.file, site, speed))
        )
    return versions
