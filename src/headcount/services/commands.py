"""Commands to devices: queue, list, withdraw."""

from __future__ import annotations

import time
from typing import Any

from headcount.access.roles import Caller
from headcount.devices.commands import CommandStore
from headcount.devices.owntracks_commands import require_support
from headcount.devices.registry import Registry, unknown_device
from headcount.errors import DeviceError
from headcount.messages.commands import CommandKind
from headcount.messages.records import AppRegion, DeviceCommand
from headcount.messages.times import iso_or_none
from headcount.messages.topics import Kind
from headcount.services.audit import AuditTrail, Detail
from headcount.services.sites import SiteService


class CommandService:
    """Operations on commands; every method raises LogError if the core does not answer."""

    def __init__(
        self, commands: CommandStore, registry: Registry, sites: SiteService, audit: AuditTrail
    ) -> None:
        """Work on `commands`; `registry` knows the devices, `sites` their zones."""
        self._commands = commands
        self._registry = registry
        self._sites = sites
        self._audit = audit

    async def target(
        self, id_: str, site: str, kind: Kind | None = None, *, unregistered: bool = False
    ) -> Kind:
        """Return the kind of a device on a site that accepts commands.

        Raises:
            UnknownDeviceError: it is not registered on this site, and `unregistered` devices are not accepted.
            DeviceError: it is not registered, and `kind` is missing.
        """
        device = await self._registry.get(id_)
        if device is not None and device.site == site and device.status != "erasing":
            return device.kind
        if device is not None or not unregistered:
            raise unknown_device(id_)
        if kind is None:
            raise DeviceError(
                "kind", f"device {id_[:64]!r} is not registered", "State whether it is a person or a vehicle"
            )
        return kind

    async def add(
        self,
        actor: Caller,
        site: str,
        kind: Kind,
        device: str,
        command: CommandKind,
        *,
        expires_s: float,
        pause_s: float | None = None,
        **fields: Any,
    ) -> DeviceCommand:
        """Queue a command, which is sent until the device answers or `expires_s` are over.

        Raises:
            DeviceError: the command is not valid, or not for this device, or too many wait for it.
            UnknownSiteError: the device's site, whose zones are to be sent, is removed.
        """
        require_support(command, await self._registry.get(device))
        now_s = time.time()
        if command == "zones":
            fields["regions"] = await self._regions(site)
        until = None if pause_s is None else now_s + pause_s
        made = await self._commands.prepare(
            site, kind, device, command, now_s=now_s, expires_s=expires_s, until=until, **fields
        )
        await self._record(actor, "command.add", made)
        await self._commands.queue(made)
        return made

    async def of(self, device: str) -> list[DeviceCommand]:
        """Return a device's commands, newest first."""
        return await self._commands.of(device)

    async def get(self, device: str, id_: str) -> DeviceCommand | None:
        """Return one command."""
        return await self._commands.get(device, id_)

    async def withdraw(self, actor: Caller, command: DeviceCommand) -> None:
        """Stop sending a command, and erase it."""
        await self._record(actor, "command.withdraw", command)
        await self._commands.withdraw(command.device, command.id)

    async def _regions(self, site: str) -> list[AppRegion]:
        from headcount.counting.site_file import parse_site  # noqa: PLC0415  # geometry, for this command only
        from headcount.devices.owntracks_regions import site_regions  # noqa: PLC0415

        return site_regions(parse_site((await self._sites.chosen(site)).file, site))

    async def _record(self, actor: Caller, action: str, command: DeviceCommand) -> None:
        detail: Detail = {"command": command.command, "id": command.id}
        await self._audit.record_id(actor, action, command.site, command.kind, command.device, detail)


def command_as_json(command: DeviceCommand) -> dict[str, Any]:
    """Return a command for JSON."""
    fields = ("id", "command", "state", "interval_s", "text", "answer")
    moments = ("created", "expires", "until", "sent", "answered")
    return {name: getattr(command, name) for name in fields} | {
        name: iso_or_none(getattr(command, name)) for name in moments
    }
