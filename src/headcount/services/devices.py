"""The device registry: register, import, change, rotate, remove, export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from headcount.access.roles import Caller
from headcount.devices import csv_table
from headcount.devices.csv_table import DeviceRow
from headcount.devices.device_filter import DeviceFilter, DevicePage
from headcount.devices.registry import Registry, unknown_device
from headcount.devices.registry_cache import RegistryCache
from headcount.errors import LogError
from headcount.messages.records import Device, LastSeen
from headcount.messages.times import iso, iso_or_none
from headcount.messages.topics import Kind
from headcount.services.audit import AuditTrail

#: Registered devices, each with its secret.
Added = list[tuple[Device, str]]
Rows = list[DeviceRow]
_SHOWN = ("id", "site", "kind", "status", "label", "groups", "aliases", "gateway", "firmware", "app")


class DeviceService:
    """Operations on the device registry; every method raises LogError if the core does not answer."""

    def __init__(self, registry: Registry, audit: AuditTrail, cache: RegistryCache | None = None) -> None:
        """Work on `registry`; `cache` answers lists where it is given."""
        self._registry = registry
        self._audit = audit
        self._cache = cache

    async def get(self, id_: str, site: str | None = None, *, include_erasing: bool = False) -> Device:
        """Return a registered device, of this site where one is given.

        Raises:
            UnknownDeviceError: there is none, or it is being erased.
        """
        device = await self._registry.get(id_)
        if device is None or (site is not None and device.site != site):
            raise unknown_device(id_)
        if device.status == "erasing" and not include_erasing:
            raise unknown_device(id_)
        return device

    async def list(self, wanted: DeviceFilter) -> DevicePage:
        """Return a page of the devices that pass a filter, ordered by id."""
        if self._cache is not None:
            return self._ready(self._cache).list(wanted)
        return await self._registry.list(wanted)

    async def last_seen(self, id_: str) -> LastSeen | None:
        """Return when a device was last connected, since the broker's last start."""
        if self._cache is not None:
            return self._cache.seen.get(id_)
        return (await self._registry.seen()).get(id_)

    async def add(self, actor: Caller, site: str, kind: Kind, **fields: Any) -> tuple[Device, str]:
        """Register a device; return it with its secret, which cannot be read again.

        The entry needs the new id, so it follows the registration, which is undone if it fails.

        Raises:
            AliasTakenError: an alias belongs to another device.
            DeviceError: a field is not valid.
        """
        device, secret = await self._registry.add(site, kind, **fields)
        try:
            await self._audit.record_device(actor, "device.add", device)
        except BaseException:
            await self._registry.forget(device.id)
            raise
        return device, secret

    async def change(self, actor: Caller, device: Device, **fields: Any) -> Device:
        """Change some fields of a device; groups and aliases are replaced as a whole.

        Raises:
            UnknownDeviceError, AliasTakenError, DeviceError: see `Registry.change`.
        """
        detail = {"fields": " ".join(sorted(fields)), "status": fields.get("status", device.status)}
        await self._audit.record_device(actor, "device.change", device, detail)
        return await self._registry.change(device.id, **fields)

    async def rotate(self, actor: Caller, device: Device) -> tuple[Device, str]:
        """Replace a device's secret; the old one, its ingest key, signed tokens and links are rejected from now on.

        Raises:
            UnknownDeviceError: the device is gone.
        """
        await self._audit.record_device(actor, "device.rotate", device)
        return await self._registry.rotate(device.id)

    async def create_ingest_key(self, actor: Caller, device: Device) -> str:
        """Replace a device's ingest key and return it; the old one is rejected from now on.

        Raises:
            UnknownDeviceError: the device is gone.
        """
        await self._audit.record_device(actor, "device.ingest-key", device, {"exists": True})
        return await self._registry.create_ingest_key(device.id)

    async def remove_ingest_key(self, actor: Caller, device: Device) -> None:
        """Reject a device's ingest key from now on.

        Raises:
            UnknownDeviceError: the device is gone.
        """
        await self._audit.record_device(actor, "device.ingest-key", device, {"exists": False})
        await self._registry.remove_ingest_key(device.id)

    async def create_payload_key(self, actor: Caller, device: Device) -> str:
        """Replace the key of a device's messages and return it; messages without it are rejected from now on.

        Raises:
            UnknownDeviceError: the device is gone.
        """
        await self._audit.record_device(actor, "device.key", device, {"encrypted": True})
        return (await self._registry.create_payload_key(device.id))[1]

    async def remove_payload_key(self, actor: Caller, device: Device) -> None:
        """Accept messages of a device that are not encrypted.

        Raises:
            UnknownDeviceError: the device is gone.
        """
        await self._audit.record_device(actor, "device.key", device, {"encrypted": False})
        await self._registry.remove_payload_key(device.id)

    async def remove(self, actor: Caller, device: Device) -> Device:
        """Reject a device from now on and have everything about it erased.

        Raises:
            UnknownDeviceError: the device is gone.
        """
        await self._audit.record_device(actor, "device.remove", device)
        return await self._registry.remove(device.id)

    async def import_table(self, actor: Caller, site: str, text: str, max_devices: int) -> Added:
        """Register all devices of a CSV table, or none; return each with its secret.

        Raises:
            DeviceError: the table has a line that is not valid.
        """
        return await self.import_rows(actor, site, csv_table.parse_devices(text, site, max_devices))

    async def import_rows(
        self, actor: Caller, site: str, rows: Rows, on_progress: Callable[[int], None] = lambda _: None
    ) -> Added:
        """Register all devices of a parsed table, or none; return each with its secret.

        Raises:
            DeviceError: an alias belongs to another device.
        """
        await self._audit.record(actor, "device.import", detail={"site": site, "devices": len(rows)})
        return await csv_table.import_devices(self._registry, site, rows, on_progress)

    async def export_table(self, actor: Caller, site: str) -> Iterator[str]:
        """Return the CSV lines of all devices of a site, without secrets."""
        if self._cache is not None:
            devices, seen = list(self._ready(self._cache).all()), dict(self._cache.seen)
        else:
            devices, seen = list((await self._registry.all()).values()), await self._registry.seen()
        devices = [device for device in devices if device.site == site]
        await self._audit.record(actor, "device.export", detail={"site": site, "devices": len(devices)})
        return csv_table.export_devices(devices, seen)

    @staticmethod
    def _ready(cache: RegistryCache) -> RegistryCache:
        if not cache.ready.is_set():
            raise LogError("the registry has not been read yet")
        return cache


