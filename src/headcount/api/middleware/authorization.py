"""Required scopes and reasons, as dependencies of endpoints."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Query
from starlette.requests import HTTPConnection

from headcount.access.roles import Caller, Scope
from headcount.api.middleware.identity import caller_of
from headcount.api.schemas.problems import NOT_ALLOWED, SIGN_IN, ProblemError
from headcount.api.state import check_visible, state_of

MIN_REASON, MAX_REASON = 3, 200


class RequireScope:
    """A dependency: the caller, who has one of these scopes on the site in the path.

    A path without a site is about all sites; with `of_caller`, about those of the caller, which the service ensures.
    """

    def __init__(self, *scopes: Scope, of_caller: bool = False) -> None:
        self.scopes = scopes
        self._of_caller = of_caller

    async def __call__(self, connection: HTTPConnection) -> Caller:
        """Return the caller.

        Raises:
            ProblemError: `unknown-site` for callers who may not see it, `sign-in` for anonymous callers, `not-allowed`
                for others.
        """
        caller, state = await caller_of(connection), state_of(connection)
        site = connection.path_params.get("site")
        if site is not None:
            check_visible(state, caller, site)
            covered = True
        else:
            sees = [caller.sees(served.id) for served in state.live.current]
            covered = any(sees) if self._of_caller else all(sees)
        if covered and any(caller.may(scope) for scope in self.scopes):
            return caller
        raise missing_scope(caller, *self.scopes)


def missing_scope(caller: Caller, *scopes: Scope) -> ProblemError:
    """Return the problem of a caller without these scopes: `sign-in` or `not-allowed`."""
    if caller.role == "public":
        return ProblemError(SIGN_IN, SIGN_IN.meaning, headers={"www-authenticate": "Bearer"})
    wanted = " or ".join(repr(scope) for scope in scopes)
    return ProblemError(NOT_ALLOWED, f"{caller.subject} has no scope {wanted} here.")


def _reason(
    header: Annotated[
        str | None,
        Header(
            alias="Headcount-Reason",
            max_length=MAX_REASON,
            description="The reason for reading exact positions; it goes into the audit log.",
            examples=["search for a missing person, case 12"],
        ),
    ] = None,
    reason: Annotated[
        str | None,
        Query(max_length=MAX_REASON, description="The reason, for clients that cannot set headers."),
    ] = None,
) -> str | None:
    """Return the caller's reason; None if it is missing or too short."""
    text = " ".join((header or reason or "").split())
    return text if len(text) >= MIN_REASON else None


#: In an endpoint's parameters: `reason: Reason = None`.
Reason = Annotated[str | None, Depends(_reason)]
