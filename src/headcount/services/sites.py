"""The site of a running deployment."""

from __future__ import annotations

from headcount.access.roles import Caller
from headcount.errors import SiteError
from headcount.messaging.site_record import SiteRecord, SiteRecords
from headcount.services.audit import AuditTrail


class SiteService:
    """Change the site; every method raises LogError if the core does not answer."""

    def __init__(self, records: SiteRecords, audit: AuditTrail) -> None:
        """Work on `records`."""
        self._records = records
        self._audit = audit

    async def change(self, actor: Caller, site_id: str, digest: bytes) -> bool:
        """Make this site the deployment's: its roles start again with it. False: it is that already.

        Raises:
            SiteError: it has another id than the deployment's.
        """
        site = SiteRecord(site_id, digest.hex())
        while True:
            found, revision = await self._records.get()
            if found == site:
                return False
            if found is not None and found.id != site.id:
                raise SiteError(
                    site.id,
                    "the id",
                    f"is not that of this deployment, {found.id}",
                    "Devices and topics belong to it: keep the id, or start another deployment",
                )
            await self._audit.record(actor, "site.reload", site.id, {"digest": site.digest})
            if await self._records.replace(site, revision):
                return True
