"""Headers that restrict browsers, and CORS for public resources."""

from __future__ import annotations

import re

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from headcount.api.middleware import on_start
from headcount.api.middleware.identity import identity_of

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "geolocation=(), camera=(), microphone=()",
}
#: Paths that are not public: with rights that a browser shows automatically, other origins may not read them.
PRIVATE = re.compile(
    r"/v1/(sites/[^/]+/(fixes|devices(\.csv)?|commands|claims)|tokens|sessions|audit|whoami|system|me|provision|fixes|osmand|owntracks)([./]|$)"
    r"|/ogc/collections/[^/]+\.fixes(/|$)"
)
_API_PREFIXES = ("/v1/", "/ogc", "/openapi.json", "/healthz", "/readyz", "/problems/")
EXPOSED = "retry-after, ratelimit, ratelimit-policy, www-authenticate"
#: For half a year, browsers that used TLS once do not connect without it.
HSTS_S = 182 * 86_400


class SecurityHeadersMiddleware:
    """Add security headers to every response, and answer CORS preflight requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"].startswith(_API_PREFIXES) and scope["method"] == "OPTIONS":
            await _preflight()(scope, receive, _with_headers(send, scope))
        else:
            await self._app(scope, receive, _with_headers(send, scope))


def _preflight() -> Response:
    return Response(
        status_code=204,
        headers={
            "allow": "GET, OPTIONS",
            "access-control-allow-methods": "GET, POST, PUT, PATCH, DELETE",
            "access-control-allow-headers": "authorization, content-type, headcount-reason, last-event-id, cache-control",
            "access-control-max-age": "86400",
        },
    )


def _with_headers(send: Send, scope: Scope) -> Send:
    return on_start(send, lambda message: _add_headers(MutableHeaders(scope=message), scope))


def _add_headers(headers: MutableHeaders, scope: Scope) -> None:
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    if scope["scheme"] == "https":
        headers.setdefault("strict-transport-security", f"max-age={HSTS_S}")
    by = identity_of(HTTPConnection(scope)).by
    private = by in ("token", "session", "machine") or "set-cookie" in headers
    headers.setdefault("cache-control", "private, no-store" if private else "no-store")
    if not scope["path"].startswith(_API_PREFIXES):
        headers.setdefault("cross-origin-resource-policy", "same-origin")
        return
    headers.add_vary_header("Authorization, Cookie, Origin")
    if _any_origin(scope, by):
        headers["access-control-allow-origin"] = "*"
        headers["access-control-expose-headers"] = EXPOSED
    else:
        headers.setdefault("cross-origin-resource-policy", "same-origin")


def _any_origin(scope: Scope, by: str) -> bool:
    """Whether pages of all origins may read a response: public ones, and those to the holder of a token.

    Never where a browser showed a right automatically: a cookie, or that it runs on this machine.
    """
    return by == "token" or (by in ("anonymous", "machine") and not PRIVATE.match(scope["path"]))
