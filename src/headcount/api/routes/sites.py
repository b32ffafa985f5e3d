"""The sites and their zones."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from headcount.api.media_types import GeoJson, Json, revalidated
from headcount.api.parameters import SiteId
from headcount.api.schemas import sites
from headcount.api.state import State, known_site
from headcount.counting.site import Site

router = APIRouter(prefix="/v1", tags=["counts"])


@router.get(
    "/sites",
    summary="List sites",
    response_model=sites.SiteListResponse,
    response_description="The sites that this API serves",
)
async def list_sites(request: Request, state: State) -> Response:
    """List all sites, with the addresses of their resources."""
    return revalidated(request, Json({"sites": [_summary(state.settings.site)]}))


@router.get(
    "/sites/{site}",
    summary="Get a site and its zones as GeoJSON",
    response_class=GeoJson,
    response_model=sites.SiteResponse,
    response_description="The site file",
)
async def get_site(site: SiteId, request: Request, state: State) -> Response:
    """Return the site's boundary and its zones, with names, types and capacities, as GeoJSON."""
    return revalidated(request, GeoJson(known_site(state, site).geojson))


def _summary(site: Site) -> dict[str, Any]:
    base = f"/v1/sites/{site.id}"
    return {
        "id": site.id,
        "name": site.name,
        "timezone": site.timezone,
        "zones": len(site.zones),
        "bbox": list(site.zones[0].geometry.bounds),
        "links": {
            "self": base,
            "counts": f"{base}/counts",
            "stream": f"{base}/stream",
            "websocket": f"{base}/ws",
        },
    }
