"""API tokens and sessions of people."""

from __future__ import annotations

from collections.abc import Sequence

from headcount.access.roles import Caller
from headcount.access.sessions import SessionStore, caller_of_session
from headcount.access.tokens import TokenStore
from headcount.messages.records import AccessRole, ApiToken, WebSession
from headcount.services.audit import AuditTrail


class TokenService:
    """Operations on API tokens; every method raises LogError if the core does not answer."""

    def __init__(self, tokens: TokenStore, audit: AuditTrail) -> None:
        self._tokens = tokens
        self._audit = audit

    async def add(
        self,
        actor: Caller,
        name: str,
        role: AccessRole,
        *,
        sites: Sequence[str] = (),
        scopes: Sequence[str] = (),
        expires: float | None = None,
    ) -> tuple[ApiToken, str]:
        """Create a token; return it with its text, which cannot be read again.

        Raises:
            RightsError: it would have more rights than `actor`.
            AccessError: a value is not valid, or there are too many tokens.
        """
        token, text = await self._tokens.prepare(
            name, role, sites=sites, scopes=scopes, expires=expires, by=actor
        )
        detail = {"role": role, "sites": ", ".join(token.sites), "scopes": ", ".join(token.scopes)}
        await self._audit.record(actor, "token.add", f"token {token.id}", detail)
        await self._tokens.store(token)
        return token, text

    async def all(self, actor: Caller) -> list[ApiToken]:
        """Return the tokens on the actor's sites, oldest first, expired ones among them."""
        return await self._tokens.all(actor)

    async def revoke(self, actor: Caller, id_: str) -> ApiToken:
        """Revoke a token; every API rejects it within 2 s.

        Raises:
            RightsError: it has more rights than `actor`.
            UnknownTokenError: there is no such token on the actor's sites.
        """
        token = await self._tokens.revoke(id_, actor)
        await self._audit.record(actor, "token.revoke", f"token {token.id}")
        return token


class SessionService:
    """Operations on sessions of the web page; every method raises LogError if the core does not answer."""

    def __init__(self, sessions: SessionStore, audit: AuditTrail) -> None:
        self._sessions = sessions
        self._audit = audit

    async def open(
        self, subject: str, name: str, role: AccessRole, sites: Sequence[str], replacing: str | None = None
    ) -> tuple[str, WebSession]:
        """Open a session for a person; return the value of its cookie. The browser's former one ends."""
        if replacing is not None:
            await self._sessions.close(replacing)
        value, session = await self._sessions.open(subject, name, role, sites)
        detail = {"role": role, "sites": ", ".join(sites)}
        await self._audit.record(caller_of_session(session), "session.login", detail=detail)
        return value, session

    async def close(self, actor: Caller, value: str) -> None:
        """Close the session of a cookie."""
        await self._sessions.close(value)
        await self._audit.record(actor, "session.logout")

    async def end_all(self, actor: Caller, subject: str) -> int:
        """Close all sessions of a person on the actor's sites; return how many there were.

        `subject` is the person, as the identity provider names them.
        """
        ended = await self._sessions.close_all(subject, actor.sites)
        await self._audit.record(actor, "session.end", f"person {subject}", {"sessions": ended})
        return ended
