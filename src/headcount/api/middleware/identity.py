"""The identity of a request's sender, as authentication found it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends
from starlette.requests import HTTPConnection

from headcount.access.roles import PUBLIC, Caller
from headcount.messages.records import WebSession


@dataclass(frozen=True, slots=True)
class Identity:
    """A request's sender, and how they were authenticated."""

    caller: Caller
    #: For rate limits: a token, a person or an address.
    key: str
    by: Literal["token", "session", "machine", "anonymous"]
    session: WebSession | None = None
    is_still_valid: Callable[[], bool] | None = None  # whether the token or session has not been revoked


def identity_of(connection: HTTPConnection) -> Identity:
    """Return the sender of a request; anonymous where authentication did not run."""
    found = connection.scope.get("state", {}).get("identity")
    return found if isinstance(found, Identity) else Identity(PUBLIC, "", "anonymous")


def set_identity(connection: HTTPConnection, identity: Identity) -> None:
    """Attach the sender to a request."""
    connection.scope.setdefault("state", {})["identity"] = identity


async def caller_of(connection: HTTPConnection) -> Caller:
    """Return the caller. Where everything is open, anybody is a viewer, a program on this machine an operator."""
    return identity_of(connection).caller


#: A parameter of endpoints: the caller, whatever their rights.
AnyCaller = Annotated[Caller, Depends(caller_of)]
