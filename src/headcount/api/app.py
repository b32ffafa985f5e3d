"""The application: all endpoints, and what runs behind them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from importlib import metadata

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headcount.api import openapi
from headcount.api.api_settings import Sources
from headcount.api.core_connection import Link
from headcount.api.history_queries import Queries
from headcount.api.live_counts import LiveCounts
from headcount.api.metrics import Metrics
from headcount.api.middleware.authentication import SignIn
from headcount.api.middleware.authorization import SECURITY_HEADERS, BrowserRules
from headcount.api.public_counts import public_counts
from headcount.api.routes import (
    audit,
    commands,
    devices,
    fixes,
    login,
    me,
    page,
    provision,
    sites,
    stream,
    system,
    tokens,
    trace,
)
from headcount.api.schemas import problems
from headcount.api.services import Parts

_DESCRIPTION = """How many people and vehicles are in every zone of a campus, now and before.

Counts are absolute numbers, never differences. Times are RFC 3339 in UTC, or Unix seconds where a
parameter takes one. Every error is a problem document (RFC 9457) whose `type` says what it means.

Counts and sites are for everybody, small numbers hidden. What else there is needs a token
(`Authorization: Bearer hc_…`) or a login on the web page; each endpoint names the scope that it asks for.
A token that is wrong, revoked or over is refused with 401 everywhere, also where none is needed.
"""


def create_app(sources: Sources) -> FastAPI:
    """The API over some sources; it connects to the broker while its lifespan lasts."""
    public = public_counts(sources)
    live = LiveCounts(sources.site, sources.partitions, on_total=public.take if public else lambda _: None)
    metrics = Metrics(live, sources.monitor_url)
    parts = Parts(
        sources, live, Link(sources, live, metrics.take), metrics, Queries(sources.max_queries), public
    )
    app = FastAPI(
        title="headcount",
        description=_DESCRIPTION,
        version=metadata.version("headcount"),
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.parts = parts
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]  # FastAPI's own way to extend it
    app.add_middleware(SignIn, parts=parts)
    app.add_middleware(Measured, metrics=metrics)
    app.add_middleware(BrowserRules)
    problems.install(app, SECURITY_HEADERS)
    # what is about one device comes before the older path with its kind, which would match too
    for resource in (
        trace,
        commands,
        devices,
        provision,
        me,
        system,
        sites,
        stream,
        fixes,
        login,
        tokens,
        audit,
    ):
        app.include_router(resource.router)
    page.install(app, sources.web)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    async with parts.link.open():
        following = asyncio.create_task(parts.follow(), name="api: who is known")
        copying = asyncio.create_task(parts.directory.run(lambda: parts.nats), name="api: devices")
        try:
            yield
        finally:
            following.cancel()
            copying.cancel()
            parts.live.close()
            if parts.public is not None:
                parts.public.close()
            parts.queries.close()


class Measured:
    """Counts requests and the time to the start of their answers, by route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap an application."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start_s = time.perf_counter()

        async def measuring(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._measure(scope, message["status"], time.perf_counter() - start_s)
            await send(message)

        await self._app(scope, receive, measuring)

    def _measure(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "OPTIONS") else "other"
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
