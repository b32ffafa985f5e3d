"""The caller, API tokens and sessions."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from headcount.access.roles import Scope
from headcount.access.tokens import MAX_NAME, MAX_SITES
from headcount.api.parameters import Moment
from headcount.api.schemas.base import Schema
from headcount.messages.records import AccessRole, ApiToken
from headcount.messages.times import iso, iso_or_none
from headcount.messages.topics import ID_PATTERN

_Site = Annotated[str, Field(pattern=f"^{ID_PATTERN}$")]


class WhoAmIResponse(Schema):
    """The caller and their rights."""

    subject: str = Field(description="As the audit log names the caller.")
    role: AccessRole
    scopes: list[str]
    sites: list[str] = Field(description="Sites that the scopes apply to; empty = all.")
    name: str | None = Field(description="The name of a person who has logged in.")
    csrf: str | None = Field(description="With a session: the value for the header Headcount-CSRF.")
    expires: str | None = Field(description="When the session ends.")
    login: bool = Field(description="Whether people can log in, at /login.")


class TokenCreate(Schema):
    """The token to create."""

    name: str = Field(min_length=1, max_length=MAX_NAME, description="Its purpose.")
    role: Literal["viewer", "operator", "admin"]
    sites: list[_Site] = Field([], max_length=MAX_SITES, description="Only these sites; empty = all.")
    scopes: list[Scope] = Field(
        [], max_length=50, description="Only these scopes of the role; empty = all of them."
    )
    expires: Moment | None = Field(None, description="When it expires; null = never.")


class TokenResponse(Schema):
    """A token, without its secret."""

    id: str
    name: str
    role: AccessRole
    sites: list[str] = Field(description="Empty = all.")
    scopes: list[str] = Field(description="Empty = all of the role's.")
    created: str
    expires: str | None

    @classmethod
    def of(cls, stored: ApiToken, **more: Any) -> Self:
        """Describe a stored token."""
        return cls(
            id=stored.id,
            name=stored.name,
            role=stored.role,
            sites=stored.sites,
            scopes=stored.scopes,
            created=iso(stored.created),
            expires=iso_or_none(stored.expires),
            **more,
        )


class TokenListResponse(Schema):
    """Tokens, oldest first."""

    tokens: list[TokenResponse]


class TokenCreatedResponse(TokenResponse):
    """A new token."""

    token: str = Field(description="Send it as `Authorization: Bearer …`; it cannot be read again.")


class SessionsEnd(Schema):
    """The person whose sessions end."""

    subject: str = Field(
        min_length=1, max_length=200, description="The person, as the identity provider names them."
    )


class SessionsEndResponse(Schema):
    """How many sessions were ended."""

    ended: int
