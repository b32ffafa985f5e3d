"""Authenticate each request once, before anything else, for every path and for WebSockets.

An invalid token or session is rejected with 401 even where the resource is public: its sender must not take the public's
answer for their own. Browsers send cookies automatically, so changes with a session need its CSRF token
(`Headcount-CSRF`) and a page of this origin (`Origin`).
"""

from __future__ import annotations

import math
import re
import time
from hmac import compare_digest
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headcount.access.client_address import client_address, is_balancer
from headcount.access.rate_limiter import RateLimitResult
from headcount.access.roles import PUBLIC, caller
from headcount.access.sessions import caller_of_session
from headcount.access.tokens import TOKEN, caller_of_token
from headcount.api.cookies import session_cookie, set_cookie
from headcount.api.middleware import on_start
from headcount.api.middleware.identity import Identity, set_identity
from headcount.api.middleware.local_request import why_not_local
from headcount.api.problem_handlers import send_problem
from headcount.api.public_url import is_same_origin
from headcount.api.rate_limits import too_many_requests
from headcount.api.schemas import problems
from headcount.api.schemas.problems import ProblemError
from headcount.api.state import ApiState
from headcount.errors import AccessError, LogError

CSRF_HEADER = "headcount-csrf"
#: These paths authenticate devices themselves.
DEVICE_PATHS = re.compile(r"/v1/(me|provision|fixes|osmand|owntracks)(/|$)")
#: These have a limit per device: a whole campus may send its fixes from one address.
INGEST_PATHS = re.compile(r"/v1/(fixes|osmand|owntracks)$")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
#: Health checks are not rate-limited.
_UNLIMITED = ("/healthz",)
_API = re.compile(r"/(v1/|ogc(/|$)|metrics$|readyz$|openapi\.json$)")


