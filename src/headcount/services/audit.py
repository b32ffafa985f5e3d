"""Audit entries, with devices under their daily pseudonym."""

from __future__ import annotations

from collections.abc import Mapping

from headcount.access.audit_log import AuditLog, AuditValue
from headcount.access.roles import Caller
from headcount.devices.pseudonym_keys import daily_pseudonym
from headcount.messages.records import Device
from headcount.messages.topics import Kind
from headcount.messaging.connection import Connection

Detail = Mapping[str, AuditValue]


class AuditTrail:
    """Write audit entries; every method raises LogError if the entry cannot be stored."""

    def __init__(self, client: Connection, log: AuditLog) -> None:
        """Write to `log`; `client` reads the keys of the pseudonyms."""
        self._client = client
        self.log = log

    async def record(
        self, actor: Caller, action: str, subject: str = "", detail: Detail | None = None
    ) -> None:
        """Record that `actor` did `action` (dotted: `token.add`) to `subject`."""
        await self.log.record(action, actor.subject, subject, detail)

    async def record_device(
        self, actor: Caller, action: str, device: Device, detail: Detail | None = None
    ) -> None:
        """Record an action on a registered device, without its id and label."""
        await self.record_id(actor, action, device.site, device.kind, device.id, detail or {})

    async def record_id(
        self, actor: Caller, action: str, site: str, kind: Kind, id_: str, detail: Detail
    ) -> None:
        """Record an action on a device that may not be registered, under its pseudonym of today."""
        pseudonym = await daily_pseudonym(self._client, site, kind, id_)
        await self.record(actor, action, pseudonym, {"site": site, **detail})
