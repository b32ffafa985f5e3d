"""The sites of a deployment and their versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from headcount.access.roles import Caller
from headcount.errors import SiteLimitError, SiteVersionError, UnknownSiteError
from headcount.messaging.site_store import SiteStore, StoredSite
from headcount.services.audit import AuditTrail

if TYPE_CHECKING:  # geometry: only for commands that compare or change sites
    from headcount.counting.site import Site
    from headcount.counting.site_diff import SiteDiff

#: A deployment's maximum number of sites: each is counted in every partition.
MAX_SITES = 64


class SiteUpdate(msgspec.Struct, frozen=True):
    """An accepted version, and how it differs from the one before."""

    version: int
    from_s: float  # when it takes effect; of an unchanged site, when it took effect
    changes: SiteDiff


class SiteService:
    """Add, change and remove sites; every method raises LogError if the core does not answer."""

    def __init__(self, store: SiteStore, audit: AuditTrail) -> None:
        """Work on `store`."""
        self._store = store
        self._audit = audit

    async def sites(self) -> list[StoredSite]:
        """Return the last accepted version of each site that is not removed, by id."""
        return _current(await self._store.versions())

    async def chosen(self, site: str | None) -> StoredSite:
        """Return the last accepted version of a site; None: of the only one.

        Raises:
            UnknownSiteError: there is no such site, or several without a choice.
        """
        return _chosen(await self.sites(), site)

    async def history(self, site: str) -> list[StoredSite]:
        """Return all stored versions of a site, oldest first; those without a file removed it.

        Raises:
            UnknownSiteError: there is no such site, and there was none.
        """
        stored = await self._store.versions()
        return [each for each in stored if each.site == site] or [_chosen(_current(stored), site)]

    async def version(self, site: str, number: int) -> StoredSite:
        """Return a stored version of a site.

        Raises:
            UnknownSiteError: there is no such site, and there was none.
            SiteVersionError: there is none with this number, or it removed the site.
        """
        versions = await self.history(site)
        found = next((version for version in versions if version.number == number), None)
        if found is None:
            known = f"{versions[0].number} to {versions[-1].number}"
            raise SiteVersionError(f"version {number} of {site} is not stored", f"Stored versions: {known}")
        if found.file is None:
            raise SiteVersionError(f"version {number} removed {site}", "Choose an earlier or a later one")
        return found

    async def add(self, actor: Caller, site: Site) -> StoredSite:
        """Store the first version of a site, or of a removed one again; it is counted some seconds later.

        Raises:
            SiteVersionError: it is counted already.
            SiteLimitError: there are MAX_SITES sites.
        """
        while True:
            stored = await self._store.versions()
            current = _current(stored)
            if any(each.site == site.id for each in current):
                raise SiteVersionError(
                    f"the site {site.id} is counted already", "Change it with `headcount site update FILE`"
                )
            if len(current) >= MAX_SITES:
                raise SiteLimitError(f"there are {MAX_SITES} sites already", "Remove one of them first")
            number = max((each.number for each in stored if each.site == site.id), default=0) + 1
            added = await self._stored(actor, site.id, number, site, added=number)
            if added is not None:
                break
        await self._audit.record(
            actor, "site.add", site.id, {"version": added.number, "digest": added.digest}
        )
        return added

    async def update(self, actor: Caller, site: Site, expected: int | None = None) -> SiteUpdate:
        """Store a new version, which takes effect some seconds later; the same site again changes nothing.

        Args:
            actor: who submits it.
            site: the new version of the site with its id.
            expected: the number of the version that was edited; None: whichever is the last.

        Raises:
            UnknownSiteError: there is no site with its id.
            SiteVersionError: another version was accepted since `expected`.
        """
        from headcount.counting.site_diff import site_diff  # noqa: PLC0415  # geometry: see above
        from headcount.counting.site_file import parse_site  # noqa: PLC0415

        while True:
            last = await self.chosen(site.id)
            if expected is not None and expected != last.number:
                raise SiteVersionError(
                    f"version {last.number} was accepted since version {expected}",
                    "Apply your changes to the newest version",
                )
            changes = site_diff(parse_site(last.file, f"version {last.number}"), site)
            if last.digest == site.digest().hex():
                return SiteUpdate(last.number, last.from_s, changes)
            added = await self._stored(
                actor, site.id, last.number + 1, site, added=last.added, is_seed=last.is_seed
            )
            if added is not None:
                break
        await self._audit.record(
            actor, "site.update", site.id, {"version": added.number, "digest": added.digest}
        )
        await self._store.prune(site.id, added.stored_s)
        return SiteUpdate(added.number, added.from_s, changes)

    async def remove(self, actor: Caller, site: str) -> StoredSite:
        """Store that a site is removed, which takes effect some seconds later: all devices leave it then.

        Raises:
            UnknownSiteError: there is no such site.
            SiteLimitError: it is the only one.
        """
        while True:
            current = await self.sites()
            last = _chosen(current, site)
            if len(current) == 1:
                raise SiteLimitError(f"{site} is the only site", "Add another one first")
            removed = await self._stored(
                actor, site, last.number + 1, None, added=last.added, is_seed=last.is_seed
            )
            if removed is not None:
                break
        await self._audit.record(actor, "site.remove", site, {"version": removed.number})
        return removed

    async def _stored(
        self, actor: Caller, id_: str, number: int, site: Site | None, **origin: Any
    ) -> StoredSite | None:
        """Store a version; return it with its time stamp, or None if there is one with that number already."""
        digest, file = ("", None) if site is None else (site.digest().hex(), site.geojson)
        version = StoredSite(actor.subject, digest, file, site=id_, number=number, **origin)
        if not await self._store.add(version):
            return None
        return next(each for each in await self.history(id_) if each.number == number)


def _current(stored: list[StoredSite]) -> list[StoredSite]:
    """Return the last version of each site that is not removed; `stored` is sorted by site and number."""
    newest = {each.site: each for each in stored}
    return [each for each in newest.values() if each.file is not None]


def _chosen(current: list[StoredSite], site: str | None) -> StoredSite:
    known = [each.site for each in current]
    if site is None and len(known) == 1:
        return current[0]
    if site not in known:
        raise UnknownSiteError(site, known)
    return current[known.index(site)]
