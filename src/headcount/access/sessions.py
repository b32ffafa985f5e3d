"""Sessions of people who have logged in on the web page, with an identity provider, a one-time link or a token.

A cookie holds 256 random bits, of which only a hash is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from headcount.access.access_cache import AccessCache
from headcount.access.roles import Caller, caller
from headcount.messages.records import SESSION_KEY, TOKEN_KEY, AccessRole, WebSession
from headcount.messaging.kv import KvEntry

#: The lifetime of a session.
LIFETIME_S = 8 * 3600
#: The time without a request after which it ends.
IDLE_TIMEOUT_S = 3600
#: How often the use of a session is stored.
_TOUCH_INTERVAL_S = 300
_TOMBSTONE_S = 3600
_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")
_PREFIX = SESSION_KEY.format(digest="")
MAX_SESSIONS = 5000


class SessionStore:
    """All sessions; calls that read or write the core raise LogError if it does not answer."""

    def __init__(self, cache: AccessCache) -> None:
        self._cache = cache
        self._touched: dict[str, float] = {}

    async def open(
        self,
        subject: str,
        name: str,
        role: AccessRole,
        sites: Sequence[str],
        scopes: Sequence[str] = (),
        *,
        by: Literal["person", "token", "link"] = "person",
        expires: float | None = None,
    ) -> tuple[str, WebSession]:
        """Create a session; return it with the value for its cookie, which is always a new one.

        It ends after `LIFETIME_S`, or when `expires` (Unix seconds) is earlier; one of a token ends with the token.
        """
        value = secrets.token_urlsafe(32)
        session = WebSession(
            by=by,
            subject=subject,
            name=name,
            role=role,
            sites=sorted(set(sites)),
            scopes=sorted(set(scopes)),
            csrf=secrets.token_urlsafe(32),
            expires=min(time.time() + LIFETIME_S, math.inf if expires is None else expires),
        )
        await self._make_room()
        await self._cache.bucket.put(_key(value), msgspec.json.encode(session), ttl_s=IDLE_TIMEOUT_S)
        return value, session

    async def check(self, value: str) -> WebSession | None:
        """Return the session of a cookie and restart its idle time; None: it does not exist or has ended."""
        if _VALUE.fullmatch(value) is None:
            return None
        key = _key(value)
        entry = await self._cache.get(key)
        session = None if entry is None else msgspec.json.decode(entry.value, type=WebSession)
        now = time.time()
        if entry is None or session is None or session.expires <= now:
            return None
        if entry.stored_s + IDLE_TIMEOUT_S <= now or not await self._touch(key, entry, session):
            return None
        token = _token_key(session)
        return session if token is None or await self._cache.get(token) is not None else None

    def is_cached(self, value: str) -> bool:
        """Whether the copy in memory has the session of a cookie."""
        return _VALUE.fullmatch(value) is not None and _key(value) in self._cache

    def is_still_valid(self, value: str, session: WebSession) -> bool:
        """Whether a session that was checked has not ended since."""
        token = _token_key(session)
        return (
            self.is_cached(value)
            and time.time() < session.expires
            and (token is None or token in self._cache)
        )

    async def close(self, value: str) -> None:
        """End the session of a cookie."""
        if _VALUE.fullmatch(value) is not None:
            await self._delete(_key(value))

    async def close_all(self, subject: str, sites: Collection[str] = ()) -> int:
        """End all sessions of a person, or only those restricted to some sites, and return their number."""
        ended = 0
        for key, entry in (await self._cache.bucket.newest(f"{_PREFIX}*")).items():
            session = msgspec.json.decode(entry.value, type=WebSession)
            included = not sites or (bool(session.sites) and set(session.sites) <= set(sites))
            if included and hmac.compare_digest(session.subject.encode(), subject.encode()):
                await self._delete(key)
                ended += 1
        return ended

    async def _touch(self, key: str, entry: KvEntry, session: WebSession) -> bool:
        """Keep a used session from expiring; False: it has ended in the meantime."""
        now = time.time()
        if now - max(entry.stored_s, self._touched.get(key, 0.0)) < _TOUCH_INTERVAL_S:
            return True
        recent = {each: at for each, at in self._touched.items() if now - at < _TOUCH_INTERVAL_S}
        self._touched = recent | {key: now}
        ttl_s = max(1, min(IDLE_TIMEOUT_S, int(session.expires - now)))
        bucket = self._cache.bucket
        if await bucket.replace(key, entry.value, entry.revision, ttl_s=ttl_s) is not None:
            return True
        self._cache.discard(key)  # another API has stored it, or it has ended
        return await self._cache.get(key) is not None

    async def _make_room(self) -> None:
        """End the oldest session where there are too many: the size of the bucket is limited."""
        entries = self._cache.with_prefix(_PREFIX)
        if len(entries) >= MAX_SESSIONS:
            await self._delete(min(entries, key=lambda key: entries[key].stored_s))

    async def _delete(self, key: str) -> None:
        await self._cache.bucket.delete(key, ttl_s=_TOMBSTONE_S)
        self._cache.discard(key)


def caller_of_session(session: WebSession) -> Caller:
    """Return the person of a session, or the token or link that opened it."""
    person = session.by == "person"
    subject = f"person {session.name} ({session.subject})" if person else f"{session.by} {session.subject}"
    return caller(session.role, subject, session.scopes, session.sites)


def _token_key(session: WebSession) -> str | None:
    return TOKEN_KEY.format(id=session.subject) if session.by == "token" else None


def _key(value: str) -> str:
    return _PREFIX + hashlib.sha256(value.encode()).hexdigest()
