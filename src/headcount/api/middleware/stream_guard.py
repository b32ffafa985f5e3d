"""End live streams whose token or session has been revoked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headcount.api.middleware.identity import Identity, identity_of

_STREAM = re.compile(r"/v1/sites/[^/]+/(stream|ws)$")
_POLL_INTERVAL_S = 0.5

_log = logging.getLogger(__name__)


class StreamGuardMiddleware:
    """Serve a live stream only as long as its token or session is valid."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] in ("http", "websocket") and _STREAM.fullmatch(scope["path"]):
            identity = identity_of(HTTPConnection(scope))
            if identity.is_still_valid is not None:
                await self._guard(identity, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _guard(self, identity: Identity, scope: Scope, receive: Receive, send: Send) -> None:
        state = {"started": False, "done": False}

        async def observing(message: Message) -> None:
            state["started"] |= message["type"] in ("http.response.start", "websocket.accept")
            state["done"] |= message["type"] == "websocket.close" or (
                message["type"] == "http.response.body" and not message.get("more_body", False)
            )
            await send(message)

        async def serve() -> None:
            await self._app(scope, receive, observing)

        is_still_valid = identity.is_still_valid
        serving = asyncio.create_task(serve(), name="stream")
        try:
            while not serving.done() and is_still_valid is not None and is_still_valid():
                await asyncio.wait({serving}, timeout=_POLL_INTERVAL_S)
            if serving.done():
                await serving
                return
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
        if state["started"] and not state["done"]:
            kind = identity.caller.subject.partition(" ")[0]
            _log.info("ended the live stream of a %s that was revoked or expired", kind)
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": "signed out"})
            else:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
