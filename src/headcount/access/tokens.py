"""API tokens: what programs sign in with. `hc_<id>_<secret>`, of which only a hash of the secret is kept.

The secret is 256 random bits, so a plain SHA-256 is enough: nobody can go through all of them. The
prefix is there for secret scanners.
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
from headcount.access.roles import Caller, caller
from headcount.errors import AccessError
from headcount.messages.records import TOKEN_KEY, Role, Token
from headcount.messages.topics import ID

#: `hc_`, 60 random bits in base 32, 256 random bits in base 64.
TOKEN = re.compile(r"hc_([a-z2-7]{12})_([A-Za-z0-9_-]{43})")
TOKEN_ID_PATTERN = r"[a-z2-7]{12}"  # noqa: S105  # no secret
_SECRET_BYTES = 32
_PREFIX = TOKEN_KEY.format(id="")
MAX_TOKENS = 1000
MAX_NAME = 64
MAX_SITES = 100
#: How long the mark of a deleted token stays, for readers that are behind.
_MARK_S = 3600
_NO_SUCH = hashlib.sha256(b"").hexdigest()


class RightsError(AccessError):
    """Somebody gives, or takes back, more than they have."""


class Tokens:
    """All tokens; each call that reads or writes the core raises LogError if that doesn't answer."""

    def __init__(self, cache: AccessCache) -> None:
        """Use a copy of the bucket."""
        self._cache = cache

    async def check(self, text: str) -> Token | None:
        """The token that a text is; None: there is no such token, or its time is over."""
        match = TOKEN.fullmatch(text)
        if match is None:
            return None
        entry = await self._cache.find(_PREFIX + match[1])
        token = None if entry is None else msgspec.json.decode(entry.value, type=Token)
        known = hmac.compare_digest(
            hashlib.sha256(match[2].encode()).hexdigest(), _NO_SUCH if token is None else token.secret
        )
        return token if known and token is not None and lives(token) else None

    def known(self, text: str) -> bool:
        """Whether there is a token of this id, as far as is known without asking; whether it is right, isn't said."""
        match = TOKEN.fullmatch(text)
        return match is not None and self._cache.has(_PREFIX + match[1])

    def holds(self, token: Token) -> bool:
        """Whether a token that was checked hasn't been revoked or run out since."""
        return lives(token) and self._cache.has(_PREFIX + token.id)

    async def prepare(
        self,
        name: str,
        role: Role,
        *,
        sites: Sequence[str] = (),
        scopes: Sequence[str] = (),
        expires: float | None = None,
        by: Caller | None = None,
    ) -> tuple[Token, str]:
        """Make a token that `store` can store, and its text, which cannot be read again.

        Args:
            name: its purpose, in its maker's words.
            role: the role that bounds its scopes.
            sites: its sites; empty means all.
            scopes: its scopes; empty means all of the role's.
            expires: Unix seconds; None means never.
            by: its maker, who can only grant scopes and sites of their own; None means no restriction.

        Raises:
            RightsError: it would have more rights than its maker.
            AccessError: a value is not valid, or there are MAX_TOKENS tokens.
        """
        _check(name, role, sites, expires)
        wanted = caller(role, name, list(scopes), list(sites))
        if by is not None:
            check_within(wanted, by)
        await self._cache.look()
        if len(self._cache.under(_PREFIX)) >= MAX_TOKENS:
            raise AccessError("token", f"there are {MAX_TOKENS} already; revoke unused ones")
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        token = Token(
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

    async def store(self, token: Token) -> None:
        """Store a prepared token, which is valid from then on.

        Raises:
            AccessError: its id is taken.
        """
        if await self._cache.bucket.replace(_PREFIX + token.id, msgspec.json.encode(token), 0) is None:
            raise AccessError(f"token {token.id}", "its id is taken; try again")

    async def add(self, name: str, role: Role, **options: Any) -> tuple[Token, str]:
        """Prepare and store a token; see `prepare`."""
        token, text = await self.prepare(name, role, **options)
        await self.store(token)
        return token, text

    async def all(self, by: Caller | None = None) -> list[Token]:
        """All tokens on the sites of whoever asks, oldest first; also those whose time is over."""
        entries = await self._cache.bucket.newest(f"{_PREFIX}*")
        tokens = [msgspec.json.decode(entry.value, type=Token) for entry in entries.values()]
        return sorted((t for t in tokens if by is None or _theirs(t, by)), key=lambda t: (t.created, t.id))

    async def revoke(self, id_: str, by: Caller | None = None) -> Token:
        """Take a token back: every API refuses it within 2 s.

        Raises:
            AccessError: there is none of this id, or it may more than whoever asks.
        """
        entries = (
            await self._cache.bucket.newest(_PREFIX + id_) if re.fullmatch(TOKEN_ID_PATTERN, id_) else {}
        )
        token = next((msgspec.json.decode(entry.value, type=Token) for entry in entries.values()), None)
        if token is None or (by is not None and not _theirs(token, by)):
            raise AccessError(f"token {id_[:64]}", "there is none; `headcount token list` shows all")
        if by is not None:
            check_within(caller_of_token(token), by)
        await self._cache.bucket.delete(_PREFIX + id_, ttl_s=_MARK_S)
        self._cache.drop(_PREFIX + id_)
        return token


def lives(token: Token) -> bool:
    """Whether a token's time isn't over."""
    return token.expires is None or time.time() < token.expires


def caller_of_token(token: Token) -> Caller:
    """Who a token stands for.

    Raises:
        AccessError: it has a scope that there isn't (any more).
    """
    return caller(token.role, f"token {token.id}", token.scopes, token.sites)


def check_within(wanted: Caller, by: Caller) -> None:
    """Refuse rights that whoever gives them doesn't have.

    Raises:
        RightsError: naming the scopes or sites that are too much.
    """
    more = wanted.scopes - by.scopes
    if more:
        raise RightsError("scopes", f"{by.subject} has no {', '.join(sorted(more))} to give")
    if by.sites and (not wanted.sites or wanted.sites - by.sites):
        raise RightsError("sites", f"{by.subject} has only {', '.join(sorted(by.sites))} to give")


def _theirs(token: Token, by: Caller) -> bool:
    return not by.sites or (bool(token.sites) and by.sites.issuperset(token.sites))


def _check(name: str, role: Role, sites: Sequence[str], expires: float | None) -> None:
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise AccessError("name", f"use 1 to {MAX_NAME} printable characters")
    if role == "public":
        raise AccessError("role", "public needs no token")
    if len(sites) > MAX_SITES or not all(ID.fullmatch(site) for site in sites):
        raise AccessError("sites", f"at most {MAX_SITES}, each an id of a site")
    if expires is not None and expires <= time.time():
        raise AccessError("expires", "is over already")
