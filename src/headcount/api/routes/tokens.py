"""API tokens: who has them, new ones, and taking them back; and ending people's sessions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response
from pydantic import Field

from headcount.access.roles import Caller, Scope
from headcount.access.tokens import MAX_NAME, MAX_SITES, TOKEN_ID_PATTERN, RightsError
from headcount.api.middleware.authorization import Require
from headcount.api.parameters import Moment
from headcount.api.schemas import examples, responses
from headcount.api.schemas.examples import failures, success
from headcount.api.schemas.problems import NOT_ALLOWED, UNKNOWN_TOKEN, ProblemError, invalid
from headcount.api.services import Parts, parts_of
from headcount.errors import AccessError
from headcount.messages.records import Token
from headcount.messages.times import iso
from headcount.messages.topics import ID_PATTERN

router = APIRouter(prefix="/v1", tags=["access"])
Running = Annotated[Parts, Depends(parts_of)]
Maker = Annotated[Caller, Depends(Require("tokens:write"))]
Site = Annotated[str, Field(pattern=f"^{ID_PATTERN}$")]


class NewToken(responses.Shape):
    """What a token is to be."""

    name: str = Field(min_length=1, max_length=MAX_NAME, description="What it is for.")
    role: responses.TokenRole
    sites: list[Site] = Field([], max_length=MAX_SITES, description="Only these; none = all.")
    scopes: list[Scope] = Field([], max_length=50, description="Of the role's only these; none = all.")
    expires: Moment | None = Field(None, description="After this it is nothing; null = never.")


class EndSessions(responses.Shape):
    """Whose sessions end."""

    subject: str = Field(min_length=1, max_length=200, description="As the identity provider calls them.")


@router.get(
    "/tokens",
    summary="All tokens",
    responses=success("Those on your sites, oldest first", examples.TOKENS),
)
async def tokens(parts: Running, who: Maker) -> responses.TokensShape:
    """All tokens, also those whose time is over; never their secrets, which nobody has but their owners."""
    return responses.TokensShape(tokens=[_shape(token) for token in await parts.tokens.all(who)])


@router.post(
    "/tokens",
    summary="Make a token",
    status_code=201,
    responses={
        201: {
            "description": "The token: told here and never again",
            "content": {"application/json": {"example": examples.NEW_TOKEN}},
        },
        **failures("not-allowed", "invalid-parameter", "too-long"),
    },
)
async def add(wanted: NewToken, parts: Running, who: Maker) -> responses.MadeTokenShape:
    """Make a token. Nobody can give it a scope or a site that they don't have themselves."""
    try:
        token, text = await parts.tokens.add(
            wanted.name,
            wanted.role,
            sites=wanted.sites,
            scopes=wanted.scopes,
            expires=wanted.expires,
            by=who,
        )
    except RightsError as error:
        raise ProblemError(NOT_ALLOWED, f"{error}.") from error
    except AccessError as error:
        raise invalid(error.what.partition(" ")[0], error.problem) from error
    detail = {"role": token.role, "sites": ", ".join(token.sites), "scopes": ", ".join(token.scopes)}
    await parts.audit.record("token.add", who.subject, f"token {token.id}", detail)
    return responses.MadeTokenShape(**dict(_shape(token)), token=text)


@router.delete(
    "/tokens/{id}",
    summary="Revoke a token",
    status_code=204,
    response_class=Response,
    responses=failures("not-allowed", "unknown-token", "invalid-parameter"),
)
async def revoke(
    id_: Annotated[
        str, Path(alias="id", pattern=f"^{TOKEN_ID_PATTERN}$", description="As GET /v1/tokens has it.")
    ],
    parts: Running,
    who: Maker,
) -> Response:
    """Take a token back: it is refused within 2 s, and streams that it opened end."""
    try:
        await parts.tokens.revoke(id_, who)
    except RightsError as error:
        raise ProblemError(NOT_ALLOWED, f"{error}.") from error
    except AccessError as error:
        raise ProblemError(UNKNOWN_TOKEN, f"There is no token {id_!r} that you may see.") from error
    await parts.audit.record("token.revoke", who.subject, f"token {id_}")
    return Response(status_code=204)


@router.post(
    "/sessions/end",
    summary="End somebody's sessions",
    responses={**success("How many there were", {"ended": 2}), **failures("invalid-parameter", "too-long")},
)
async def end_sessions(whose: EndSessions, parts: Running, who: Maker) -> responses.EndedShape:
    """Log a person out, of all that is on your sites. Whether they can log in again is the identity provider's to say."""
    ended = await parts.sessions.close_all(whose.subject, who.sites)
    await parts.audit.record("session.end", who.subject, f"person {whose.subject}", {"sessions": ended})
    return responses.EndedShape(ended=ended)


def _shape(token: Token) -> responses.TokenShape:
    return responses.TokenShape(
        id=token.id,
        name=token.name,
        role=token.role,
        sites=token.sites,
        scopes=token.scopes,
        created=iso(token.created),
        expires=None if token.expires is None else iso(token.expires),
    )
