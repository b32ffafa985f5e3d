"""The table of units over a connection of our own, which the balancer can do without for a while."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

import nats.errors
from nats.aio.client import Client

from headcount.cluster.units import Units, UnitTable
from headcount.errors import LogError
from headcount.fixlog.connection import Endpoint, connected
from headcount.ops.lifecycle import end

_log = logging.getLogger(__name__)


class CoreUnits:
    """What the units say in the core, as an async context manager; `table` is for `ProxySettings.units`.

    It is entered at once: while the core is away, also at the start, `table` raises LogError at once and
    somebody in the background goes on trying.
    """

    def __init__(self, core: Endpoint) -> None:
        """Ask this core."""
        self._core = core
        self._client: Client | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            await end([self._keeper])

    async def _keep(self) -> None:
        """Hold the connection; the first one may take as long as the core is away."""
        try:
            async with connected(self._core, "headcount proxy") as self._client:
                await asyncio.Event().wait()
        except LogError as error:
            _log.info("%s", error)
        finally:
            self._client = None

    async def table(self) -> UnitTable:
        """The table now.

        Raises:
            LogError: the core is away.
        """
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep(), name="connection to the core")
        if self._client is None or not self._client.is_connected:
            raise LogError(f"{self._core}: no connection")
        try:
            return await Units(self._client, self._client.jetstream()).table()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LogError(f"{self._core} doesn't answer: {error!r}") from error
