"""A client's connection to the log that is made again whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

import nats
import nats.errors
from nats.aio.client import Client

from headcount.runtime.tasks import unless_stopped

_log = logging.getLogger(__name__)

RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the NATS servers of the core are, any of which will do, and who we are there."""

    addresses: tuple[tuple[str, int], ...]
    user: str
    password: str

    @property
    def urls(self) -> list[str]:
        """The addresses as NATS clients take them."""
        return [f"nats://{f'[{host}]' if ':' in host else host}:{port}" for host, port in self.addresses]

    def __repr__(self) -> str:
        """Without the password: representations end up in logs."""
        return f"Endpoint({self.user}@{','.join(f'{host}:{port}' for host, port in self.addresses)})"


@contextlib.asynccontextmanager
async def connected(log: Endpoint, name: str, stop: asyncio.Event | None = None) -> AsyncIterator[Client]:
    """A connection to one of the core's servers: waited for, and made to another whenever it is lost.

    Raises:
        StopRequestedError: `stop` was set while it waited.
    """
    said: set[str] = set()

    async def complain(error: Exception) -> None:
        if repr(error) not in said:  # each attempt fails, twice a second
            said.add(repr(error))
            _log.info("%s: connection to the log: %r", log, error)

    async def reconnected() -> None:
        said.clear()

    # it is tried without end at the start as well: nats-py tells `complain` only
    connecting = nats.connect(
        log.urls,
        user=log.user,
        password=log.password,
        name=name,
        max_reconnect_attempts=-1,
        reconnect_time_wait=RETRY_S,
        connect_timeout=2,
        allow_reconnect=True,
        error_cb=complain,
        reconnected_cb=reconnected,
    )
    nc = await unless_stopped(connecting, stop or asyncio.Event())
    said.clear()
    try:
        yield nc
    finally:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await nc.close()
