"""The sites and their zones."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import Response

from headcount.access.roles import Caller
from headcount.api.media_types import GEOJSON, GeoJson, Json, etag_of, revalidated
from headcount.api.middleware.authorization import RequireScope
from headcount.api.middleware.identity import AnyCaller
from headcount.api.middleware.site_access import KnownSiteId, SiteInPath
from headcount.api.parameters import SiteId
from headcount.api.problem_handlers import problem_of
from headcount.api.schemas import sites
from headcount.api.schemas.problems import (
    INVALID,
    SITE_CHANGED,
    SITE_LIMIT,
    ParameterProblem,
    ProblemError,
    document,
    invalid,
    response,
)
from headcount.api.state import ApiState, State
from headcount.counting.site import Site
from headcount.counting.site_diff import site_diff
from headcount.counting.site_file import check_site, parse_site, unscaled
from headcount.errors import SiteLimitError, SiteVersionError, UnknownSiteError
from headcount.messages.times import iso

router = APIRouter(prefix="/v1", tags=["counts"])
Editor = Annotated[Caller, Depends(RequireScope("sites:write"))]


@router.get(
    "/sites",
    summary="List sites",
    response_model=sites.SiteListResponse,
    response_description="The sites",
)
async def list_sites(request: Request, state: State, caller: AnyCaller) -> Response:
    """List the sites that you may see, with the addresses of their resources."""
    return revalidated(request, Json({"sites": [_summary(each.site) for each in state.live.visible(caller)]}))


@router.get(
    "/sites/{site}",
    summary="Get a site and its zones as GeoJSON",
    response_class=GeoJson,
    response_model=sites.SiteResponse,
    response_description="The site file",
)
async def get_site(site: SiteInPath, request: Request) -> Response:
    """Return the site's boundary and its zones, with names, types and capacities, as GeoJSON."""
    return revalidated(request, GeoJson(site.site.geojson))


@router.put(
    "/sites/{site}",
    summary="Add or change a site",
    response_model=sites.SiteUpdateResponse,
    response_description="The accepted version, when it takes effect, and how it differs",
    responses={201: {"description": "The site is added", "model": sites.SiteUpdateResponse}},
    openapi_extra={
        "x-problems": ["site-changed", "site-limit"],
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
    if_none_match: Annotated[str | None, Header(description="`*`: only add the site.")] = None,
) -> Response:
    """Add a site, or replace the file of a site. It takes effect some seconds later, without a restart.

    The body is the whole site file as GeoJSON, with the id in the path; it is validated like `headcount site check`, and
    `errors` lists all problems. With `If-Match`, the request fails if another version was accepted since you read the
    site; with `If-None-Match: *`, if there is a site with this id.
    """
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
    new = unscaled(parse_site(geojson, "body"))
    if new.id != site:
        raise invalid("id", f"is {new.id!r} in the site file, and {site[:64]!r} in the address")
    service = state.services.sites
    last = next((each for each in await service.sites() if each.site == site), None)
    if (last is None and if_match is not None) or (last is not None and if_none_match == "*"):
        raise ProblemError(SITE_CHANGED, SITE_CHANGED.meaning)
    try:
        if last is None:
            added = await service.add(actor, new)
            body = {"version": added.number, "effective": iso(added.from_s), "changes": site_diff(new, new)}
            answer = Json(body, 201, {"location": f"/v1/sites/{site}"})
        else:
            if if_match is not None:
                await _check_match(state, site, last.number, if_match)
            update = await service.update(actor, new, None if if_match is None else last.number)
            answer = Json(
                {"version": update.version, "effective": iso(update.from_s), "changes": update.changes}
            )
    except SiteVersionError as error:
        raise _site_problem(error) from error
    await _follow(state)
    return answer


@router.delete(
    "/sites/{site}",
    summary="Remove a site",
    response_model=sites.SiteRemovalResponse,
    response_description="When it takes effect",
    openapi_extra={"x-problems": ["site-changed", "site-limit"]},
)
async def delete_site(site: KnownSiteId, state: State, actor: Editor) -> Response:
    """Remove a site. Some seconds later all devices leave it, its fixes are counted no longer, and its streams end.

    Its history expires after 24 hours, and its devices stay registered. The last site cannot be removed.
    """
    try:
        removed = await state.services.sites.remove(actor, site)
    except SiteVersionError as error:
        raise _site_problem(error) from error
    await _follow(state)
    return Json({"version": removed.number, "effective": iso(removed.from_s)})


async def _check_match(state: ApiState, site: str, number: int, if_match: str) -> None:
    """Check that the edited version was the last one, as it is served."""
    await state.sites.refresh()
    served = state.live.named(site)
    version = served.versions.numbered(number) if served else None
    if version is None or etag_of(GeoJson(version.site.geojson)) not in if_match:
        raise ProblemError(SITE_CHANGED, SITE_CHANGED.meaning)


def _site_problem(error: SiteVersionError) -> ProblemError:
    if isinstance(error, SiteLimitError):
        return ProblemError(SITE_LIMIT, f"{error}.")
    if isinstance(error, UnknownSiteError):  # it is being removed
        return problem_of(error)
    return ProblemError(SITE_CHANGED, SITE_CHANGED.meaning)


async def _follow(state: ApiState) -> None:
    """Serve a change that was just stored."""
    await state.sites.refresh()
    state.live.on_new_versions()


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
