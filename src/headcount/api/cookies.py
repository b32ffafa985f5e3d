"""Cookies of the web page's login and session."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.responses import Response

from headcount.access.sessions import LIFETIME_S
from headcount.api.public_url import is_secure


def cookie_name(connection: HTTPConnection, public_url: str, *, login: bool = False) -> str:
    """Return the name of the cookie of a session or of a login's state; with TLS, its prefix binds it to this host."""
    name = "__Host-headcount" if is_secure(connection, public_url) else "headcount"
    return f"{name}-login" if login else name


def session_cookie(connection: HTTPConnection, public_url: str) -> str | None:
    """Return the value of a request's session cookie."""
    return connection.cookies.get(cookie_name(connection, public_url))


def set_cookie(
    response: Response,
    connection: HTTPConnection,
    public_url: str,
    value: str,
    max_age_s: int = LIFETIME_S,
    *,
    login: bool = False,
) -> None:
    """Store a session or a login's state in the browser; 0 seconds delete it."""
    response.set_cookie(
        cookie_name(connection, public_url, login=login),
        value,
        max_age=max_age_s,
        path="/",
        secure=is_secure(connection, public_url),
        httponly=True,
        samesite="lax",  # the identity provider sends the browser back from another site
    )
