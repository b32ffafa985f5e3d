"""The running parts behind the endpoints of one application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from starlette.requests import HTTPConnection

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
