"""Cookies of the web page's login and session."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.responses import Response

from headcount.access.sessions import LIFETIME_S
from headcount.api.public_url import is_secure


def session_cookie_name(connection: HTTPConnection, public_url: str) -> str:
    """Return the session cookie's name: where possible, with the prefix that binds it to this host."""
    return "__Host-headcount" if is_secure(connection, public_url) else "headcount"


def session_cookie(connection: HTTPConnection, public_url: str) -> str | None:
    """Return the value of a request's session cookie."""
    return connection.cookies.get(session_cookie_name(connection, public_url))


def login_cookie_name(connection: HTTPConnection, public_url: str) -> str:
    """Return the name of the cookie that holds a login's state."""
    return f"{session_cookie_name(connection, public_url)}-login"


def set_session_cookie(response: Response, connection: HTTPConnection, public_url: str, value: str) -> None:
    """Start a session in the browser."""
    _set(response, connection, public_url, session_cookie_name(connection, public_url), value, LIFETIME_S)


def clear_session_cookie(response: Response, connection: HTTPConnection, public_url: str) -> None:
    """End the session in the browser."""
    _set(response, connection, public_url, session_cookie_name(connection, public_url), "", 0)


def set_login_cookie(
    response: Response, connection: HTTPConnection, public_url: str, value: str, max_age_s: int
) -> None:
    """Store a login's state in the browser; with an empty value, delete it."""
    _set(response, connection, public_url, login_cookie_name(connection, public_url), value, max_age_s)


def _set(
    response: Response, connection: HTTPConnection, public_url: str, name: str, value: str, max_age_s: int
) -> None:
    response.set_cookie(
        name,
        value,
        max_age=max_age_s,
        path="/",
        secure=is_secure(connection, public_url),
        httponly=True,
        samesite="lax",  # the identity provider sends the browser back from another site
    )
