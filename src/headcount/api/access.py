"""Who may see what: positions stay on this machine; the headers that browsers keep to."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from headcount.access.roles import PUBLIC, Caller, Scope, caller
from headcount.api.parts import parts_of
from headcount.api.problems import NOT_ALLOWED, ONLY_LOCAL, SIGN_IN, ProblemError

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
#: Whoever sends one of these speaks for somebody else: that it runs on this machine proves nothing.
PROXY_HEADERS = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
#: Paths of positions; no other origin's scripts may read them.
PRIVATE = re.compile(r"/v1/sites/[^/]+/(fixes|devices)(/|$)")
_PUBLIC_PREFIXES = ("/v1/", "/openapi.json", "/healthz", "/readyz")


def require_local(request: Request) -> None:
    """Let a request pass that a program on this machine sent directly.

    A page of another origin in a browser on this machine isn't one: neither with its own name
    resolved to the loopback address (DNS rebinding shows in Host), nor across origins (Origin).

    Raises:
        ProblemError: `positions-only-local`, with what speaks against it.
    """
    reason = _why_not_local(request.client.host if request.client else "", request.headers)
    if reason is not None:
        raise ProblemError(ONLY_LOCAL, f"{reason}. {ONLY_LOCAL.meaning}")


def _why_not_local(client: str, headers: Headers) -> str | None:
    if not is_loopback(client):
        return "The request comes from another machine"
    for name in PROXY_HEADERS:
        if name in headers:
            return f"The request came through a proxy (header {name})"
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not is_loopback(_hostname(f"//{hosts[0]}")):
        return "The header Host doesn't name this machine's loopback address"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != hosts[0]:
        return "The request comes from a page of another origin"
    return None


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


async def caller_of(connection: HTTPConnection) -> Caller:
    """Who asks. Where everything is open, anybody is a viewer, and a program on this machine an operator."""
    parts = parts_of(connection)
    if not parts.sources.open:
        return PUBLIC
    here = _why_not_local(connection.client.host if connection.client else "", connection.headers) is None
    return caller("operator", "this machine") if here else caller("viewer", "anybody")


class Require:
    """A dependency: the caller, who has this scope on the site that the path names."""

    def __init__(self, scope: Scope) -> None:
        """Ask for one scope."""
        self.scope = scope

    async def __call__(self, connection: HTTPConnection) -> Caller:
        """The caller.

        Raises:
            ProblemError: `sign-in` to anybody, `not-allowed` to somebody.
        """
        who = await caller_of(connection)
        if who.may(self.scope, connection.path_params.get("site")):
            return who
        if who.role == "public":
            raise ProblemError(SIGN_IN, SIGN_IN.meaning, headers={"www-authenticate": "Bearer"})
        raise ProblemError(NOT_ALLOWED, f"{who.subject} has no scope {self.scope!r} here.")


class BrowserRules:
    """Adds the headers that tell browsers what pages may do, and opens public paths to all origins."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        public = scope["path"].startswith(_PUBLIC_PREFIXES) and not PRIVATE.match(scope["path"])
        if public and scope["method"] == "OPTIONS":
            await _preflight()(scope, receive, _adding(send, public=True))
            return
        await self._app(scope, receive, _adding(send, public=public))


def _preflight() -> Response:
    return Response(
        status_code=204,
        headers={
            "allow": "GET, OPTIONS",
            "access-control-allow-methods": "GET",
            "access-control-allow-headers": "last-event-id, cache-control",
            "access-control-max-age": "86400",
        },
    )


def _adding(send: Send, *, public: bool) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "no-store")
            if public:
                headers["access-control-allow-origin"] = "*"
            else:
                headers.setdefault("cross-origin-resource-policy", "same-origin")
        await send(message)

    return with_headers
