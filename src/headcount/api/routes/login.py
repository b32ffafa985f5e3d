"""Log in and out on the web page, and describe the caller."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from headcount.access.oidc_provider import LOGIN_TIMEOUT_S
from headcount.api.cookies import cookie_name, session_cookie, set_cookie
from headcount.api.middleware.identity import identity_of
from headcount.api.public_url import base_url
from headcount.api.schemas import access
from headcount.api.schemas.problems import ProblemError
from headcount.api.state import ApiState, State
from headcount.errors import LoginError
from headcount.messages.times import iso

CALLBACK = "/login/callback"
_MAX_NEXT = 500
_MAX_QUERY = 4096
_SEE_OTHER = 303

router = APIRouter(tags=["access"])
_log = logging.getLogger(__name__)


@router.get("/login", include_in_schema=False)
async def start_login(
    request: Request, state: State, next_: Annotated[str, Query(alias="next", max_length=_MAX_NEXT)] = "/"
) -> Response:
    """Send the browser to the identity provider."""
    client = state.oidc_client()
    public_url = state.settings.public_url
    with _failures_limited(request, state):
        started = await client.start(f"{base_url(request, public_url)}{CALLBACK}", _own_path(next_))
    answer = RedirectResponse(started.url, _SEE_OTHER)
    set_cookie(answer, request, public_url, started.cookie, LOGIN_TIMEOUT_S, login=True)
    return answer


@router.get(CALLBACK, include_in_schema=False)
async def finish_login(request: Request, state: State) -> Response:
    """Open a session for the person whom the identity provider has authenticated."""
    client = state.oidc_client()
    public_url = state.settings.public_url
    cookie = request.cookies.get(cookie_name(request, public_url, login=True), "")
    with _failures_limited(request, state):
        if len(request.url.query) > _MAX_QUERY:
            raise LoginError("the answer is too long")
        person, next_path = await client.finish(request.query_params, cookie)
    value, _ = await state.services.sessions.open(
        person.subject, person.name, person.role, person.sites, replacing=session_cookie(request, public_url)
    )
    answer = RedirectResponse(next_path, _SEE_OTHER)
    set_cookie(answer, request, public_url, value)
    set_cookie(answer, request, public_url, "", 0, login=True)
    return answer


@router.post("/logout", include_in_schema=False, status_code=204)
async def log_out(request: Request, state: State) -> Response:
    """End the browser's session here; its session at the identity provider continues."""
    identity = identity_of(request)
    public_url = state.settings.public_url
    value = session_cookie(request, public_url)
    if identity.session is not None and value is not None:
        await state.services.sessions.close(identity.caller, value)
    answer = Response(status_code=204)
    set_cookie(answer, request, public_url, "", 0)
    return answer


@router.get("/v1/whoami", summary="Get the caller's identity and rights", response_description="The caller")
async def get_caller(request: Request, state: State) -> access.WhoAmIResponse:
    """Return who sent the request (a token, a session, this machine or anybody), and their scopes.

    `login` states whether people can log in on the web page.
    """
    identity = identity_of(request)
    caller, session = identity.caller, identity.session
    return access.WhoAmIResponse(
        subject=caller.subject,
        role=caller.role,
        scopes=sorted(caller.scopes),
        sites=sorted(caller.sites),
        name=None if session is None else session.name,
        csrf=None if session is None else session.csrf,
        expires=None if session is None else iso(session.expires),
        login=state.settings.oidc is not None,
    )


@contextlib.contextmanager
def _failures_limited(request: Request, state: ApiState) -> Iterator[None]:
    try:
        yield
    except LoginError as error:
        _log.info("a login failed: %s", error.problem)
        raise login_failure(request, state) or error from None


def login_failure(request: Request, state: ApiState) -> ProblemError | None:
    """Count a failed login; return the problem if there are too many."""
    return state.limits.failure(
        f"login {identity_of(request).key}", "Too many logins from your address have failed."
    )


def _own_path(path: str) -> str:
    """Return a path of this API's pages; anything that could lead elsewhere becomes the first page."""
    plain = path.startswith("/") and path.isprintable() and path.isascii() and "\\" not in path
    return path if plain and not path.startswith("//") else "/"
