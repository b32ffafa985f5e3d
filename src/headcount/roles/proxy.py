"""The role `proxy`: the load balancer before brokers and API."""

from __future__ import annotations

import asyncio

from headcount.messaging.connection import connected
from headcount.messaging.units import Units
from headcount.proxy import balancer
from headcount.proxy.address_bans import AddressBans, watching_bans
from headcount.proxy.balancer import BalancerOptions
from headcount.proxy.proxy_config import ProxyConfig, address_limits
from headcount.roles.endpoints import core_endpoint
from headcount.roles.tls import tls_files_of
from headcount.settings.deployment import Settings
from headcount.settings.formats import joined


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Balance connections until `stop` is set."""
    tls = tls_files_of(settings)
    config = ProxyConfig(
        host=settings.host,
        mqtt_port=settings.mqtt_port,
        ws_port=settings.ws_port,
        http_port=settings.http_port,
        health_port=settings.health_port,
        internal_host=settings.internal_host,
        tls=tls is not None,
        client_certificates=tls is not None and tls.clients is not None,
        balance=settings.proxy.balance,
        limits=address_limits(settings.proxy),
    )
    apis = tuple(joined(address) for address in settings.api_addresses)
    bans, core = AddressBans(), core_endpoint(settings)
    async with connected(core, "headcount proxy", wait=False) as connection, watching_bans(connection, bans):
        units = Units(connection).table
        folder = settings.data / "proxy"
        proxy = BalancerOptions(config, folder, units, apis, tls, settings.proxy.program, bans)
        await balancer.run(proxy, stop)
