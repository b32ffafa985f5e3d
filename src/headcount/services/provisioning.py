"""One-time links and claim codes: create them, and exchange them for a device's credentials."""

from __future__ import annotations

from collections.abc import Sequence

from headcount.access.roles import Caller
from headcount.devices.one_time_links import OneTimeLinks
from headcount.devices.provisioning import RedeemedLink
from headcount.messages.records import DEFAULT_PHONE, Device, PhoneOptions
from headcount.messages.topics import Kind
from headcount.services.actors import LINK_HOLDER
from headcount.services.audit import AuditTrail, Detail
from headcount.services.sites import SiteService


class ProvisioningService:
    """Operations on links and codes; every method raises LogError if the core does not answer."""

    def __init__(self, links: OneTimeLinks, audit: AuditTrail, sites: SiteService) -> None:
        self._links = links
        self._sites = sites
        self._audit = audit

    async def link(
        self, actor: Caller, device: Device, within_s: int, phone: PhoneOptions = DEFAULT_PHONE
    ) -> str:
        """Return a code that gives its first user a new secret for a device.

        Raises:
            DeviceError: the device is gone or disabled, or the time is out of range.
        """
        await self._audit.record_device(actor, "device.link", device, {"within_s": within_s})
        return (await self._links.create_link(device.id, within_s, phone))[0]

    async def claim_codes(
        self,
        actor: Caller,
        site: str,
        kind: Kind,
        count: int,
        groups: Sequence[str],
        within_s: int,
        phone: PhoneOptions = DEFAULT_PHONE,
    ) -> list[str]:
        """Return codes that each register one new device, for the first person who shows it.

        Raises:
            DeviceError: groups, count or time are out of range.
        """
        detail: Detail = {"site": site, "kind": kind, "codes": count, "groups": " ".join(groups)}
        await self._audit.record(actor, "device.claims", detail=detail)
        return await self._links.create_claim_codes(site, kind, count, groups, within_s, phone)

    async def redeem(self, code: str) -> RedeemedLink:
        """Use up a code; return its device and the device's new credentials.

        Only the used code identifies the device, so the audit entry follows. If writing it fails, the code is
        used up and no one has the secret: a new link is needed.

        Raises:
            LinkRefusedError: the code is unknown, used or expired, or its site is removed.
        """
        redeemed = await self._links.redeem(code, self._is_counted)
        kind = redeemed.device.kind
        await self._audit.record_device(LINK_HOLDER, "device.provision", redeemed.device, {"kind": kind})
        return redeemed

    async def _is_counted(self, site: str) -> bool:
        counted = [each.site for each in await self._sites.sites()]
        return not counted or site in counted  # before the first version is stored
