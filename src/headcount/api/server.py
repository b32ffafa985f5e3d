"""Serve HTTP until stopped, and then end within a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial

import uvicorn

from headcount.access.client_address import client_address, is_balancer
from headcount.api.api_settings import ApiSettings
from headcount.api.app import create_app
from headcount.api.state import ApiState
from headcount.runtime.connection_limits import BACKLOG, BATCH, ConnectionLimits, protocol_of
from headcount.runtime.http import GRACE_S, UvicornServer
from headcount.runtime.ports import listen
from headcount.tls.tls_files import TlsFiles

#: WebSocket messages of clients are ignored.
_MAX_WEBSOCKET_MESSAGE = 1024

_log = logging.getLogger(__name__)

#: A request line and its headers. A polygon of 20 000 characters fits, percent-encoded.
MAX_HEAD_BYTES = 256 << 10


async def run(
    settings: ApiSettings,
    *,
    host: str,
    port: int,
    stop: asyncio.Event,
    on_ready: Callable[[int], None] | None = None,
    tls: TlsFiles | None = None,
) -> None:
    """Serve the API until `stop` is set: streams end immediately, stalled readers within `GRACE_S`.

    `port` 0 is any free one; `on_ready` is called with the port when the server accepts requests. With `tls`, serve
    HTTPS with this certificate, which is reloaded when it changes.

    Raises:
        CertificateError: the certificate is not valid.
        PortTakenError: another program listens on the port.
        SettingsError: the address is not available.
    """
    async with contextlib.AsyncExitStack() as held:
        context = None
        if tls is not None:
            from headcount.tls.contexts import load_certificate, server_context  # noqa: PLC0415  # only with TLS
            from headcount.tls.reload import reloading  # noqa: PLC0415

            context = server_context(tls.certificate, tls.key)
            reload = partial(load_certificate, context, tls.certificate, tls.key)
            await held.enter_async_context(reloading(tls, reload))
        limits = ConnectionLimits(partial(_address, settings))
        listener = held.enter_context(
            limits.limited(listen("HTTP", host, port, "--http-port", backlog=BACKLOG))
        )
        await held.enter_async_context(limits.sweeping())
        app = create_app(settings)
        server = UvicornServer(
            uvicorn.Config(
                app,
                http=protocol_of(limits),
                backlog=BATCH,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                log_config=None,
                access_log=False,
                proxy_headers=False,  # see access/client_address.py
                server_header=False,
                timeout_graceful_shutdown=GRACE_S,  # type: ignore[arg-type]  # it only waits that long
                ws_max_size=_MAX_WEBSOCKET_MESSAGE,
                ws_max_queue=4,
                ssl_context_factory=None if context is None else lambda *_: context,
            )
        )
        state: ApiState = app.state.headcount
        # No task group: cancelled from outside, it would cancel the server instead of stopping it.
        serving = asyncio.create_task(server.serve([listener]), name="api: serve")
        stopped = asyncio.create_task(stop.wait(), name="api: stop")
        try:
            if await _started(server, serving) and on_ready is not None:
                on_ready(listener.getsockname()[1])
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            _log.info("stopping the API")
            stopped.cancel()
            state.live.close()
            server.should_exit = True
            await serving


def _address(settings: ApiSettings, peer: str) -> str | None:
    """The address that a connection counts for; None for a load balancer, whose clients it limits."""
    return None if is_balancer(peer, settings.trusted) else client_address(peer, (), settings.trusted)


async def _started(server: UvicornServer, serving: asyncio.Task[None]) -> bool:
    while not server.started and not serving.done():  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.01)
    return server.started
