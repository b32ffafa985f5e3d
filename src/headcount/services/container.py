"""All services over one connection to the core."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headcount.access.access_cache import AccessCache
from headcount.access.audit_log import AuditLog
from headcount.access.login_links import LoginLinks
from headcount.access.sessions import SessionStore
from headcount.access.tokens import TokenStore
from headcount.devices.bans import BanList
from headcount.devices.commands import CommandStore
from headcount.devices.one_time_links import OneTimeLinks
from headcount.devices.registry import Registry
from headcount.devices.registry_cache import RegistryCache
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.site_store import SiteStore
from headcount.messaging.streams import BAN_BUCKET, COMMAND_BUCKET, DEVICE_BUCKET, SEEN_BUCKET
from headcount.services.audit import AuditTrail
from headcount.services.bans import BanService
from headcount.services.commands import CommandService
from headcount.services.devices import DeviceService
from headcount.services.provisioning import ProvisioningService
from headcount.services.sites import SiteService
from headcount.services.tokens import SessionService, TokenService

if TYPE_CHECKING:  # the counting engine is loaded for a trace only: most commands need none
    from headcount.messaging.site_versions import SiteFollower
    from headcount.services.traces import TraceService


class Services:
    """The operations on a deployment; built once per connection."""

    def __init__(self, client: Connection, secret: str, registry_cache: RegistryCache | None = None) -> None:
        """Use a connection with all rights; `registry_cache` answers lists of devices, where there is one."""
        devices = KvBucket(client, DEVICE_BUCKET)
        self.client = client
        self.registry = Registry(devices, secret, KvBucket(client, SEEN_BUCKET))
        self.access_cache = AccessCache(client)
        self.audit_log = AuditLog(client, secret)
        self.audit = AuditTrail(client, self.audit_log)
        self.devices = DeviceService(self.registry, self.audit, registry_cache)
        self.sites = SiteService(SiteStore(client), self.audit)
        links = OneTimeLinks(devices, self.registry, secret)
        self.provisioning = ProvisioningService(links, self.audit, self.sites)
        self.bans = BanService(BanList(KvBucket(client, BAN_BUCKET)), self.registry, self.audit)
        self.command_store = CommandStore(KvBucket(client, COMMAND_BUCKET))
        self.commands = CommandService(self.command_store, self.registry, self.sites, self.audit)
        self.token_store = TokenStore(self.access_cache)
        self.tokens = TokenService(self.token_store, self.audit)
        self.session_store = SessionStore(self.access_cache)
        logins = LoginLinks(self.access_cache)
        self.sessions = SessionService(self.session_store, logins, self.token_store, self.audit)

    def traces(self, sites: SiteFollower | None = None, partitions: int | None = None) -> TraceService:
        """Return the traces of devices; sites and number of partitions that are not given are read from the core."""
        from headcount.messaging.site_versions import SiteFollower  # noqa: PLC0415  # see above
        from headcount.services.traces import TraceService  # noqa: PLC0415  # see above

        sites = sites or SiteFollower(self.client)
        return TraceService(self.client, sites, self.registry, self.audit, partitions)
