"""The running parts behind the endpoints of one application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from nats.aio.client import Client
from starlette.requests import HTTPConnection

from headcount.access.audit import Audit
from headcount.api.link import Link
from headcount.api.live import LiveCounts
from headcount.api.metrics import Metrics
from headcount.api.problems import UNKNOWN_SITE, UNKNOWN_ZONE, ProblemError
from headcount.api.queries import Queries
from headcount.api.sources import Sources
from headcount.counting.site import Site


@dataclass(slots=True)
class Parts:
    """What endpoints work with."""

    sources: Sources
    live: LiveCounts
    link: Link
    metrics: Metrics
    queries: Queries
    streams: int = 0  # open now
    _audit: Audit | None = None

    @property
    def nats(self) -> Client:
        """The connection to the core, for buckets and requests; it may be lost at the moment."""
        return self.link.client

    @property
    def audit(self) -> Audit:
        """Where it is written down who has done what."""
        if self._audit is None or self._audit.client is not self.nats:
            self._audit = Audit(self.nats, self.nats.jetstream(), self.sources.secret)
        return self._audit


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
