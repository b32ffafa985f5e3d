"""Who may see what, and the headers that browsers keep to."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import Depends, Header, Query
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from headcount.access.roles import PUBLIC, Caller, Scope
from headcount.api.schemas.problems import NOT_ALLOWED, SIGN_IN, ProblemError
from headcount.api.state import state_of
from headcount.messages.records import Session

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
#: What isn't for everybody; no other origin's scripts may read it by what a browser shows by itself.
PRIVATE = re.compile(
    r"/v1/(sites/[^/]+/(fixes|devices(\.csv)?|commands|claims)|tokens|sessions|audit|whoami|system|me|provision)([./]|$)"
)
_API_PREFIXES = ("/v1/", "/openapi.json", "/healthz", "/readyz", "/problems/")
EXPOSED = "retry-after, ratelimit, ratelimit-policy, www-authenticate"
#: Browsers that came over TLS once don't come without it for half a year.
HSTS_S = 182 * 86_400
MIN_REASON, MAX_REASON = 3, 200


def why_not_local(client: str, headers: Headers) -> str | None:
    """What speaks against that a program on this machine sent a request directly; None: nothing.

    A page of another origin in a browser on this machine isn't one: neither with its own name
    resolved to the loopback address (DNS rebinding shows in Host), nor across origins (Origin).
    """
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


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who sends a request, and by what they are known."""

    caller: Caller
    #: For rate limits: a token, a person or an address.
    key: str
    by: Literal["token", "session", "machine", "nobody"]
    session: Session | None = None
    holds: Callable[[], bool] | None = None  # whether token or session still is one


def signed_in(connection: HTTPConnection) -> SignedIn:
    """Who sends a request, as `SignIn` has found out; nobody where nobody has looked."""
    found = connection.scope.get("state", {}).get("signed_in")
    return found if isinstance(found, SignedIn) else SignedIn(PUBLIC, "", "nobody")


async def caller_of(connection: HTTPConnection) -> Caller:
    """Who asks. Where everything is open, anybody is a viewer, and a program on this machine an operator."""
    return signed_in(connection).caller


class RequireAny:
    """A dependency: the caller, who has one of these scopes on the site that the path names."""

    def __init__(self, *scopes: Scope) -> None:
        """Ask for one of some scopes."""
        self.scopes = scopes

    async def __call__(self, connection: HTTPConnection) -> Caller:
        """The caller.

        Raises:
            ProblemError: `sign-in` to anybody, `not-allowed` to somebody.
        """
        who = await caller_of(connection)
        # what is about no site in particular is about the one that is counted here
        site = connection.path_params.get("site") or state_of(connection).settings.site.id
        if any(who.may(scope, site) for scope in self.scopes):
            return who
        if who.role == "public":
            raise ProblemError(SIGN_IN, SIGN_IN.meaning, headers={"www-authenticate": "Bearer"})
        wanted = " or ".join(repr(scope) for scope in self.scopes)
        raise ProblemError(NOT_ALLOWED, f"{who.subject} has no scope {wanted} here.")


class Require(RequireAny):
    """A dependency: the caller, who has this scope on the site that the path names."""

    def __init__(self, scope: Scope) -> None:
        """Ask for one scope."""
        super().__init__(scope)
        self.scope = scope


def _reason(
    header: Annotated[
        str | None,
        Header(
            alias="Headcount-Reason",
            max_length=MAX_REASON,
            description="Why exact positions are asked for; it goes into the audit log.",
            examples=["search for a missing person, case 12"],
        ),
    ] = None,
    reason: Annotated[
        str | None, Query(max_length=MAX_REASON, description="The same, where headers can't be set.")
    ] = None,
) -> str | None:
    """Why somebody asks; None where they don't say, or next to nothing."""
    text = " ".join((header or reason or "").split())
    return text if len(text) >= MIN_REASON else None


#: In an endpoint's parameters: `reason: Reason = None`.
Reason = Annotated[str | None, Depends(_reason)]


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
        if scope["path"].startswith(_API_PREFIXES) and scope["method"] == "OPTIONS":
            await _preflight()(scope, receive, _adding(send, scope))
            return
        await self._app(scope, receive, _adding(send, scope))


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


def _adding(send: Send, scope: Connection) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            if scope["scheme"] == "https":
                headers.setdefault("strict-transport-security", f"max-age={HSTS_S}")
            by = signed_in(HTTPConnection(scope)).by
            secret = by in ("token", "session", "machine") or "set-cookie" in headers
            headers.setdefault("cache-control", "private, no-store" if secret else "no-store")
            if not scope["path"].startswith(_API_PREFIXES):
                headers.setdefault("cross-origin-resource-policy", "same-origin")
                await send(message)
                return
            headers.add_vary_header("Authorization, Cookie, Origin")
            if _any_origin(scope, by):
                headers["access-control-allow-origin"] = "*"
                headers["access-control-expose-headers"] = EXPOSED
            else:
                headers.setdefault("cross-origin-resource-policy", "same-origin")
        await send(message)

    return with_headers


def _any_origin(scope: Connection, by: str) -> bool:
    """Whether pages of all origins may read an answer: those that anybody gets, or whoever shows a token.

    Never where a browser would have shown a right by itself, a cookie or that it is on this machine.
    """
    return by == "token" or (by in ("nobody", "machine") and not PRIVATE.match(scope["path"]))
