"""Who stands behind each backend: units and APIs as servers with addresses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from headcount.errors import SettingsError
from headcount.proxy.haproxy_config import Backend, Pools, ProxyConfig, Server, server_name
from headcount.proxy.membership import Unit
from headcount.proxy.resolver import Names

_log = logging.getLogger(__name__)


async def pools_of(
    config: ProxyConfig,
    units: Mapping[str, Unit],
    apis: Sequence[tuple[str, int]],
    names: Names,
) -> Pools:
    """The servers of each backend that has a frontend.

    A unit is reached under the first address of its host, an API under each. Who has no address, or a
    name that can't stand in a configuration, is left out.
    """
    # all at once: a resolver that doesn't answer costs its time once, not for each of them
    hosts = sorted({unit.host for unit in units.values()} | {host for host, _ in apis})
    found = await asyncio.gather(*(names.addresses(host) for host in hosts))
    addresses = dict(zip(hosts, found, strict=True))
    pools: dict[Backend, list[Server]] = {"mqtt": []}
    if config.ws_port is not None:
        pools["ws"] = []
    for _, unit in sorted(units.items()):
        ports = {"mqtt": unit.mqtt_port, "ws": unit.ws_port}
        for address in addresses[unit.host][:1]:
            try:
                name = server_name(unit.name, address, unit.mqtt_port)
            except SettingsError as error:
                _log.warning("a unit is left out: %s", error)
                continue
            for backend, servers in pools.items():
                check_port = unit.health_port
                servers.append(Server(name, address, ports[backend], check_port, unit.name, unit.draining))
    if config.http_port is not None:
        pools["api"] = pools["api_alive"] = [
            Server(f"{address}-{port}", address, port, port)
            for host, port in apis
            for address in addresses[host]
        ]
    return pools