class AuthenticationMiddleware:
    """Find the sender of each request, and apply rate limits and CSRF protection."""

    def __init__(self, app: ASGIApp, state: ApiState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        self._set_scheme(scope)
        connection = HTTPConnection(scope)
        try:
            identity = await self._identify(connection)
            set_identity(connection, identity)
            rate = self._limit(connection, identity)
            _check_origin(connection, identity, self._state.settings.public_url)
        except ProblemError as error:
            await send_problem(scope, receive, send, error)
            return
        await self._app(
            scope, receive, send if rate is None else self._with_rate_headers(send, identity, rate)
        )

    def _set_scheme(self, scope: Scope) -> None:
        """A load balancer of ours that ends TLS states in a header that the browser used TLS."""
        settings, client = self._state.settings, scope.get("client")
        forwarded = Headers(scope=scope).get("x-forwarded-proto") == "https"
        if settings.https or (forwarded and client is not None and is_balancer(client[0], settings.trusted)):
            scope["scheme"] = "https" if scope["type"] == "http" else "wss"

    async def _identify(self, connection: HTTPConnection) -> Identity:
        headers, settings = connection.headers, self._state.settings
        _reject_token_in_url(connection)
        peer = connection.client.host if connection.client else ""
        address = client_address(peer, headers.getlist("x-forwarded-for"), settings.trusted)
        cookie = session_cookie(connection, settings.public_url)
        path: str = connection.scope["path"]  # `url` would trust the header Host
        if not DEVICE_PATHS.match(path):
            try:
                if "authorization" in headers:
                    return await self._by_token(headers, address)
                if cookie is not None:
                    found = await self._by_session(cookie, address)
                    if found is not None:
                        return found
                    if _API.match(path):
                        raise self._session_ended(connection, address)
            except LogError as error:
                raise ProblemError(
                    problems.LOG_AWAY, "The caller cannot be authenticated now.", headers={"retry-after": "1"}
                ) from error
        if settings.open and why_not_local(peer, headers) is None:
            return Identity(caller("operator", "this machine"), address, "machine")
        anybody = caller("viewer", "anybody") if settings.open else PUBLIC
        return Identity(anybody, address, "anonymous")

    async def _by_token(self, headers: Headers, address: str) -> Identity:
        given = headers.getlist("authorization")
        scheme, _, text = given[0].partition(" ")
        if len(given) != 1 or scheme.lower() != "bearer":
            raise self._failed(address, "Use one header `Authorization: Bearer <token>`.")
        text = text.strip()
        if TOKEN.fullmatch(text) is None:
            raise self._failed(address, "This is not a token of headcount; tokens start with `hc_`.")
        tokens = self._state.services.token_store
        # an address with too many failures costs the core no more requests; known tokens behind it still work
        guessing = not self._state.limits.failures.peek(address, time.monotonic()).allowed
        token = None if guessing and not tokens.is_cached(text) else await tokens.check(text)
        if token is None:
            raise self._failed(address, "The token does not exist, was revoked, or has expired.")
        try:
            who = caller_of_token(token)
        except AccessError as error:
            raise self._failed(address, f"{error}.") from error
        return Identity(
            who, f"token {token.id}", "token", is_still_valid=lambda: tokens.is_still_valid(token)
        )

    async def _by_session(self, value: str, address: str) -> Identity | None:
        sessions = self._state.services.session_store
        guessing = not self._state.limits.failures.peek(address, time.monotonic()).allowed
        session = None if guessing and not sessions.is_cached(value) else await sessions.check(value)
        if session is None:
            return None
        who = caller_of_session(session)
        return Identity(who, who.subject, "session", session, lambda: sessions.is_still_valid(value, session))

    def _session_ended(self, connection: HTTPConnection, address: str) -> ProblemError:
        cleared = Response()
        set_cookie(cleared, connection, self._state.settings.public_url, "", 0)
        error = self._failed(address, "Your session has ended. Log in again.")
        error.headers |= {"set-cookie": cleared.headers["set-cookie"]}
        return error

    def _failed(self, address: str, detail: str) -> ProblemError:
        """Count a failed authentication, and return its problem."""
        challenge = {"www-authenticate": 'Bearer error="invalid_token"'}
        too_many = "Too many authentications from your address have failed."
        return self._state.limits.failure(address, too_many) or ProblemError(
            problems.SIGN_IN, f"{detail} {problems.SIGN_IN.meaning}", headers=challenge
        )

    def _limit(self, connection: HTTPConnection, identity: Identity) -> RateLimitResult | None:
        """Apply the rate limit; None: the request is not limited."""
        peer = connection.client.host if connection.client else ""
        # all clients of a load balancer that does not forward addresses would share one limit
        unknown = (
            is_balancer(peer, self._state.settings.trusted) and "x-forwarded-for" not in connection.headers
        )
        path, now_s, limits = connection.scope["path"], time.monotonic(), self._state.limits
        if path in _UNLIMITED or (unknown and identity.by in ("machine", "anonymous")):
            return None
        if INGEST_PATHS.match(path) and limits.refused_devices.peek(identity.key, now_s).allowed:
            return None
        result = limits.requests.take(identity.key, now_s)
        if not result.allowed:
            sender = "your address" if identity.by == "anonymous" else identity.caller.subject
            raise too_many_requests(f"Too many requests from {sender}.", result)
        return result

    def _with_rate_headers(self, send: Send, identity: Identity, rate: RateLimitResult) -> Send:
        limiter = self._state.limits.requests
        name = identity.by if identity.by in ("token", "session") else "address"

        def add(message: Message) -> None:
            headers = MutableHeaders(scope=message)
            quota, window_s = int(limiter.burst), math.ceil(limiter.window_s)
            headers["ratelimit-policy"] = f'"{name}";q={quota};w={window_s}'
            headers["ratelimit"] = f'"{name}";r={rate.remaining};t={math.ceil(rate.full_s)}'

        return on_start(send, add)


def _reject_token_in_url(connection: HTTPConnection) -> None:
    """Addresses end in logs, histories and other sites' hands: they must not contain a token."""
    query = connection.scope.get("query_string", b"")
    if b"access_token" not in query and b"hc_" not in query:
        return
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name == "access_token" or TOKEN.search(value):
            raise ProblemError(problems.TOKEN_IN_URL, problems.TOKEN_IN_URL.meaning)


def _check_origin(connection: HTTPConnection, identity: Identity, public_url: str) -> None:
    """With a session, only pages of this origin may change something or open a WebSocket."""
    if identity.session is None:
        return
    websocket = connection.scope["type"] == "websocket"
    unsafe = not websocket and connection.scope["method"] not in SAFE_METHODS
    if not (websocket or unsafe):
        return
    if not is_same_origin(connection, public_url):
        raise ProblemError(
            problems.CROSS_SITE, f"This comes from a page of another origin. {problems.CROSS_SITE.meaning}"
        )
    given = connection.headers.get(CSRF_HEADER, "")
    if unsafe and not compare_digest(given.encode(), identity.session.csrf.encode()):
        raise ProblemError(
            problems.CROSS_SITE,
            f"The header Headcount-CSRF is missing or wrong. {problems.CROSS_SITE.meaning}",
        )
