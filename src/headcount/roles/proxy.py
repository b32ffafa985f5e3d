"""The role `proxy`: the load balancer before brokers and API."""

from __future__ import annotations

import asyncio
import os

from headcount.messaging.unit_watch import watching
from headcount.proxy import balancer
from headcount.proxy.address_bans import AddressBans, following
from headcount.proxy.balancer import ProxySettings
from headcount.proxy.proxy_settings import ProxyOptions
from headcount.roles.endpoints import core_endpoint
from headcount.roles.tls import tls_files_of
from headcount.settings import Settings, joined


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Balance connections until `stop` is set."""
    options = ProxyOptions.from_environment(os.environ)
    ports = (settings.mqtt_port, settings.ws_port, settings.http_port)
    tls = tls_files_of(settings)
    config = options.config(settings.host, ports, settings.inside_host, settings.health_port, tls)
    apis = tuple(joined(address) for address in settings.api_addresses)
    bans, core = AddressBans(), core_endpoint(settings)
    async with watching(core, "headcount proxy") as units, following(core, bans):
        folder = settings.data / "proxy"
        proxy = ProxySettings(config, folder, units, apis, tls, options.program_path(), bans)
        await balancer.run(proxy, stop)
