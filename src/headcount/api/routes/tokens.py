"""API tokens: list, create, revoke; and end people's sessions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from headcount.access.roles import Caller
from headcount.api.middleware.authorization import RequireScope
from headcount.api.parameters import TokenId
from headcount.api.schemas import access
from headcount.api.state import State

router = APIRouter(prefix="/v1", tags=["access"])
Maker = Annotated[Caller, Depends(RequireScope("tokens:write", of_caller=True))]


@router.get("/tokens", summary="List tokens", response_description="The tokens on your sites, oldest first")
async def list_tokens(state: State, actor: Maker) -> access.TokenListResponse:
    """List all tokens, expired ones among them, without their secrets: only hashes of these are stored."""
    tokens = await state.services.tokens.all(actor)
    return access.TokenListResponse(tokens=list(map(access.TokenResponse.of, tokens)))


@router.post(
    "/tokens",
    summary="Create a token",
    status_code=201,
    response_description="The token, which cannot be read again",
)
async def create_token(body: access.TokenCreate, state: State, actor: Maker) -> access.TokenCreatedResponse:
    """Create a token. You can only grant scopes and sites that you have yourself."""
    token, text = await state.services.tokens.add(
        actor, body.name, body.role, sites=body.sites, scopes=body.scopes, expires=body.expires
    )
    return access.TokenCreatedResponse.of(token, token=text)


@router.delete(
    "/tokens/{id}",  # noqa: FAST003  # the alias of `TokenId`
    summary="Revoke a token",
    status_code=204,
    response_class=Response,
    openapi_extra={"x-problems": ["unknown-token"]},
)
async def delete_token(id_: TokenId, state: State, actor: Maker) -> Response:
    """Revoke a token. It is rejected within 2 s, and streams that it opened end."""
    await state.services.tokens.revoke(actor, id_)
    return Response(status_code=204)


@router.post("/sessions/end", summary="End a person's sessions", response_description="How many there were")
async def end_sessions(body: access.SessionsEnd, state: State, actor: Maker) -> access.SessionsEndResponse:
    """Log a person out of your sites. The identity provider decides whether they can log in again."""
    return access.SessionsEndResponse(ended=await state.services.sessions.end_all(actor, body.subject))
