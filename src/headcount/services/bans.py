"""Temporary bans of devices and addresses."""

from __future__ import annotations

from headcount.access.roles import Caller
from headcount.devices.bans import ActiveBan, BanList, ban_key, banned_address
from headcount.devices.registry import Registry, unknown_device
from headcount.services.audit import AuditTrail, Detail


class BanService:
    """Operations on bans; every method raises LogError if the core does not answer."""

    def __init__(self, bans: BanList, registry: Registry, audit: AuditTrail) -> None:
        """Work on `bans`; `registry` knows the devices."""
        self._bans = bans
        self._registry = registry
        self._audit = audit

    async def add(self, actor: Caller, target: str, for_s: float, reason: str) -> ActiveBan:
        """Ban a device (its id) or an address for a time; it replaces an earlier ban.

        Raises:
            UnknownDeviceError: no device has this id.
            DeviceError: target, time or reason are not valid.
        """
        if banned_address(ban_key(target)) is None and await self._registry.get(target) is None:
            raise unknown_device(target)
        banned = await self._bans.add(target, for_s, reason)
        await self._record(actor, "ban.add", target, {"seconds": for_s, "reason": reason})
        return banned

    async def remove(self, actor: Caller, target: str) -> bool:
        """Lift a ban; False: there was none.

        Raises:
            DeviceError: the target is neither a device's id nor an address.
        """
        key = ban_key(target)
        if all(ban_key(ban.device or ban.address or "") != key for ban in await self._bans.all()):
            return False
        await self._record(actor, "ban.remove", target)
        return await self._bans.lift(target)

    async def all(self) -> list[ActiveBan]:
        """Return the bans in force, those that end first first."""
        return await self._bans.all()

    async def of_devices(self) -> dict[str, float]:
        """Return the ids of banned devices, and when their bans end (Unix seconds)."""
        return {ban.device: ban.until for ban in await self._bans.all() if ban.device}

    async def _record(self, actor: Caller, action: str, target: str, detail: Detail | None = None) -> None:
        """Record it: an address as it is, a device by its pseudonym, a device that is gone without any."""
        address = banned_address(ban_key(target))
        device = await self._registry.get(target) if address is None else None
        if device is not None:
            await self._audit.record_device(actor, action, device, detail)
        else:
            await self._audit.record(actor, action, f"address {target}" if address else "", detail)
