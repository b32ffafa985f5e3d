"""Resolve host names: HAProxy does so only at its start, but addresses of containers change."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable

_log = logging.getLogger(__name__)

#: Addresses and failures are cached this long.
CACHE_S = 5.0
_TIMEOUT_S = 2.0


class NameResolver:
    """Resolves host names, with a cache of some seconds; a name that fails keeps its last addresses."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Measure age by `clock`, in seconds."""
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
