"""A client's connection to the log that is made again whenever it is lost."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

import nats
import nats.errors
from nats.aio.client import Client

from headcount.errors import LogError

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
async def connected(log: Endpoint, name: str) -> AsyncIterator[Client]:
    """A connection to one of the core's servers, and to another whenever it is lost.

    Raises:
        LogError: if none is there at first.
    """
    try:
        nc = await nats.connect(
            log.urls,
            user=log.user,
            password=log.password,
            name=name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RETRY_S,
            connect_timeout=2,
            allow_reconnect=True,
            error_cb=_complain,
        )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise LogError(f"{log}: can't connect: {error!r}") from error
    try:
        yield nc
    finally:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await nc.close()


async def _complain(error: Exception) -> None:
    _log.info("connection to the log: %r", error)
