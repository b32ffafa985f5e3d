"""Positions: coarse cells for viewers, exact fixes for operators with a reason, and single devices."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from headcount.access.roles import Caller
from headcount.api.media_types import GeoJson, Json
from headcount.api.middleware.authorization import Reason, RequireScope
from headcount.api.middleware.site_access import KnownSiteId, SiteInPath
from headcount.api.parameters import DEFAULT_SPAN_S, At, DeviceId, From, To
from headcount.api.schemas import positions
from headcount.api.schemas.problems import invalid
from headcount.api.state import ApiState, State
from headcount.counting.site import Site
from headcount.history.at_instant import PresenceRules
from headcount.history.cursors import cursor_of
from headcount.history.queries import CELLS_PER_DEG, MAX_NEAREST, SLOT_S, CellCount, StoredFix
from headcount.messages.times import iso
from headcount.messages.topics import Kind
from headcount.services.positions import FixPage, PositionQuery

MAX_LIMIT = 10_000
GEOJSON_SEQ = "application/geo+json-seq"
Relation = Literal["intersects", "covered_by", "disjoint"]
_MAX_TEXT = 20_000

router = APIRouter(prefix="/v1", tags=["positions"])
Watcher = Annotated[Caller, Depends(RequireScope("positions:read"))]
Asking = Annotated[Caller, Depends(RequireScope("positions:coarse", "positions:read"))]


def _position_query(
    site: SiteInPath,
    bbox: Annotated[
        str | None,
        Query(
            max_length=200,
            description="west,south,east,north in degrees; over the 180th meridian, east is less than west",
            examples=["-8.58,52.67,-8.56,52.68"],
        ),
    ] = None,
    within: Annotated[
        str | None,
        Query(max_length=_MAX_TEXT, description="A zone's id, or a GeoJSON polygon", examples=["library"]),
    ] = None,
    near: Annotated[
        str | None,
        Query(
            max_length=200,
            description="lat,lon,radius in metres; with `k` also lat,lon",
            examples=["52.6737,-8.5722,50"],
        ),
    ] = None,
    relation: Annotated[
        Relation,
        Query(description="Of positions to the area: `covered_by` includes its edges, as `intersects`."),
    ] = "intersects",
    at: At = None,
    from_: From = None,
    to: To = None,
    kind: Annotated[Kind | None, Query(description="Only this kind.")] = None,
    k: Annotated[
        int | None,
        Query(ge=1, le=MAX_NEAREST, description="Only the devices that are, or came, nearest to `near`."),
    ] = None,
    limit: Annotated[
        int, Query(ge=1, le=MAX_LIMIT, description="Maximum number of features of a page.")
    ] = 1000,
    cursor: Annotated[
        str | None, Query(max_length=200, description="`next` of the page before; the other parameters stay.")
    ] = None,
) -> PositionQuery:
    """Return the parameters of a query for positions, checked as far as they depend on each other."""
    if at is not None and (from_ is not None or to is not None):
        raise invalid("at", "excludes from and to")
    place = None if cursor is None else cursor_of(cursor)
    to_s = time.time() if to is None else to
    from_s = max(0.0, to_s - DEFAULT_SPAN_S) if from_ is None else from_
    if place is not None and at is None:
        from_s, to_s = place.from_us / 1e6, place.to_us / 1e6
    if from_s > to_s:
        raise invalid("from", "is after `to`")
    area = {"bbox": bbox, "within": within, "near": near}
    version = site.site if at is None else site.versions.at(at).site  # in effect then
    return PositionQuery(
        site=site.id,
        limit=limit,
        kind=kind,
        at_s=at,
        rules=None if at is None else PresenceRules(version),
        from_s=from_s,
        to_s=to_s,
        bbox=_numbers("bbox", bbox, 4),
        within=_polygon(version, within),
        near=_numbers("near", near, *((3,) if k is None else (3, 2))),
        is_disjoint=relation == "disjoint",
        k=k,
        cursor=place,
        area={name: value for name, value in area.items() if value is not None},
    )


PositionFilters = Annotated[PositionQuery, Depends(_position_query)]
_FIXES: dict[str, Any] = {
    "response_class": GeoJson,
    "response_model": positions.FixesResponse | positions.CellsResponse,
    "response_description": "With a reason and the right to it, fixes, newest first; else cells of a grid.",
    "openapi_extra": {"x-problems": ["history-unreadable", "too-many-queries"]},
}


@router.get("/sites/{site}/fixes", summary="List stored positions in an area", **_FIXES)  # noqa: FAST003  # in _position_query
async def list_fixes(
    query: PositionFilters, state: State, actor: Asking, request: Request, reason: Reason = None
) -> Response:
    """List positions of the last 24 hours, in at most one of bbox, within and near, or outside of it.

    With the scope `positions:read` and a reason (header `Headcount-Reason`, or `reason`), which goes into the
    audit log: fixes under daily pseudonyms. With `at`, the positions at that moment of the devices that were
    present; else all fixes from `from` to `to`, newest first. `next` is the cursor of the next page. With the header
    `Accept: application/geo+json-seq`, the features come as a sequence (RFC 8142), and the next page in the header
    `Link`.

    Otherwise, with `positions:coarse`: how many different devices were in each cell of 0.001 degrees
    (about 110 m) within each 5 minutes, if at least 5 (`--suppress-below`) were there. An
    area selects the cells that overlap it, a span selects whole 5 minutes; `at` selects the last 5 minutes that
    were complete.
    """
    return await _answer(query, state, actor, request, reason)


@router.post("/sites/{site}/fixes", summary="List stored positions in a polygon", **_FIXES)  # noqa: FAST003  # in _position_query
async def list_fixes_in_polygon(
    query: PositionFilters,
    body: positions.AreaRequest,
    state: State,
    actor: Asking,
    request: Request,
    reason: Reason = None,
) -> Response:
    """List positions as GET does, in the Polygon or MultiPolygon of the body: GeoJSON that is too long for `within`.

    It has at most 10 000 vertices, and may be the geometry of a Feature.
    """
    geometry = (
        body.geometry if body.type == "Feature" else {"type": body.type, "coordinates": body.coordinates}
    )
    text = msgspec.json.encode(geometry).decode()
    area = {**query.area, "within": f"polygon of {len(text)} characters"}
    return await _answer(replace(query, within=text, area=area), state, actor, request, reason)


async def _answer(
    query: PositionQuery, state: ApiState, actor: Caller, request: Request, reason: str | None
) -> Response:
    if reason is None or not actor.may("positions:read", query.site):
        for name, given in (("k", query.k), ("cursor", query.cursor), ("relation", query.is_disjoint)):
            if given:
                raise invalid(name, "needs the scope positions:read and a reason")
        return GeoJson(await state.positions.cells(query, lambda found: _cells(found, query.limit)))
    is_sequence = GEOJSON_SEQ in request.headers.get("accept", "")
    render = _sequence if is_sequence else _collection
    body, next_ = await state.positions.fixes(actor, query, reason, render)
    response = Response(body, media_type=GEOJSON_SEQ) if is_sequence else GeoJson(body)
    if next_ is not None:
        response.headers["link"] = f'<{request.url.include_query_params(cursor=next_)}>; rel="next"'
    return response


@router.get(
    "/sites/{site}/devices/{kind}/{device}",
    summary="Get the state of a device",
    response_model=positions.DeviceStateResponse,
    response_description="Its state now",
    openapi_extra={"x-problems": ["unknown-device", "no-answer"]},
)
async def get_device_state(
    site: KnownSiteId, kind: Kind, device: DeviceId, state: State, actor: Watcher, reason: Reason = None
) -> Json:
    """Return a device's zones, its last position, and its last verdict, as the counting worker knows them.

    A reason is required (header `Headcount-Reason`, or `reason`). It goes into the audit log.
    """
    if reason is None:
        raise invalid("reason", "is required for a single device's position; it goes into the audit log")
    found = await state.positions.device(actor, site, kind, device, reason)
    return Json({"site": site, "kind": kind, "device": device, **found})


def _collection(page: FixPage) -> bytes:
    collection = {
        "type": "FeatureCollection",
        "precision": "exact",
        "truncated": page.next is not None,
        "next": page.next,
        "features": _features(page),
    }
    return msgspec.json.encode(collection)


def _sequence(page: FixPage) -> bytes:
    """The features as RFC 8142 separates them."""
    return b"".join(b"\x1e" + msgspec.json.encode(feature) + b"\n" for feature in _features(page))


def _features(page: FixPage) -> list[dict[str, Any]]:
    distances_m: Sequence[float | None] = page.distances_m or [None] * len(page.fixes)
    return [_fix(fix, distance_m) for fix, distance_m in zip(page.fixes, distances_m, strict=True)]


def _fix(fix: StoredFix, distance_m: float | None) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "device": fix.device,
        "kind": fix.kind,
        "t": iso(fix.t),
        "acc": fix.acc or None,
        "verdict": fix.verdict,
        "between": fix.is_between,
    }
    if distance_m is not None:
        properties["distance_m"] = round(distance_m, 2)
    geometry = {"type": "Point", "coordinates": (fix.lon, fix.lat)}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _cells(found: list[CellCount], limit: int) -> bytes:
    collection = {
        "type": "FeatureCollection",
        "precision": "coarse",
        "truncated": len(found) > limit,
        "features": [_cell(each) for each in found[:limit]],
    }
    return msgspec.json.encode(collection)


def _cell(found: CellCount) -> dict[str, Any]:
    south, west = found.south, found.west
    north, east = (round(edge + 1 / CELLS_PER_DEG, 3) for edge in (south, west))
    ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    properties = {
        "kind": found.kind,
        "from": iso(found.t),
        "to": iso(found.t + SLOT_S),
        "devices": found.devices,
    }
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }


def _numbers(name: str, text: str | None, *lengths: int) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise invalid(name, f"expected {lengths[0]} numbers with commas between") from None
    if len(numbers) not in lengths or not all(map(math.isfinite, numbers)):
        raise invalid(name, f"expected {lengths[0]} finite numbers with commas between")
    return numbers


def _polygon(site: Site, within: str | None) -> Any:
    """The geometry of a zone, or the GeoJSON text as it is, which the query checks."""
    if within is None or within.lstrip().startswith("{"):
        return within
    zone = next((zone for zone in site.zones if zone.id == within), None)
    if zone is None:
        raise invalid("within", f"is neither a zone nor a GeoJSON polygon: {within[:64]!r}")
    return zone.geometry
