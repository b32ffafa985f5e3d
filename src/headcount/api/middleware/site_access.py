"""The site in the path of a request, if the caller may see it: no endpoint gets a site's id otherwise."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from headcount.api.live_sites import ServedSite
from headcount.api.middleware.identity import AnyCaller
from headcount.api.parameters import SiteId
from headcount.api.state import State, known_site


async def _site(site: SiteId, state: State, caller: AnyCaller) -> ServedSite:
    return known_site(state, caller, site)


#: A parameter of endpoints: the served site.
SiteInPath = Annotated[ServedSite, Depends(_site)]


async def _id(site: SiteInPath) -> str:
    return site.id


#: A parameter of endpoints: the id of the served site.
KnownSiteId = Annotated[str, Depends(_id)]
