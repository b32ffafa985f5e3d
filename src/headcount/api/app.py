"""The application: all endpoints, and what runs behind them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from importlib import metadata

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headcount.api import openapi, problem_handlers
from headcount.api.api_settings import ApiSettings
from headcount.api.metrics import Metrics
from headcount.api.middleware.authentication import SignIn
from headcount.api.middleware.authorization import SECURITY_HEADERS, BrowserRules
from headcount.api.routes import (
    audit,
    commands,
    devices,
    login,
    me,
    page,
    positions,
    provision,
    sites,
    stream,
    system,
    tokens,
    trace,
)
from headcount.api.routes import (
    problems as problem_routes,
)
from headcount.api.state import ApiState

_DESCRIPTION = """How many people and vehicles are in every zone of a campus, now and before.

Counts are absolute numbers, never differences. Times are RFC 3339 in UTC, or Unix seconds where a
parameter takes one. Every error is a problem document (RFC 9457) whose `type` says what it means.

Counts and sites are for everybody, small numbers hidden. What else there is needs a token
(`Authorization: Bearer hc_…`) or a login on the web page; each endpoint names the scope that it asks for.
A token that is wrong, revoked or over is refused with 401 everywhere, also where none is needed.
"""


def create_app(settings: ApiSettings) -> FastAPI:
    """Return the application; it connects to the core while its lifespan lasts."""
    state = ApiState(settings)
    app = FastAPI(
        title="headcount",
        description=_DESCRIPTION,
        version=metadata.version("headcount"),
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.headcount = state
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]  # FastAPI's own way to extend it
    app.add_middleware(SignIn, state=state)
    app.add_middleware(Measured, metrics=state.metrics)
    app.add_middleware(BrowserRules)
    problem_handlers.install(app, SECURITY_HEADERS)
    # routes about one device precede the older path with its kind, which would match them too
    for resource in (
        trace,
        commands,
        devices,
        provision,
        me,
        system,
        sites,
        stream,
        positions,
        login,
        tokens,
        audit,
        problem_routes,
    ):
        app.include_router(resource.router)
    page.install(app, settings.web)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: ApiState = app.state.headcount
    async with state.core.open():
        loops = [
            asyncio.create_task(state.follow_access(), name="api: tokens and sessions"),
            asyncio.create_task(state.follow_registry(), name="api: device registry"),
        ]
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
            state.close()


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
