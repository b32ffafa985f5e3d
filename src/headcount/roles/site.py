"""The site of a deployment."""

from __future__ import annotations

from headcount.counting.site import Site
from headcount.counting.site_file import at_speed
from headcount.settings.deployment import Settings
from headcount.sites.files import load_site


def site_of(settings: Settings) -> Site:
    """The site to count, with its limits and holds scaled for a time-lapse run.

    Raises:
        SiteError: the file is not usable.
    """
    site = load_site(settings.site)
    return site if settings.speed == 1 else at_speed(site, settings.speed)
