"""Device traces: why a device is counted or not."""

from __future__ import annotations

import time

from headcount.access.roles import Caller
from headcount.counting.site_versions import SiteVersions
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.devices.registry import Registry
from headcount.devices.trace import DEFAULT_LIMIT, DeviceTrace, DeviceTracer, is_unknown, kinds_in_log
from headcount.errors import UnknownDeviceError, UnknownSiteError
from headcount.messages.records import Device
from headcount.messages.times import iso
from headcount.messages.topics import ID, Kind
from headcount.messaging.connection import Connection
from headcount.messaging.device_messages import partitions_of_log
from headcount.messaging.site_versions import SiteFollower
from headcount.services.audit import AuditTrail, Detail


class TraceService:
    """Traces of devices; every method raises LogError if the log does not answer."""

    def __init__(
        self,
        client: Connection,
        sites: SiteFollower,
        registry: Registry,
        audit: AuditTrail,
        partitions: int | None = None,
    ) -> None:
        """Trace over a connection; without `partitions`, their number is read from the log."""
        self._client = client
        self._sites = sites
        self._registry = registry
        self._audit = audit
        self._partitions = partitions
        self._tracer: DeviceTracer | None = None

    async def own(self, device: Device, limit: int = DEFAULT_LIMIT) -> DeviceTrace:
        """Return a device's trace for its owner, without an audit entry."""
        try:
            versions = await self._versions(device.site)
        except UnknownSiteError:  # it was removed hours ago
            return DeviceTrace(site=device.site, kind=device.kind, device=device.id, since=iso(time.time()))
        return await self._trace(versions, device.kind, device.id, limit)

    async def of(
        self,
        actor: Caller,
        site: str | None,
        id_: str,
        reason: str,
        kind: Kind | None = None,
        limit: int = DEFAULT_LIMIT,
        *,
        silent: bool = False,
    ) -> DeviceTrace:
        """Return a device's last messages of the hour, each with the rule that decided.

        Args:
            actor: who wants to see it.
            site: the device's; None: where it is registered, or the only one.
            id_: the device's id.
            reason: why; it goes into the audit log.
            kind: of a device that is not registered; None: the one with most messages.
            limit: the maximum number of messages, the newest.
            silent: also return the trace of a registered device without messages.

        Raises:
            UnknownSiteError: there is no such site, or `site` is None and there are several.
            UnknownDeviceError: it is neither registered on this site nor in the log.
        """
        registered = await self._registry.get(id_)
        if registered is not None:
            kind, site = registered.kind, site or registered.site
        versions = await self._versions(site)
        if registered is not None and registered.site != versions.site_id:
            raise _unknown(id_)
        if kind is None and ID.fullmatch(id_):
            partitions = await self._partition_count()
            kind = next(iter(await kinds_in_log(self._client, versions.site_id, id_, partitions)), None)
        if kind is None:
            raise _unknown(id_)
        trace = await self._trace(versions, kind, id_, limit)
        if is_unknown(trace) and not (silent and registered is not None):
            raise _unknown(id_)
        detail: Detail = {"reason": reason, "rows": len(trace.lines)}
        await self._audit.record_id(actor, "positions.trace", trace.site, kind, id_, detail)
        return trace

    async def _versions(self, site: str | None) -> SiteVersions:
        """The versions of a site, which may have been removed within the last hours; None: of the only one."""
        await self._sites.refresh()
        current = [each.site_id for each in self._sites.current(time.time())]
        if site is None and len(current) == 1:
            (site,) = current
        found = next((each for each in reversed(self._sites.all) if each.site_id == site), None)
        if found is None:
            raise UnknownSiteError(site, current)
        return found

    async def _trace(self, site: SiteVersions, kind: Kind, id_: str, limit: int) -> DeviceTrace:
        if self._tracer is None:
            self._tracer = DeviceTracer(await self._partition_count())
        keys = PseudonymKeys(self._client)
        names = await keys.pseudonyms_of(site.site_id, kind, id_)
        return await self._tracer.trace(self._client, site, kind, id_, limit=limit, names=names)

    async def _partition_count(self) -> int:
        if self._partitions is None:
            self._partitions = await partitions_of_log(self._client)
        return self._partitions


def _unknown(id_: str) -> UnknownDeviceError:
    return UnknownDeviceError(
        f"device {id_[:64]!r}",
        "is not registered here, or nothing was received from it within the last hour",
        "`headcount device list` shows all registered devices",
    )
