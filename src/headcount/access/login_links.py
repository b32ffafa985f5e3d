"""One-time links that sign a browser in without an identity provider: `headcount login-link`.

A link holds 256 random bits, of which only a hash is stored. Compare-and-set uses it up before the session opens.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Sequence

import msgspec

from headcount.access.access_cache import AccessCache
from headcount.access.tokens import check_sites
from headcount.errors import LoginError
from headcount.messages.records import LOGIN_LINK_KEY, AccessRole, LoginLink

_CODE = re.compile(r"[A-Za-z0-9_-]{43}")
_TOMBSTONE_S = 3600


class LoginLinks:
    """Login links of a deployment; calls raise LogError if the core does not answer."""

    def __init__(self, cache: AccessCache) -> None:
        self._bucket = cache.bucket

    async def create(self, role: AccessRole, sites: Sequence[str], within_s: int) -> tuple[LoginLink, str]:
        """Create a link to a role on some sites ([]: all); return it with its code.

        Raises:
            AccessError: a site's id is not valid.
        """
        check_sites(sites)
        code, now_s = secrets.token_urlsafe(32), time.time()
        link = LoginLink(
            id=secrets.token_hex(4), role=role, sites=sorted(set(sites)), expires=now_s + within_s
        )
        await self._bucket.put(_key(code), msgspec.json.encode(link), ttl_s=within_s)
        return link, code

    async def use(self, code: str) -> LoginLink:
        """Use up a link.

        Raises:
            LoginError: it was never created, is used, or has expired; the error does not distinguish these.
        """
        entry = await self._bucket.get(_key(code)) if _CODE.fullmatch(code) else None
        link = None if entry is None else msgspec.json.decode(entry.value, type=LoginLink)
        if entry is None or link is None or link.expires <= time.time():
            raise _refused()
        if await self._bucket.replace(_key(code), b"", entry.revision, ttl_s=_TOMBSTONE_S) is None:
            raise _refused()  # another request was faster
        return link


def _key(code: str) -> str:
    return LOGIN_LINK_KEY.format(digest=hashlib.sha256(code.encode()).hexdigest())


def _refused() -> LoginError:
    return LoginError("the link is unknown, used or expired")
