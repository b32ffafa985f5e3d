"""Units and APIs as the servers of each backend.

Host names are resolved here, repeatedly: HAProxy does so only at its start, but addresses of containers change.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Mapping, Sequence

from headcount.errors import SettingsError
from headcount.proxy.membership import ProxiedUnit
from headcount.proxy.proxy_config import Backend, BackendServers, HaproxyServer, ProxyConfig, server_name

_log = logging.getLogger(__name__)

#: Addresses and failures are cached this long.
CACHE_S = 5.0
_TIMEOUT_S = 2.0


class NameResolver:
    """Resolves host names, with a cache of some seconds; a name that fails keeps its last addresses."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, tuple[str, ...]]] = {}

    async def addresses(self, host: str) -> tuple[str, ...]:
        """All addresses in a fixed order, IPv4 before IPv6; none for an unknown name."""
        try:
            return (str(ipaddress.ip_address(host)),)
        except ValueError:
            pass
        resolved_s, before = self._known.get(host, (float("-inf"), ()))
        if self._clock() - resolved_s < CACHE_S:
            return before
        found = await self._resolve(host) or before
        self._known[host] = (self._clock(), found)
        return found

    async def _resolve(self, host: str) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                loop = asyncio.get_running_loop()
                answers = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            _log.warning("cannot resolve %s: %s", host, error)
            return ()
        found = {(family == socket.AF_INET6, str(address[0])) for family, _, _, _, address in answers}
        return tuple(address for _, address in sorted(found))


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
