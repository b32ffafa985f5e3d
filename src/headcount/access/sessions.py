"""Who has logged in on the web page. A cookie holds 256 random bits; of these only a hash is kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Collection, Sequence

import msgspec

from headcount.access.access_cache import AccessCache
from headcount.access.roles import Caller, caller
from headcount.messages.records import SESSION_KEY, Role, Session
from headcount.messaging.kv import Entry

#: A session ends after this, and must be begun anew.
LIFE_S = 8 * 3600
#: And after so long without a request.
IDLE_S = 3600
#: It is noted that often that somebody is still there.
_TOUCH_S = 300
_MARK_S = 3600
_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")
_PREFIX = SESSION_KEY.format(digest="")
MAX_SESSIONS = 5000


class Sessions:
    """All sessions; each call that reads or writes the core raises LogError if that doesn't answer."""

    def __init__(self, cache: AccessCache) -> None:
        """Use a copy of the bucket."""
        self._cache = cache
        self._touched: dict[str, float] = {}

    async def open(self, subject: str, name: str, role: Role, sites: Sequence[str]) -> tuple[str, Session]:
        """Begin a session, always with a new value for the cookie; the server ends it when nobody uses it."""
        value = secrets.token_urlsafe(32)
        session = Session(
            subject=subject,
            name=name,
            role=role,
            sites=sorted(set(sites)),
            csrf=secrets.token_urlsafe(32),
            expires=time.time() + LIFE_S,
        )
        await self._make_room()
        await self._cache.bucket.put(_key(value), msgspec.json.encode(session), ttl_s=IDLE_S)
        return value, session

    async def check(self, value: str) -> Session | None:
        """The session of a cookie, whose idle time begins anew; None: there is none, or it is over."""
        if _VALUE.fullmatch(value) is None:
            return None
        key = _key(value)
        entry = await self._cache.find(key)
        session = None if entry is None else msgspec.json.decode(entry.value, type=Session)
        now = time.time()
        if entry is None or session is None or session.expires <= now or entry.stored_s + IDLE_S <= now:
            return None
        if not await self._touch(key, entry, session):
            return None
        return session

    def known(self, value: str) -> bool:
        """Whether a cookie's session hasn't ended, as far as is known without asking."""
        return _VALUE.fullmatch(value) is not None and self._cache.has(_key(value))

    async def close(self, value: str) -> None:
        """End a session."""
        if _VALUE.fullmatch(value) is not None:
            await self._delete(_key(value))

    async def close_all(self, subject: str, sites: Collection[str] = ()) -> int:
        """End all sessions of somebody, as the identity provider calls them; how many there were.

        Where `sites` are named, only sessions on none but these.
        """
        ended = 0
        for key, entry in (await self._cache.bucket.newest(f"{_PREFIX}*")).items():
            session = msgspec.json.decode(entry.value, type=Session)
            theirs = not sites or (bool(session.sites) and set(session.sites) <= set(sites))
            if theirs and hmac.compare_digest(session.subject.encode(), subject.encode()):
                await self._delete(key)
                ended += 1
        return ended

    async def _touch(self, key: str, entry: Entry, session: Session) -> bool:
        """Keep a session from ending while it is used; False: it has been ended meanwhile."""
        now = time.time()
        if now - max(entry.stored_s, self._touched.get(key, 0.0)) < _TOUCH_S:
            return True
        self._touched = {each: at for each, at in self._touched.items() if now - at < _TOUCH_S} | {key: now}
        ttl_s = max(1, min(IDLE_S, int(session.expires - now)))
        bucket = self._cache.bucket
        if await bucket.replace(key, entry.value, entry.revision, ttl_s=ttl_s) is not None:
            return True
        self._cache.drop(key)  # another API was faster, or it is gone
        return await self._cache.find(key) is not None

    async def _make_room(self) -> None:
        """With too many sessions the oldest ends: a bucket has a limit."""
        entries = self._cache.under(_PREFIX)
        if len(entries) >= MAX_SESSIONS:
            await self._delete(min(entries, key=lambda key: entries[key].stored_s))

    async def _delete(self, key: str) -> None:
        await self._cache.bucket.delete(key, ttl_s=_MARK_S)
        self._cache.drop(key)


def caller_of_session(session: Session) -> Caller:
    """Who a session stands for."""
    return caller(session.role, f"person {session.name} ({session.subject})", sites=session.sites)


def _key(value: str) -> str:
    return _PREFIX + hashlib.sha256(value.encode()).hexdigest()
