"""Logging in on the web page, and who one is."""

from __future__ import annotations

import logging
import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from headcount.access.oidc import OidcClient
from headcount.access.rate_limiter import address_of
from headcount.access.sessions import LIFE_S
from headcount.api.middleware.authentication import (
    base_url,
    clearing,
    cookie_name,
    is_secure,
    session_cookie,
    too_many,
)
from headcount.api.middleware.authorization import signed_in
from headcount.api.schemas import access
from headcount.api.schemas.problems import LOGIN_FAILED, NO_LOGIN, ProblemError
from headcount.api.schemas.responses import success
from headcount.api.state import ApiState, State
from headcount.errors import AccessError
from headcount.messages.times import iso

CALLBACK = "/login/callback"
_BEGUN_S = 600
_MAX_NEXT = 500
_MAX_QUERY = 4096
_SEE_OTHER = 303

router = APIRouter(tags=["access"])
_log = logging.getLogger(__name__)


@router.get("/login", include_in_schema=False)
async def login(
    request: Request, state: State, next_: Annotated[str, Query(alias="next", max_length=_MAX_NEXT)] = "/"
) -> Response:
    """Send the browser to the identity provider."""
    provider = _provider(state)
    _not_too_often(request, state)
    public = state.settings.public_url
    try:
        begun = await provider.begin(f"{base_url(request, public)}{CALLBACK}", _ours(next_))
    except AccessError as error:
        raise _failed(error) from error
    answer = RedirectResponse(begun.url, _SEE_OTHER)
    answer.set_cookie(
        _begun_name(request, public),
        begun.cookie,
        max_age=_BEGUN_S,
        path="/",
        secure=is_secure(request.scope, public),
        httponly=True,
        samesite="lax",  # the browser comes back from another site
    )
    return answer


@router.get(CALLBACK, include_in_schema=False)
async def callback(request: Request, state: State) -> Response:
    """End a login with what the identity provider has sent the browser back with."""
    provider = _provider(state)
    _not_too_often(request, state)  # each is a question to the provider
    public = state.settings.public_url
    if len(request.url.query) > _MAX_QUERY:
        raise _failed(AccessError("login", "the answer is too long"))
    try:
        person, next_path = await provider.end(
            request.query_params, request.cookies.get(_begun_name(request, public), "")
        )
    except AccessError as error:
        _log.info("a login failed: %s", error.problem)
        raise _failed(error) from error
    former = request.cookies.get(cookie_name(request.scope, public))
    value, _ = await state.services.sessions.open(
        person.subject, person.name, person.role, person.sites, replacing=former
    )
    answer = RedirectResponse(next_path, _SEE_OTHER)
    answer.headers.append("set-cookie", session_cookie(request.scope, public, value, LIFE_S))
    answer.delete_cookie(
        _begun_name(request, public), path="/", secure=is_secure(request.scope, public), httponly=True
    )
    return answer


@router.post("/logout", include_in_schema=False, status_code=204)
async def logout(request: Request, state: State) -> Response:
    """End the browser's session here; the identity provider's own goes on."""
    who = signed_in(request)
    public = state.settings.public_url
    value = request.cookies.get(cookie_name(request.scope, public))
    if who.session is not None and value is not None:
        await state.services.sessions.close(who.caller, value)
    return Response(status_code=204, headers={"set-cookie": clearing(request.scope, public)})


@router.get(
    "/v1/whoami",
    summary="Who you are here",
    responses=success("Who asks, and what they may", access.WHOAMI),
)
async def whoami(request: Request, state: State) -> access.WhoAmIResponse:
    """Who asks, by token, session or place, what they may, and whether people can log in on the web page."""
    who = signed_in(request)
    return access.WhoAmIResponse(
        subject=who.caller.subject,
        role=who.caller.role,
        scopes=sorted(who.caller.scopes),
        sites=sorted(who.caller.sites),
        name=None if who.session is None else who.session.name,
        csrf=None if who.session is None else who.session.csrf,
        expires=None if who.session is None else iso(who.session.expires),
        login=state.settings.oidc is not None,
    )


def _provider(state: ApiState) -> OidcClient:
    provider = state.login
    if provider is None:
        raise ProblemError(NO_LOGIN, NO_LOGIN.meaning)
    return provider


def _not_too_often(request: Request, state: ApiState) -> None:
    peer = request.client.host if request.client else ""
    address = address_of(peer, request.headers.getlist("x-forwarded-for"), state.settings.trusted)
    answer = state.limits.logins.take(address, time.monotonic())
    if not answer.allowed:
        raise too_many("Too many logins start at your address.", answer)


def _begun_name(request: Request, public_url: str) -> str:
    return f"{cookie_name(request.scope, public_url)}-login"


def _ours(path: str) -> str:
    """A path on our own pages; what could lead anywhere else leads to the first page."""
    plain = path.startswith("/") and path.isprintable() and path.isascii() and "\\" not in path
    return path if plain and not path.startswith("//") else "/"


def _failed(error: AccessError) -> ProblemError:
    return ProblemError(
        LOGIN_FAILED, f"{error.problem[:1].upper()}{error.problem[1:]}. {LOGIN_FAILED.meaning}"
    )
