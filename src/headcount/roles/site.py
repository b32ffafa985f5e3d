"""The site of a deployment."""

from __future__ import annotations

import functools
from typing import NamedTuple

from headcount.runtime.forked import in_fork
from headcount.settings.deployment import Settings


class SiteSummary(NamedTuple):
    """The part of a site that roles without an engine need."""

    id: str
    name: str
    timezone: str


@functools.cache
def site_summary(settings: Settings) -> SiteSummary:
    """The summary of a site, read and checked once in a forked process: its geometry takes no memory here.

    Raises:
        SiteError: the file is not usable.
    """
    return in_fork(lambda: summarise(settings))


def summarise(settings: Settings) -> SiteSummary:
    """The summary of a site.

    Raises:
        SiteError: the file is not usable.
    """
    from headcount.sites.files import load_site

    site = load_site(settings.site)
    return SiteSummary(site.id, site.name, site.timezone)
