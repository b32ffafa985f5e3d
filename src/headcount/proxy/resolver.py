"""Host names → addresses. HAProxy would do it once, at its start; containers change theirs."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable

_log = logging.getLogger(__name__)

#: An answer is good for so long, a failure as well.
KEPT_S = 5.0
_ANSWER_S = 2.0


class Names:
    """Addresses of host names, remembered for a few seconds; a name that fails keeps its last addresses."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Measure age by `clock`, in seconds."""
        self._clock = clock
        self._known: dict[str, tuple[float, tuple[str, ...]]] = {}

    async def addresses(self, host: str) -> tuple[str, ...]:
        """All addresses, in a fixed order, IPv4 before IPv6; none when the name isn't known."""
        try:
            return (str(ipaddress.ip_address(host)),)
        except ValueError:
            pass
        asked_s, before = self._known.get(host, (float("-inf"), ()))
        if self._clock() - asked_s < KEPT_S:
            return before
        found = await self._ask(host) or before
        self._known[host] = (self._clock(), found)
        return found

    async def _ask(self, host: str) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(_ANSWER_S):
                loop = asyncio.get_running_loop()
                answers = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            _log.warning("%s: no address for this name (%s)", host, error)
            return ()
        found = {(family == socket.AF_INET6, str(address[0])) for family, _, _, _, address in answers}
        return tuple(address for _, address in sorted(found))
