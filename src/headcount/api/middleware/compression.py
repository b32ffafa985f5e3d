"""Compress responses with gzip, live streams included, and answer HEAD wherever there is a GET.

Files of the web pages are compressed when they are built, see `routes/web_pages.py`.
"""

from __future__ import annotations

import contextlib
import zlib
from functools import cached_property

from starlette.datastructures import Headers
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipResponder, IdentityResponder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Smaller bodies fit into one packet anyway.
MIN_BYTES = 1000
#: Level 4 takes half the time of level 6 for a few percent more bytes of JSON.
_LEVEL = 4
#: zlib needs 256 KB for each of a thousand streams by default; with a window of 8 KB, it needs 48 KB.
_WINDOW_BITS, _MEMORY_LEVEL = 13, 5
_EXCLUDED = tuple(each for each in DEFAULT_EXCLUDED_CONTENT_TYPES if each != "text/event-stream")


class CompressionMiddleware:
    """Compress what is not compressed yet; each event of a stream is sent immediately."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        accepted = "gzip" in Headers(scope=scope).get("accept-encoding", "")
        responder = _GzipResponder if accepted else IdentityResponder
        await responder(self._app, MIN_BYTES, exclude_content_types=_EXCLUDED)(scope, receive, send)


class _GzipResponder(GZipResponder):
    @cached_property
    def compressor(self) -> zlib._Compress:
        return zlib.compressobj(_LEVEL, zlib.DEFLATED, 16 + _WINDOW_BITS, _MEMORY_LEVEL)


class HeadMiddleware:
    """Answer HEAD as GET without a body; a live stream ends after its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] != "http.response.start":
                await send({"type": "http.response.body"})
                raise _HeadersSentError
            await send(message)

        with contextlib.suppress(_HeadersSentError):
            await self._app({**scope, "method": "GET"}, receive, send_head)


class _HeadersSentError(Exception):
    """The response needs no body."""
