"""Limit the size of request bodies."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headcount.api.problem_handlers import send_problem
from headcount.api.schemas.problems import TOO_LONG, ProblemError
from headcount.counting.site_file import MAX_SITE_BYTES

MAX_BODY_BYTES = 1 << 20
#: Tables of devices may be large.
MAX_IMPORT_BYTES = 16 << 20
_SITE = re.compile("/v1/sites/[^/]+")


class BodyLimitMiddleware:
    """Reject requests whose body is too large, by Content-Length or while it is read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        limit = _limit(scope["path"])
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > limit:
            problem = ProblemError(TOO_LONG, f"The limit is {limit} bytes.")
            await send_problem(scope, receive, send, problem)
            return
        await self._app(scope, _limited(receive, limit), send)


def _limit(path: str) -> int:
    if path.endswith("/devices.csv"):
        return MAX_IMPORT_BYTES
    return MAX_SITE_BYTES if _SITE.fullmatch(path) else MAX_BODY_BYTES


def _limited(receive: Receive, limit: int) -> Receive:
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(TOO_LONG.status)
        return message

    return limited
