"""The sites and their zones."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import Response

from headcount.access.roles import Caller
from headcount.api.media_types import GEOJSON, GeoJson, Json, etag_of, revalidated
from headcount.api.middleware.authorization import RequireScope
from headcount.api.parameters import SiteId
from headcount.api.schemas import sites
from headcount.api.schemas.problems import (
    INVALID,
    SITE_CHANGED,
    ParameterProblem,
    ProblemError,
    document,
    invalid,
    response,
)
from headcount.api.state import State, known_site
from headcount.counting.site import Site
from headcount.counting.site_file import check_site, parse_site, unscaled
from headcount.errors import SiteError, SiteVersionError
from headcount.messages.times import iso

router = APIRouter(prefix="/v1", tags=["counts"])
Editor = Annotated[Caller, Depends(RequireScope("sites:write"))]


@router.get(
    "/sites",
    summary="List sites",
    response_model=sites.SiteListResponse,
    response_description="The sites that this API serves",
)
async def list_sites(request: Request, state: State) -> Response:
    """List all sites, with the addresses of their resources."""
    return revalidated(request, Json({"sites": [_summary(state.live.site)]}))


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


@router.put(
    "/sites/{site}",
    summary="Change a site",
    response_model=sites.SiteUpdateResponse,
    response_description="The accepted version, when it takes effect, and how it differs",
    openapi_extra={
        "x-problems": ["site-changed"],
        "requestBody": {
            "required": True,
            "content": {GEOJSON: {"schema": {"$ref": "#/components/schemas/SiteResponse"}}},
        },
    },
)
async def put_site(
    site: SiteId,
    request: Request,
    state: State,
    actor: Editor,
    if_match: Annotated[str | None, Header(description="The ETag of the version that was edited.")] = None,
) -> Response:
    """Replace the site file. The new version takes effect some seconds later, without a restart.

    The body is the whole site file as GeoJSON; it is validated like `headcount site check`, and `errors` lists all
    problems. With `If-Match`, the request fails if another version was accepted since you read the site.
    """
    known_site(state, site)
    try:
        geojson = msgspec.json.decode(await request.body())
    except msgspec.DecodeError as error:
        raise invalid("body", f"is not JSON: {error}") from error
    found = check_site(geojson, "body")
    if found:
        errors = [
            ParameterProblem(parameter=each.feature, problem=f"{each.problem}. {each.remedy}")
            for each in found
        ]
        detail = f"The site file has {len(found)} problems; the first: {found[0]}"
        return response(document(INVALID, detail, request.url.path, errors))
    await state.sites.refresh()
    last = state.sites.newest
    if if_match is not None and etag_of(GeoJson(last.site.geojson)) not in if_match:
        raise ProblemError(SITE_CHANGED, SITE_CHANGED.meaning)
    new = parse_site(geojson, "body")
    try:
        update = await state.services.sites.update(
            actor, unscaled(new), None if if_match is None else last.number
        )
    except SiteVersionError as error:
        raise ProblemError(SITE_CHANGED, SITE_CHANGED.meaning) from error
    except SiteError as error:
        raise invalid("id", f"{error.problem}. {error.remedy}") from error
    return Json({"version": update.version, "effective": iso(update.from_s), "changes": update.changes})


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
