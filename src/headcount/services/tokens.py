"""API tokens and sessions of people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headcount.access.login_links import LoginLinks
from headcount.access.roles import Caller, caller
from headcount.access.sessions import SessionStore, caller_of_session
from headcount.access.tokens import TokenStore, check_within
from headcount.errors import LoginError
from headcount.messages.records import AccessRole, ApiToken, LoginLink, WebSession
from headcount.services.audit import AuditTrail, Detail


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

    def __init__(
        self, sessions: SessionStore, links: LoginLinks, tokens: TokenStore, audit: AuditTrail
    ) -> None:
        self._sessions = sessions
        self._links = links
        self._tokens = tokens
        self._audit = audit

    async def create_link(
        self, actor: Caller, role: AccessRole, sites: Sequence[str], within_s: int
    ) -> tuple[LoginLink, str]:
        """Create a link that opens one session; return it with its code, which cannot be read again.

        Raises:
            RightsError: it would have more rights than `actor`.
            AccessError: a site's id is not valid.
        """
        check_within(caller(role, "link", sites=sites), actor)
        link, code = await self._links.create(role, sites, within_s)
        detail: Detail = {"role": role, "sites": ", ".join(link.sites), "within_s": within_s}
        await self._audit.record(actor, "session.link", f"link {link.id}", detail)
        return link, code

    async def open_by_link(self, code: str, replacing: str | None) -> tuple[str, WebSession]:
        """Use up a link and open its session; return the value of its cookie.

        Raises:
            LoginError: the link is unknown, used or expired.
        """
        link = await self._links.use(code)
        return await self._replace(replacing, link.id, "One-time link", link.role, link.sites, by="link")

    async def open_by_token(self, text: str, replacing: str | None) -> tuple[str, WebSession]:
        """Open a session with the rights of a token, which ends with the token; return the value of its cookie.

        Raises:
            LoginError: the token does not exist, was revoked, or has expired.
        """
        token = await self._tokens.check(text)
        if token is None:
            raise LoginError("the token does not exist, was revoked, or has expired")
        return await self._replace(
            replacing,
            token.id,
            token.name,
            token.role,
            token.sites,
            token.scopes,
            by="token",
            expires=token.expires,
        )

    async def open(
        self, subject: str, name: str, role: AccessRole, sites: Sequence[str], replacing: str | None = None
    ) -> tuple[str, WebSession]:
        """Open a session for a person; return the value of its cookie. The browser's former one ends."""
        return await self._replace(replacing, subject, name, role, sites)

    async def _replace(
        self,
        replacing: str | None,
        subject: str,
        name: str,
        role: AccessRole,
        sites: Sequence[str],
        *more: Any,
        **options: Any,
    ) -> tuple[str, WebSession]:
        if replacing is not None:
            await self._sessions.close(replacing)
        value, session = await self._sessions.open(subject, name, role, sites, *more, **options)
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
