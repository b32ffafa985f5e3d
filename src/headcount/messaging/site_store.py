"""The versions of a deployment's sites, in the bucket SITE.

Each version has a key, `<site>.<number>`, which is written once. The core's time stamp of that write decides
when the version takes effect, so all readers know the same instant, in whatever order they learn of it.
A version without a file removes the site; later versions add it again.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from headcount.messages.times import effect_tick, tick_s
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket, KvEntry
from headcount.messaging.streams import SITE_BUCKET

#: A version is removed if a later one took effect this long ago, and MAX_OLD newer ones are stored.
KEEP_S = 26 * 3600.0
MAX_OLD = 50
_ANSWER_S = 5.0


class StoredSite(msgspec.Struct, frozen=True):
    """A version as it is stored (compressed JSON), with its number and the time of the core's stamp."""

    by: str  # who submitted it
    digest: str  # of the file
    file: dict[str, Any] | None  # None: the site is removed
    added: int  # number of the version with which the site was added; a removed site may be added again
    is_seed: bool = False  # it was added at the deployment's start
    site: str = ""
    number: int = 0
    stored_s: float = 0.0

    @property
    def from_tick(self) -> int:
        """When it takes effect, in TICK_S; the first one of a deployment was in effect before everything."""
        return 0 if self._is_first else effect_tick(self.stored_s)

    @property
    def from_s(self) -> float:
        """When it takes effect (Unix seconds); the first one of a deployment when it was stored."""
        return self.stored_s if self._is_first else tick_s(self.from_tick)

    @property
    def _is_first(self) -> bool:
        return self.is_seed and self.number == self.added


class SiteStore:
    """The stored versions over one connection; every call raises LogError if the core does not answer."""

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        self._bucket = KvBucket(connection, SITE_BUCKET, timeout_s=_ANSWER_S)

    async def state(self) -> tuple[int, float]:
        """The last revision, and the core's time (Unix seconds): what it stores later has a later stamp."""
        info = await self._bucket.info()
        return info.state.last_seq, info.now_s

    async def versions(self) -> list[StoredSite]:
        """All stored versions, by site and number."""
        return _decoded(await self._bucket.newest())

    async def versions_up_to(self, revision: int) -> list[StoredSite] | None:
        """All stored versions; None: a replica answered that does not have this revision yet."""
        entries = await self._bucket.newest()
        if max((entry.revision for entry in entries.values()), default=0) < revision:
            return None
        return _decoded(entries)

    async def add(self, version: StoredSite) -> bool:
        """Store a version; False: there is one with that number already."""
        stored = {
            "by": version.by,
            "digest": version.digest,
            "file": version.file,
            "added": version.added,
            "is_seed": version.is_seed,
        }
        value = zlib.compress(msgspec.json.encode(stored))
        return await self._bucket.replace(f"{version.site}.{version.number}", value, 0) is not None

    async def seeded(self, first: StoredSite) -> list[StoredSite]:
        """All versions; where there is none, `first` is stored."""
        while not (found := await self.versions()):
            await self.add(first)
        return found

    async def prune(self, site: str, now_s: float) -> None:
        """Remove versions of a site that no stored data refers to."""
        entries = {_number(key): entry for key, entry in (await self._bucket.newest(f"{site}.*")).items()}
        numbers = sorted(entries)[:-MAX_OLD]
        for number in numbers:
            successor = entries.get(number + 1)
            if successor is not None and successor.stored_s < now_s - KEEP_S:
                await self._bucket.overwrite(entries[number].revision)


def _number(key: str) -> int:
    return int(key.rpartition(".")[2])


def _decoded(entries: dict[str, KvEntry]) -> list[StoredSite]:
    found = []
    for key, entry in entries.items():
        stored = msgspec.json.decode(zlib.decompress(entry.value), type=StoredSite)
        site, number = key.rpartition(".")[0], _number(key)
        found.append(msgspec.structs.replace(stored, site=site, number=number, stored_s=entry.stored_s))
    return sorted(found, key=lambda version: (version.site, version.number))
