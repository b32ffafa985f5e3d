"""HTTP servers inside a role: they listen immediately and end when the role stops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.types import ASGIApp

from headcount.errors import PortTakenError, SettingsError

#: How long answers have when the server stops.
GRACE_S = 0.5


class UvicornServer(uvicorn.Server):
    """uvicorn without its own signal handlers: the role decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


def listen(host: str, port: int, option: str) -> socket.socket:
    """A socket that listens for HTTP; `option` is the setting that changes the port.

    Raises:
        PortTakenError: another program listens there.
        SettingsError: the address can't be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError("HTTP", host, port, option) from None
        raise SettingsError(
            "listen address", f"can't listen on {host}:{port}: {error.strerror or error}"
        ) from None


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, host: str, port: int, option: str) -> AsyncIterator[None]:
    """Serve `app` for as long as the body runs.

    Raises:
        PortTakenError, SettingsError: see `listen`.
    """
    with listen(host, port, option) as listener:
        server = UvicornServer(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=GRACE_S,  # type: ignore[arg-type]  # it only waits that long
            )
        )
        task = asyncio.create_task(server.serve([listener]), name="http")
        try:
            yield
        finally:
            server.should_exit = True
            await task
