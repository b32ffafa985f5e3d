"""Who sends a request: found out once, before anything else, for every path and for WebSockets.

Whoever shows a token or a session that is none gets 401, even where anybody may look: nobody is to take
the public's answer for their own. A cookie is a right that browsers send by themselves, so with it what
changes something needs the session's own word (`Headcount-CSRF`) and a page of ours (`Origin`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import time
from collections.abc import Mapping
from hmac import compare_digest
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headcount.access.rate_limiter import RateLimitResult, address_of, is_balancer
from headcount.access.roles import PUBLIC, caller
from headcount.access.sessions import caller_of_session
from headcount.access.tokens import TOKEN, caller_of_token
from headcount.api.middleware.authorization import SignedIn, why_not_local
from headcount.api.schemas import problems
from headcount.api.schemas.problems import ProblemError, ProblemType
from headcount.api.state import ApiState
from headcount.errors import AccessError, LogError

CSRF_HEADER = "headcount-csrf"
#: These paths know devices by their own credentials, and read the header themselves.
OF_DEVICES = re.compile(r"/v1/(me|provision)(/|$)")
SAFE = ("GET", "HEAD", "OPTIONS")
#: Nobody who is asked whether they live is made to wait.
_UNLIMITED = ("/healthz",)
_FOLLOWED = re.compile(r"/v1/sites/[^/]+/(stream|ws)$")
_API = re.compile(r"/(v1/|metrics$|readyz$|openapi\.json$)")
_MAX_BODY = 1 << 20
#: Tables of devices may be long.
_MAX_IMPORT = 16 << 20
_LOOK_S = 0.5

_log = logging.getLogger(__name__)


def cookie_name(scope: Scope, public_url: str) -> str:
    """The session cookie's name: with the prefix that binds it to this host, where that is possible."""
    return "__Host-headcount" if is_secure(scope, public_url) else "headcount"


def is_secure(scope: Scope, public_url: str) -> bool:
    """Whether browsers come over TLS."""
    return scope["scheme"] in ("https", "wss") or public_url.startswith("https://")


def base_url(connection: HTTPConnection, public_url: str) -> str:
    """Under which address browsers reach this API, without a slash at the end."""
    if public_url:
        return public_url.rstrip("/")
    scheme = "https" if connection.scope["scheme"] in ("https", "wss") else "http"
    return f"{scheme}://{connection.headers.get('host', '')}"


def session_cookie(scope: Scope, public_url: str, value: str, age_s: int) -> str:
    """The header `Set-Cookie` of a session."""
    secure = "; Secure" if is_secure(scope, public_url) else ""
    return (
        f"{cookie_name(scope, public_url)}={value}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Lax{secure}"
    )


def clearing(scope: Scope, public_url: str) -> str:
    """The same, to end a session in the browser."""
    return session_cookie(scope, public_url, "", 0)


