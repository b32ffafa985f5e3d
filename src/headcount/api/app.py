"""The application: all endpoints, and what runs behind them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib import metadata

from fastapi import Depends, FastAPI

from headcount.api import openapi, problem_handlers
from headcount.api.api_settings import ApiSettings
from headcount.api.middleware.authentication import AuthenticationMiddleware
from headcount.api.middleware.body_limit import BodyLimitMiddleware
from headcount.api.middleware.compression import CompressionMiddleware, HeadMiddleware
from headcount.api.middleware.query_parameters import known_parameters
from headcount.api.middleware.request_metrics import RequestMetricsMiddleware
from headcount.api.middleware.security_headers import SECURITY_HEADERS, SecurityHeadersMiddleware
from headcount.api.middleware.stream_guard import StreamGuardMiddleware
from headcount.api.routes import (
    audit,
    commands,
    counts,
    devices,
    flows,
    forecast,
    ingest,
    live_stream,
    login,
    me,
    ogc,
    owntracks,
    positions,
    provisioning,
    sign_in,
    sites,
    smart_city,
    stays,
    system,
    tokens,
    traces,
    web_pages,
    weeks,
)
from headcount.api.state import ApiState
from headcount.runtime.tasks import cancel_all

_DESCRIPTION = """Counts of people and vehicles in every zone of a campus, now and over the last 24 hours.

Counts are absolute numbers, never differences. Times are RFC 3339 in UTC; parameters also take Unix
seconds. Every error is a problem document (RFC 9457) whose `type` links to its meaning.

Counts and sites are public, with small counts hidden. Everything else needs a token
(`Authorization: Bearer hc_…`) or a login on the web page; each endpoint names the scope that it requires.
An invalid, revoked or expired token is rejected with 401 everywhere, also where none is needed.
"""
#: Routes about one device precede the older path with its kind (in `positions`), which would match them too.
_RESOURCES = (
    sites,
    counts,
    forecast,
    flows,
    weeks,
    smart_city,
    live_stream,
    ingest,
    owntracks,
    devices,
    provisioning,
    commands,
    traces,
    positions,
    stays,
    me,
    login,
    sign_in,
    tokens,
    audit,
    system,
    ogc,
)


def create_app(settings: ApiSettings) -> FastAPI:
    """Return the application; it connects to the core while its lifespan lasts."""
    state = ApiState(settings)
    app = FastAPI(
        title="headcount",
        description=_DESCRIPTION,
        version=metadata.version("headcount"),
        openapi_url=None,  # at /openapi.json with an ETag; /docs is a page of ours, without scripts from elsewhere
        servers=[{"url": settings.public_url.rstrip("/") or "/"}],
        generate_unique_id_function=lambda route: route.name,
        dependencies=[Depends(known_parameters)],
        lifespan=_lifespan,
    )
    app.state.headcount = state
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]  # FastAPI's own way to extend it
    # the last one added sees a request first
    app.add_middleware(StreamGuardMiddleware)
    app.add_middleware(BodyLimitMiddleware)
    app.add_middleware(AuthenticationMiddleware, state=state)
    app.add_middleware(RequestMetricsMiddleware, metrics=state.metrics.http)
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(CompressionMiddleware)
    app.add_middleware(HeadMiddleware)
    problem_handlers.install(app, SECURITY_HEADERS)
    for resource in _RESOURCES:
        app.include_router(resource.router)
    web_pages.install(app, settings.web, settings.embed_origins)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: ApiState = app.state.headcount
    async with state.core.open():
        loops = [
            asyncio.create_task(state.services.access_cache.run(), name="api: tokens and sessions"),
            asyncio.create_task(state.registry_cache.run(state.core.connection), name="api: device registry"),
        ]
        try:
            yield
        finally:
            await cancel_all(loops)
            state.close()
