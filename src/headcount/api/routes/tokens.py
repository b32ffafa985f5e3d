"""API tokens: list, create, revoke; and end people's sessions."""

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
from headcount.api.state import State
from headcount.errors import AccessError
from headcount.messages.records import Token
from headcount.messages.times import iso
from headcount.messages.topics import ID_PATTERN

router = APIRouter(prefix="/v1", tags=["access"])
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
    summary="List tokens",
    responses=success("The tokens on your sites, oldest first", examples.TOKENS),
)
async def list_tokens(state: State, actor: Maker) -> responses.TokensShape:
    """List all tokens, expired ones among them, without their secrets: only hashes of these are stored."""
    tokens = await state.services.tokens.all(actor)
    return responses.TokensShape(tokens=[_shape(token) for token in tokens])


@router.post(
    "/tokens",
    summary="Create a token",
    status_code=201,
    responses={
        201: {
            "description": "The token, which cannot be read again",
            "content": {"application/json": {"example": examples.NEW_TOKEN}},
        },
        **failures("not-allowed", "invalid-parameter", "too-long"),
    },
)
async def create_token(body: NewToken, state: State, actor: Maker) -> responses.MadeTokenShape:
    """Create a token. You can only grant scopes and sites that you have yourself."""
    try:
        token, text = await state.services.tokens.add(
            actor, body.name, body.role, sites=body.sites, scopes=body.scopes, expires=body.expires
        )
    except RightsError as error:
        raise ProblemError(NOT_ALLOWED, f"{error}.") from error
    except AccessError as error:
        raise invalid(error.what.partition(" ")[0], error.problem) from error
    return responses.MadeTokenShape(**dict(_shape(token)), token=text)


@router.delete(
    "/tokens/{id}",
    summary="Revoke a token",
    status_code=204,
    response_class=Response,
    responses=failures("not-allowed", "unknown-token", "invalid-parameter"),
)
async def delete_token(
    id_: Annotated[
        str, Path(alias="id", pattern=f"^{TOKEN_ID_PATTERN}$", description="As GET /v1/tokens returns it.")
    ],
    state: State,
    actor: Maker,
) -> Response:
    """Revoke a token. It is rejected within 2 s, and streams that it opened end."""
    try:
        await state.services.tokens.revoke(actor, id_)
    except RightsError as error:
        raise ProblemError(NOT_ALLOWED, f"{error}.") from error
    except AccessError as error:
        raise ProblemError(UNKNOWN_TOKEN, f"There is no token {id_!r} that you may see.") from error
    return Response(status_code=204)


@router.post(
    "/sessions/end",
    summary="End a person's sessions",
    responses={**success("How many there were", {"ended": 2}), **failures("invalid-parameter", "too-long")},
)
async def end_sessions(body: EndSessions, state: State, actor: Maker) -> responses.EndedShape:
    """Log a person out of your sites. The identity provider decides whether they can log in again."""
    return responses.EndedShape(ended=await state.services.sessions.end_all(actor, body.subject))


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
