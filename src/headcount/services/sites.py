"""The versions of a deployment's site."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headcount.access.roles import Caller
from headcount.errors import SiteError, SiteVersionError
from headcount.messaging.site_store import SiteStore, StoredSite
from headcount.services.audit import AuditTrail

if TYPE_CHECKING:  # geometry: only for commands that compare or change sites
    from headcount.counting.site import Site
    from headcount.counting.site_diff import SiteDiff


class SiteUpdate(msgspec.Struct, frozen=True):
    """An accepted version, and how it differs from the one before."""

    version: int
    from_s: float  # when it takes effect; of an unchanged site, when it took effect
    changes: SiteDiff


class SiteService:
    """List and add versions; every method raises LogError if the core does not answer."""

    def __init__(self, store: SiteStore, audit: AuditTrail) -> None:
        """Work on `store`."""
        self._store = store
        self._audit = audit

    async def history(self) -> list[StoredSite]:
        """Return all stored versions, oldest first."""
        return await self._store.versions()

    async def newest(self) -> StoredSite:
        """Return the last accepted version.

        Raises:
            SiteVersionError: the deployment has no site yet.
        """
        versions = await self._store.versions()
        if not versions:
            raise SiteVersionError(
                "the deployment has no site yet", "Start the role count or api with --site"
            )
        return versions[-1]

    async def version(self, number: int) -> StoredSite:
        """Return a stored version.

        Raises:
            SiteVersionError: there is none with this number.
        """
        versions = await self._store.versions()
        found = next((version for version in versions if version.number == number), None)
        if found is None:
            known = f"{versions[0].number} to {versions[-1].number}" if versions else "none"
            raise SiteVersionError(f"version {number} is not stored", f"Stored versions: {known}")
        return found

    async def update(self, actor: Caller, site: Site, expected: int | None = None) -> SiteUpdate:
        """Store a new version, which takes effect some seconds later; the same site again changes nothing.

        Args:
            actor: who submits it.
            site: the new version.
            expected: the number of the version that was edited; None: whichever is the last.

        Raises:
            SiteError: it has another id than the deployment's site.
            SiteVersionError: another version was accepted since `expected`.
        """
        from headcount.counting.site_diff import site_diff  # noqa: PLC0415  # geometry: see above
        from headcount.counting.site_file import parse_site  # noqa: PLC0415

        while True:
            last = await self.newest()
            if last.site != site.id:
                raise SiteError(
                    site.id,
                    "the id",
                    f"is not that of this deployment, {last.site}",
                    "Devices and topics belong to it: keep the id, or start another deployment",
                )
            if expected is not None and expected != last.number:
                raise SiteVersionError(
                    f"version {last.number} was accepted since version {expected}",
                    "Apply your changes to the newest version",
                )
            changes = site_diff(parse_site(last.file, f"version {last.number}"), site)
            if last.digest == site.digest().hex():
                return SiteUpdate(last.number, last.from_s, changes)
            digest = site.digest().hex()
            if await self._store.add(
                StoredSite(actor.subject, digest, site.geojson, site.id, last.number + 1)
            ):
                break
        added = await self.version(last.number + 1)
        await self._audit.record(
            actor, "site.update", site.id, {"version": added.number, "digest": added.digest}
        )
        await self._store.prune(added.stored_s)
        return SiteUpdate(added.number, added.from_s, changes)
