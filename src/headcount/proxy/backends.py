"""Units and APIs as the servers of each backend: the part of the balancer that resolves host names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from headcount.errors import SettingsError
from headcount.proxy.membership import ProxiedUnit
from headcount.proxy.proxy_config import Backend, BackendServers, HaproxyServer, ProxyConfig, server_name
from headcount.proxy.resolver import NameResolver

_log = logging.getLogger(__name__)


async def servers_of_backends(
    config: ProxyConfig,
    units: Mapping[str, ProxiedUnit],
    apis: Sequence[tuple[str, int]],
    names: NameResolver,
) -> BackendServers:
    """The servers of each backend with a frontend.

    A unit has the first address of its host, an API has one server per address. Units without an address, or
    with a name that is not valid in a configuration, are omitted.
    """
    # concurrently: a resolver that does not answer delays this once, not for each host
    hosts = sorted({unit.host for unit in units.values()} | {host for host, _ in apis})
    found = await asyncio.gather(*(names.addresses(host) for host in hosts))
    addresses = dict(zip(hosts, found, strict=True))
    pools: dict[Backend, list[HaproxyServer]] = {"mqtt": []}
    if config.ws_port is not None:
        pools["ws"] = []
    for _, unit in sorted(units.items()):
        ports = {"mqtt": unit.mqtt_port, "ws": unit.ws_port}
        for address in addresses[unit.host][:1]:
            try:
                name = server_name(unit.name, address, unit.mqtt_port)
            except SettingsError as error:
                _log.warning("ignoring a unit: %s", error)
                continue
            for backend, servers in pools.items():
                check_port = unit.health_port
                servers.append(
                    HaproxyServer(name, address, ports[backend], check_port, unit.name, unit.draining)
                )
    if config.http_port is not None:
        pools["api"] = pools["api_alive"] = [
            HaproxyServer(f"{address}-{port}", address, port, port)
            for host, port in apis
            for address in addresses[host]
        ]
    return pools
