"""Sign in on the web page without an identity provider: with a one-time link or a token."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from headcount.api.cookies import session_cookie, set_cookie
from headcount.api.public_url import is_same_origin
from headcount.api.routes.login import login_failure
from headcount.api.schemas.base import Schema
from headcount.api.schemas.problems import CROSS_SITE, ProblemError, invalid
from headcount.api.state import State
from headcount.errors import LoginError

router = APIRouter(tags=["access"])
_Secret = Annotated[str | None, Field(max_length=200)]


class SignIn(Schema):
    """The code of a one-time link, or a token."""

    code: _Secret = None
    token: _Secret = None


@router.post("/login", include_in_schema=False, status_code=204)
async def sign_in(body: SignIn, request: Request, state: State) -> Response:
    """Open a session; its cookie is hidden from scripts. Only the page itself may do this, not one of another origin."""
    public_url = state.settings.public_url
    if not is_same_origin(request, public_url):
        raise ProblemError(CROSS_SITE, f"This does not come from the page. {CROSS_SITE.meaning}")
    sessions, replacing = state.services.sessions, session_cookie(request, public_url)
    try:
        if body.code is not None and body.token is None:
            value, session = await sessions.open_by_link(body.code, replacing)
        elif body.token is not None and body.code is None:
            value, session = await sessions.open_by_token(body.token.strip(), replacing)
        else:
            raise invalid("body", "must have either code or token")
    except LoginError as error:
        raise login_failure(request, state) or error from None
    answer = Response(status_code=204)
    set_cookie(answer, request, public_url, value, max(1, int(session.expires - time.time())))
    return answer
