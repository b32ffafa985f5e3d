"""API tokens, with which programs authenticate: `hc_<id>_<secret>`. Only a hash of the secret is stored.

The secret is 256 random bits, so a plain SHA-256 suffices: they cannot all be tried. The prefix lets secret
scanners find tokens.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from headcount.access.access_cache import AccessCache
from headcount.access.roles import Caller, caller, scopes_of
from headcount.errors import AccessError, RightsError, UnknownTokenError
from headcount.messages.records import TOKEN_KEY, AccessRole, ApiToken
from headcount.messages.topics import ID

#: `hc_`, 60 random bits in base 32, 256 random bits in base 64.
TOKEN = re.compile(r"hc_([a-z2-7]{12})_([A-Za-z0-9_-]{43})")
TOKEN_ID_PATTERN = r"[a-z2-7]{12}"  # noqa: S105  # no secret
_SECRET_BYTES = 32
_PREFIX = TOKEN_KEY.format(id="")
MAX_TOKENS = 1000
MAX_NAME = 64
MAX_SITES = 100
#: How long a deleted token leaves a mark, for readers that are behind.
_TOMBSTONE_S = 3600
_NO_SECRET = hashlib.sha256(b"").hexdigest()


class TokenStore:
    """All tokens; calls that read or write the core raise LogError if it does not answer."""

    def __init__(self, cache: AccessCache) -> None:
        self._cache = cache

    async def check(self, text: str) -> ApiToken | None:
        """Return the token with this text; None: it does not exist or has expired."""
        match = TOKEN.fullmatch(text)
        if match is None:
            return None
        entry = await self._cache.get(_PREFIX + match[1])
        token = None if entry is None else msgspec.json.decode(entry.value, type=ApiToken)
        proven = hmac.compare_digest(
            hashlib.sha256(match[2].encode()).hexdigest(), _NO_SECRET if token is None else token.secret
        )
        return token if proven and token is not None and is_valid(token) else None

    def is_cached(self, text: str) -> bool:
        """Whether the copy in memory has a token with this id; its secret is not checked."""
        match = TOKEN.fullmatch(text)
        return match is not None and _PREFIX + match[1] in self._cache

    def is_still_valid(self, token: ApiToken) -> bool:
        """Whether a token that was checked has neither been revoked nor expired since."""
        return is_valid(token) and _PREFIX + token.id in self._cache

    async def prepare(
        self,
        name: str,
        role: AccessRole,
        *,
        sites: Sequence[str] = (),
        scopes: Sequence[str] = (),
        expires: float | None = None,
        by: Caller | None = None,
    ) -> tuple[ApiToken, str]:
        """Make a token that `store` can store, and its text, which cannot be read again.

        Empty `sites` are all, empty `scopes` all of the role's. `expires` is in Unix seconds. Its maker, `by`, can only
        grant scopes and sites of their own.

        Raises:
            RightsError: it would have more rights than its maker.
            AccessError: a value is not valid, or there are MAX_TOKENS tokens.
        """
        _check(name, role, sites, expires)
        wanted = caller(role, name, list(scopes), list(sites))
        if by is not None:
            check_within(wanted, by)
        await self._cache.refresh()
        if len(self._cache.with_prefix(_PREFIX)) >= MAX_TOKENS:
            raise AccessError("token", f"there are {MAX_TOKENS} already; revoke unused ones")
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        token = ApiToken(
            id=base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12],
            name=name,
            role=role,
            sites=sorted(set(sites)),
            scopes=sorted(set(scopes)),
            secret=hashlib.sha256(secret.encode()).hexdigest(),
            created=time.time(),
            expires=expires,
        )
        return token, f"hc_{token.id}_{secret}"

    async def store(self, token: ApiToken) -> None:
        """Store a prepared token, which is valid from then on.

        Raises:
            AccessError: its id is taken.
        """
        if await self._cache.bucket.replace(_PREFIX + token.id, msgspec.json.encode(token), 0) is None:
            raise AccessError(f"token {token.id}", "its id is taken; try again")

    async def add(self, name: str, role: AccessRole, **options: Any) -> tuple[ApiToken, str]:
        """Prepare and store a token; see `prepare`."""
        token, text = await self.prepare(name, role, **options)
        await self.store(token)
        return token, text

    async def all(self, by: Caller | None = None) -> list[ApiToken]:
        """Return all tokens on the caller's sites, oldest first, expired ones among them."""
        entries = await self._cache.bucket.newest(f"{_PREFIX}*")
        tokens = [msgspec.json.decode(entry.value, type=ApiToken) for entry in entries.values()]
        return sorted((t for t in tokens if by is None or _on_sites(t, by)), key=lambda t: (t.created, t.id))

    async def revoke(self, id_: str, by: Caller | None = None) -> ApiToken:
        """Delete a token; every API rejects it within 2 s.

        Raises:
            RightsError: it has more rights than the caller.
            UnknownTokenError: there is no such token on the caller's sites.
        """
        entry = await self._cache.bucket.get(_PREFIX + id_) if re.fullmatch(TOKEN_ID_PATTERN, id_) else None
        token = None if entry is None else msgspec.json.decode(entry.value, type=ApiToken)
        if token is None or (by is not None and not _on_sites(token, by)):
            raise UnknownTokenError(f"token {id_[:64]}", "does not exist; `headcount token list` shows all")
        if by is not None:
            check_within(_rights(token), by)
        await self._cache.bucket.delete(_PREFIX + id_, ttl_s=_TOMBSTONE_S)
        self._cache.discard(_PREFIX + id_)
        return token


def is_valid(token: ApiToken) -> bool:
    """Whether a token has not expired."""
    return token.expires is None or time.time() < token.expires


def caller_of_token(token: ApiToken) -> Caller:
    """Return the program that a token authenticates.

    Raises:
        AccessError: it has a scope that does not exist (any more).
    """
    return caller(token.role, f"token {token.id}", token.scopes, token.sites)


def _rights(token: ApiToken) -> Caller:
    """The rights of a token, without scopes that do not exist any more: these must not prevent its revocation."""
    scopes = [scope for scope in token.scopes if scope in scopes_of(token.role)]
    if token.scopes and not scopes:
        return Caller(token.role, f"token {token.id}", frozenset(), frozenset(token.sites))
    return caller(token.role, f"token {token.id}", scopes, token.sites)


def check_within(wanted: Caller, by: Caller) -> None:
    """Reject rights that the caller who grants them does not have.

    Raises:
        RightsError: naming the scopes or sites.
    """
    more = wanted.scopes - by.scopes
    if more:
        raise RightsError("scopes", f"{by.subject} does not have {', '.join(sorted(more))}")
    if by.sites and (not wanted.sites or wanted.sites - by.sites):
        raise RightsError("sites", f"{by.subject} only has {', '.join(sorted(by.sites))}")


def _on_sites(token: ApiToken, by: Caller) -> bool:
    return not by.sites or (bool(token.sites) and by.sites.issuperset(token.sites))


def check_sites(sites: Sequence[str]) -> None:
    """Raise AccessError if these are not ids of sites."""
    if len(sites) > MAX_SITES or not all(ID.fullmatch(site) for site in sites):
        raise AccessError("sites", f"use at most {MAX_SITES} ids of sites")


def _check(name: str, role: AccessRole, sites: Sequence[str], expires: float | None) -> None:
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise AccessError("name", f"use 1 to {MAX_NAME} printable characters")
    if role == "public":
        raise AccessError("role", "public needs no token")
    check_sites(sites)
    if expires is not None and expires <= time.time():
        raise AccessError("expires", "is in the past")