class SignIn:
    """Finds out who sends each request, limits how often they may, and keeps up with what is revoked."""

    def __init__(self, app: ASGIApp, state: ApiState) -> None:
        """Wrap an application."""
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """RateLimitResult a request, as ASGI has it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        self._through_tls(scope)
        connection = HTTPConnection(scope)
        try:
            who = await self._who(connection)
            scope.setdefault("state", {})["signed_in"] = who
            rate = self._limit(connection, who)
            _same_origin(connection, who, self._state.settings.public_url)
            _short_enough(connection)
        except ProblemError as error:
            await _refuse(scope, receive, send, error)
            return
        told = send if rate is None else self._telling(send, who, rate)
        bounded = _bounded(receive, scope["path"])
        if who.holds is not None and _FOLLOWED.fullmatch(scope["path"]):
            await self._while_it_holds(who, scope, bounded, told)
        else:
            await self._app(scope, bounded, told)

    def _through_tls(self, scope: Scope) -> None:
        """Where our balancer ends TLS, the browser came over TLS all the same."""
        settings, client = self._state.settings, scope.get("client")
        told = Headers(scope=scope).get("x-forwarded-proto") == "https"
        if settings.https or (told and client is not None and is_balancer(client[0], settings.trusted)):
            scope["scheme"] = "https" if scope["type"] == "http" else "wss"

    async def _who(self, connection: HTTPConnection) -> SignedIn:
        headers, settings = connection.headers, self._state.settings
        _nothing_in_url(connection)
        peer = connection.client.host if connection.client else ""
        address = address_of(peer, headers.getlist("x-forwarded-for"), settings.trusted)
        cookie = _cookie(headers, cookie_name(connection.scope, settings.public_url))
        path: str = connection.scope["path"]  # `url` would believe the header Host
        of_devices = OF_DEVICES.match(path) is not None
        try:
            if "authorization" in headers and not of_devices:
                return await self._by_token(headers, address)
            if cookie is not None and not of_devices:
                found = await self._by_session(cookie, address)
                if found is not None:
                    return found
                if _API.match(path):
                    cleared = {"set-cookie": clearing(connection.scope, settings.public_url)}
                    raise self._failed(address, "Your session is over. Log in again.", cleared)
        except LogError as error:
            raise ProblemError(
                problems.LOG_AWAY, "Who you are can't be looked up now.", headers={"retry-after": "1"}
            ) from error
        if settings.open and why_not_local(peer, headers) is None:
            return SignedIn(caller("operator", "this machine"), address, "machine")
        nobody = caller("viewer", "anybody") if settings.open else PUBLIC
        return SignedIn(nobody, address, "nobody")

    async def _by_token(self, headers: Headers, address: str) -> SignedIn:
        given = headers.getlist("authorization")
        scheme, _, text = given[0].partition(" ")
        if len(given) != 1 or scheme.lower() != "bearer":
            raise self._failed(address, "Use one header `Authorization: Bearer <token>`.")
        text = text.strip()
        if TOKEN.fullmatch(text) is None:
            raise self._failed(address, "This is no token of headcount: they begin with `hc_`.")
        tokens = self._state.services.token_store
        # who guesses too often costs the core no more questions; who has a token isn't kept out by neighbours
        guessing = not self._state.limits.failures.look(address, time.monotonic()).allowed
        token = None if guessing and not tokens.known(text) else await tokens.check(text)
        if token is None:
            raise self._failed(address, "There is no such token, or it was revoked, or its time is over.")
        try:
            who = caller_of_token(token)
        except AccessError as error:
            raise self._failed(address, f"{error}.") from error
        return SignedIn(who, f"token {token.id}", "token", holds=lambda: tokens.holds(token))

    async def _by_session(self, value: str, address: str) -> SignedIn | None:
        if self._state.limits.failures.look(
            address, time.monotonic()
        ).allowed or self._state.services.session_store.known(value):
            session = await self._state.services.session_store.check(value)
        else:
            session = None
        if session is None:
            return None
        sessions = self._state.services.session_store
        who = caller_of_session(session)
        return SignedIn(who, who.subject, "session", session, lambda: sessions.known(value))

    def _failed(self, address: str, detail: str, headers: Mapping[str, str] | None = None) -> ProblemError:
        """The answer to a sign-in that failed; to one too many, another."""
        answer = self._state.limits.failures.take(address, time.monotonic())
        if not answer.allowed:
            return too_many("Too many sign-ins from your address have failed.", answer)
        challenge = {"www-authenticate": 'Bearer error="invalid_token"'}
        return ProblemError(
            problems.SIGN_IN, f"{detail} {problems.SIGN_IN.meaning}", headers={**challenge, **(headers or {})}
        )

    def _limit(self, connection: HTTPConnection, who: SignedIn) -> RateLimitResult | None:
        """What is left to them; None: they aren't limited."""
        peer = connection.client.host if connection.client else ""
        # All those behind a balancer that doesn't say from where they come would share one limit.
        unknown = (
            is_balancer(peer, self._state.settings.trusted) and "x-forwarded-for" not in connection.headers
        )
        if connection.scope["path"] in _UNLIMITED or (unknown and who.by in ("machine", "nobody")):
            return None
        answer = self._state.limits.requests.take(who.key, time.monotonic())
        if not answer.allowed:
            raise too_many(f"{who.caller.subject.capitalize()} asks too often.", answer)
        return answer

    def _telling(self, send: Send, who: SignedIn, rate: RateLimitResult) -> Send:
        limiter = self._state.limits.requests
        name = "token" if who.by == "token" else "session" if who.by == "session" else "address"

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["ratelimit-policy"] = f'"{name}";q={limiter.burst};w={math.ceil(limiter.window_s)}'
                headers["ratelimit"] = f'"{name}";r={rate.remaining};t={math.ceil(rate.full_s)}'
            await send(message)

        return telling

    async def _while_it_holds(self, who: SignedIn, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a stream until its token or session is none any more."""
        state = {"started": False, "done": False}

        async def noting(message: Message) -> None:
            state["started"] |= message["type"] in ("http.response.start", "websocket.accept")
            state["done"] |= message["type"] == "websocket.close" or (
                message["type"] == "http.response.body" and not message.get("more_body", False)
            )
            await send(message)

        async def serve() -> None:
            await self._app(scope, receive, noting)

        serving = asyncio.create_task(serve(), name="stream")
        try:
            while not serving.done() and who.holds is not None and who.holds():
                await asyncio.wait({serving}, timeout=_LOOK_S)
            if serving.done():
                await serving
                return
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
        if state["started"] and not state["done"]:
            _log.info("%s has no right to a live stream any more", who.caller.subject.partition(" ")[0])
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": "signed out"})
            else:
                await send({"type": "http.response.body", "body": b"", "more_body": False})


def too_many(detail: str, answer: RateLimitResult) -> ProblemError:
    """Return the problem of a rate limit that was reached."""
    wait_s = max(1, math.ceil(answer.retry_s))
    headers = {"retry-after": str(wait_s)}
    return ProblemError(problems.TOO_OFTEN, f"{detail} Try again in {wait_s} s.", headers=headers)


def _nothing_in_url(connection: HTTPConnection) -> None:
    """Addresses end in logs, histories and other sites' hands: no secret of ours may be in one."""
    query = connection.scope.get("query_string", b"")
    if b"access_token" not in query and b"hc_" not in query:
        return
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name == "access_token" or TOKEN.search(value):
            raise ProblemError(problems.TOKEN_IN_URL, problems.TOKEN_IN_URL.meaning)


def _cookie(headers: Headers, name: str) -> str | None:
    for header in headers.getlist("cookie"):
        with contextlib.suppress(CookieError):
            found = SimpleCookie(header).get(name)
            if found is not None:
                return found.value
    return None


def _same_origin(connection: HTTPConnection, who: SignedIn, public_url: str) -> None:
    """Where a browser's cookie is what counts, only our own pages may use it to change something."""
    if who.session is None:
        return
    websocket = connection.scope["type"] == "websocket"
    unsafe = not websocket and connection.scope["method"] not in SAFE
    if not (websocket or unsafe):
        return
    ours = urlsplit(base_url(connection, public_url))
    origin = urlsplit(connection.headers.get("origin", ""))
    same = origin.netloc == ours.netloc and (origin.scheme == ours.scheme)
    if not same:
        raise ProblemError(
            problems.CROSS_SITE, f"This comes from a page of another origin. {problems.CROSS_SITE.meaning}"
        )
    given = connection.headers.get(CSRF_HEADER, "")
    if unsafe and not compare_digest(given.encode(), who.session.csrf.encode()):
        raise ProblemError(
            problems.CROSS_SITE,
            f"The header Headcount-CSRF is missing or wrong. {problems.CROSS_SITE.meaning}",
        )


def _most(path: str) -> int:
    return _MAX_IMPORT if path.endswith("/devices.csv") else _MAX_BODY


def _short_enough(connection: HTTPConnection) -> None:
    length = connection.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or int(length[:20]) > _most(connection.scope["path"]):
        raise _too_long(connection.scope["path"])


def _too_long(path: str) -> ProblemError:
    return ProblemError(problems.TOO_LONG, f"At most {_most(path)} bytes are taken here.")


def _bounded(receive: Receive, path: str) -> Receive:
    """A body that doesn't say how long it is ends in 413 where it is too long."""
    taken, most = 0, _most(path)

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(problems.TOO_LONG.status)
        return message

    return bounded


async def _refuse(scope: Scope, receive: Receive, send: Send, error: ProblemError) -> None:
    answer = _answer(error.kind, error.detail, scope["path"], error.headers)
    if scope["type"] == "http":
        await answer(scope, receive, send)
        return
    await receive()  # websocket.connect
    if "websocket.http.response" in scope.get("extensions", {}):
        headers = [(name, value) for name, value in answer.raw_headers if name != b"content-length"]
        start = {"type": "websocket.http.response.start", "status": answer.status_code, "headers": headers}
        await send(start)
        await send({"type": "websocket.http.response.body", "body": answer.body})
    else:
        await send({"type": "websocket.close", "code": 1008})


def _answer(kind: ProblemType, detail: str, path: str, headers: Mapping[str, str]) -> Response:
    return problems.response(problems.document(kind, detail, path), headers)
