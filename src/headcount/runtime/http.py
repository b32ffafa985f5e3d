"""HTTP servers inside a role: they listen immediately and end when the role stops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.types import ASGIApp

from headcount.runtime.connection_limits import BACKLOG, BATCH, ConnectionLimits, protocol_of
from headcount.runtime.ports import listen

#: How long answers have when the server stops.
GRACE_S = 0.5


class UvicornServer(uvicorn.Server):
    """uvicorn without its own signal handlers: the role decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, host: str, port: int, option: str) -> AsyncIterator[None]:
    """Serve `app` for as long as the body runs.

    Raises:
        PortTakenError, SettingsError: see `listen`.
    """
    limits = ConnectionLimits()
    listener = listen("HTTP", host, port, option, address="internal_host", backlog=BACKLOG)
    with limits.limited(listener) as limited:
        server = UvicornServer(
            uvicorn.Config(
                app,
                http=protocol_of(limits),
                backlog=BATCH,
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=GRACE_S,  # type: ignore[arg-type]  # it only waits that long
            )
        )
        task = asyncio.create_task(server.serve([limited]), name="http")
        try:
            async with limits.sweeping():
                yield
        finally:
            server.should_exit = True
            await task
