"""The site of a running deployment, in the bucket SITE.

In memory: it is that of the first role that starts, until it is replaced or the whole core starts again.
"""

from __future__ import annotations

import msgspec

from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import SITE_BUCKET

_KEY = "site"


class SiteRecord(msgspec.Struct, frozen=True):
    """A site: its id, and the digest of everything in its file that matters."""

    id: str
    digest: str


class SiteRecords:
    """The record over one connection; every call raises LogError if the core does not answer."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._bucket = KvBucket(connection, SITE_BUCKET)

    async def get(self) -> tuple[SiteRecord | None, int]:
        """The deployment's site, None before its first role has started, and the revision to replace."""
        entry = await self._bucket.get(_KEY)
        if entry is None:
            return None, 0
        return msgspec.json.decode(entry.value, type=SiteRecord), entry.revision

    async def get_or_set(self, site: SiteRecord) -> SiteRecord:
        """The deployment's site; where there is none yet, it is `site` from now on."""
        found, revision = await self.get()
        while found is None:
            if await self.replace(site, revision):
                return site
            found, revision = await self.get()
        return found

    async def replace(self, site: SiteRecord, revision: int) -> bool:
        """Replace the record with this revision; False: it has another one."""
        return await self._bucket.replace(_KEY, msgspec.json.encode(site), revision) is not None
