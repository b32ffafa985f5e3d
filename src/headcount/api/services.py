"""The running parts behind the endpoints of one application."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import cast

from nats.aio.client import Client
from starlette.requests import HTTPConnection

from headcount.access.access_cache import POLL_S, Kept
from headcount.access.audit_log import Audit
from headcount.access.oidc import Login
from headcount.access.rate_limiter import Limiter
from headcount.access.sessions import Sessions
from headcount.access.tokens import Tokens
from headcount.api.access_history import Looks
from headcount.api.api_settings import Sources
from headcount.api.core_connection import Link
from headcount.api.history_queries import Queries
from headcount.api.live_counts import LiveCounts
from headcount.api.metrics import Metrics
from headcount.api.public_counts import PublicCounts
from headcount.api.schemas.problems import UNKNOWN_SITE, UNKNOWN_ZONE, ProblemError
from headcount.counting.site import Site
from headcount.devices.commands import CommandStore
from headcount.devices.one_time_links import OneTimeLinks
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.devices.registry import Registry
from headcount.devices.registry_cache import RegistryCache
from headcount.devices.trace import DeviceTracer
from headcount.errors import LogError
from headcount.messaging.kv import Bucket
from headcount.messaging.streams import COMMAND_BUCKET, DEVICE_BUCKET, SEEN_BUCKET

#: At once, a page with its map and lists asks for some dozens of things.
BURST_S = 5.0


class Limits:
    """The limits of one API."""

    def __init__(self, requests_per_s: float) -> None:
        """Let each token and address have so many requests a second, and five seconds' at once."""
        self.requests = Limiter(requests_per_s, max(1, round(BURST_S * requests_per_s)))
        #: Of an address. A secret can't be guessed anyhow; this is against noise and load.
        self.failures = Limiter(0.2, 20)
        #: Beginnings of a login, of an address: each asks the identity provider.
        self.logins = Limiter(0.5, 20)


@dataclass(slots=True)
class Parts:
    """What endpoints work with."""

    sources: Sources
    live: LiveCounts
    link: Link
    metrics: Metrics
    queries: Queries
    public: PublicCounts | None = None  # what the public is told; None where that is everything
    streams: int = 0  # open now
    _audit: Audit | None = None
    _kept: Kept | None = None
    _sessions: Sessions | None = None
    _limits: Limits | None = None
    _login: Login | None = None
    _tracer: DeviceTracer | None = None
    directory: RegistryCache = field(default_factory=RegistryCache)
    looks: Looks = field(default_factory=Looks)

    @property
    def nats(self) -> Client:
        """The connection to the core, for buckets and requests; it may be lost at the moment."""
        return self.link.client

    @property
    def kept(self) -> Kept:
        """The copy of tokens and sessions."""
        if self._kept is None or self._kept.client is not self.nats:
            self._kept = Kept(self.nats)
            self._sessions = Sessions(self._kept)
        return self._kept

    async def follow(self) -> None:
        """Keep that copy up to date until cancelled."""
        while True:
            with contextlib.suppress(LogError):
                await self.kept.look()
            await asyncio.sleep(POLL_S)

    @property
    def tokens(self) -> Tokens:
        """API tokens."""
        return Tokens(self.kept)

    @property
    def sessions(self) -> Sessions:
        """Who has logged in."""
        kept = self.kept
        if self._sessions is None:
            self._sessions = Sessions(kept)
        return self._sessions

    @property
    def login(self) -> Login | None:
        """Logins with the identity provider; None where there is none."""
        if self._login is None and self.sources.oidc is not None:
            self._login = Login(self.sources.oidc, self.sources.secret)
        return self._login

    @property
    def limits(self) -> Limits:
        """How often somebody may ask, and fail to sign in."""
        if self._limits is None:
            self._limits = Limits(self.sources.requests_per_s)
        return self._limits

    @property
    def audit(self) -> Audit:
        """Where it is written down who has done what."""
        if self._audit is None or self._audit.client is not self.nats:
            self._audit = Audit(self.nats, self.nats.jetstream(), self.sources.secret)
        return self._audit

    @property
    def registry(self) -> Registry:
        """The registry of devices."""
        return Registry(self._bucket(DEVICE_BUCKET), self.sources.secret, self._bucket(SEEN_BUCKET))

    @property
    def links(self) -> OneTimeLinks:
        """One-time links and claim codes."""
        return OneTimeLinks(self._bucket(DEVICE_BUCKET), self.registry, self.sources.secret)

    @property
    def commands(self) -> CommandStore:
        """Commands to devices."""
        return CommandStore(self._bucket(COMMAND_BUCKET))

    @property
    def day_keys(self) -> PseudonymKeys:
        """The keys of the days' pseudonyms; load them before use."""
        return PseudonymKeys(self.nats, self.nats.jetstream())

    @property
    def tracer(self) -> DeviceTracer:
        """Says why a device is (not) counted."""
        if self._tracer is None:
            self._tracer = DeviceTracer(self.sources.site, self.sources.partitions)
        return self._tracer

    def _bucket(self, name: str) -> Bucket:
        return Bucket(self.nats, self.nats.jetstream(), name)


def parts_of(connection: HTTPConnection) -> Parts:
    """The parts of the application that a request came to."""
    return cast("Parts", connection.app.state.parts)


def known_site(parts: Parts, site: str) -> Site:
    """The site of an id.

    Raises:
        ProblemError: `unknown-site`.
    """
    here = parts.sources.site
    if site != here.id:
        raise ProblemError(UNKNOWN_SITE, f"There is no site {site[:64]!r}; {here.id!r} is counted here.")
    return here


def known_zone(parts: Parts, site: str, zone: str) -> int:
    """The index of a zone.

    Raises:
        ProblemError: `unknown-site` or `unknown-zone`.
    """
    here = known_site(parts, site)
    index = parts.live.index.get(zone)
    if index is None:
        detail = f"Site {here.id!r} has no zone {zone[:64]!r}; GET /v1/sites/{here.id} has all of them."
        raise ProblemError(UNKNOWN_ZONE, detail)
    return index