def secrets_table(added: Added) -> Iterator[str]:
    """Return the CSV lines with id, secret and label of each imported device."""
    yield csv_table.csv_line(csv_table.SECRET_COLUMNS)
    for device, secret in added:
        yield csv_table.csv_line((device.id, secret, device.label))


def device_as_json(
    device: Device, seen: LastSeen | None = None, banned_until: float | None = None
) -> dict[str, Any]:
    """Return a device for JSON, without the hash of its secret; `seen` is its last connection."""
    moments = {name: iso_or_none(getattr(device, name)) for name in ("created", "changed", "resume")}
    shown = {name: getattr(device, name) for name in _SHOWN}
    return {
        **shown,
        "encrypted": bool(device.payload_key),
        "certificate": device.certificate,
        **moments,
        "last_seen": seen_as_json(seen),
        "banned_until": iso_or_none(banned_until),
    }


def page_as_json(site: str, page: DevicePage, banned: Mapping[str, float]) -> dict[str, Any]:
    """Return a page of a site's devices for JSON; `banned` has the ends of bans by id."""
    devices = [
        device_as_json(device, page.seen.get(device.id), banned.get(device.id)) for device in page.devices
    ]
    return {"site": site, "devices": devices, "after": page.after or None}


def seen_as_json(seen: LastSeen | None) -> dict[str, Any] | None:
    """Return a device's last connection for JSON."""
    return None if seen is None else {"at": iso(seen.at), "connected": seen.connected}
