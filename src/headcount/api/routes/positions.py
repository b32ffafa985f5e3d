"""Positions: coarse cells for viewers, exact fixes for operators with a reason, and single devices."""

from __future__ import annotations

import math
import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query

from headcount.access.roles import Caller
from headcount.api.live_sites import ServedSite
from headcount.api.media_types import GeoJson, Json
from headcount.api.middleware.authorization import Reason, RequireScope
from headcount.api.middleware.site_access import KnownSiteId, SiteInPath
from headcount.api.parameters import DEFAULT_SPAN_S, At, DeviceId, From, To
from headcount.api.schemas import positions
from headcount.api.schemas.problems import invalid
from headcount.api.state import State
from headcount.history.queries import CELLS_PER_DEG, SLOT_S, CellCount, StoredFix
from headcount.messages.times import iso
from headcount.messages.topics import Kind
from headcount.services.positions import PositionQuery

MAX_LIMIT = 10_000
_MAX_TEXT = 20_000

router = APIRouter(prefix="/v1", tags=["positions"])
Watcher = Annotated[Caller, Depends(RequireScope("positions:read"))]
Asking = Annotated[Caller, Depends(RequireScope("positions:coarse", "positions:read"))]


@router.get(
    "/sites/{site}/fixes",
    summary="List stored positions in an area",
    response_class=GeoJson,
    response_model=positions.FixesResponse | positions.CellsResponse,
    response_description="With a reason and the right to it, fixes, newest first; else cells of a grid.",
    openapi_extra={"x-problems": ["history-unreadable", "too-many-queries"]},
)
async def list_fixes(
    site: SiteInPath,
    state: State,
    actor: Asking,
    reason: Reason = None,
    bbox: Annotated[
        str | None,
        Query(
            max_length=200,
            description="west,south,east,north in degrees",
            examples=["-8.58,52.67,-8.56,52.68"],
        ),
    ] = None,
    within: Annotated[
        str | None,
        Query(max_length=_MAX_TEXT, description="A zone's id, or a GeoJSON polygon", examples=["library"]),
    ] = None,
    near: Annotated[
        str | None,
        Query(max_length=200, description="lat,lon,radius in metres", examples=["52.6737,-8.5722,50"]),
    ] = None,
    at: At = None,
    from_: From = None,
    to: To = None,
    kind: Annotated[Kind | None, Query(description="Only this kind.")] = None,
    limit: Annotated[
        int, Query(ge=1, le=MAX_LIMIT, description="Maximum number of fixes, the newest ones.")
    ] = 1000,
) -> GeoJson:
    """List positions of the last 24 hours, in at most one of bbox, within and near.

    With the scope `positions:read` and a reason (header `Headcount-Reason`, or `reason`), which goes into the
    audit log: fixes under daily pseudonyms. With `at`, each device's last position at or before that
    moment; else all fixes from `from` to `to`.

    Otherwise, with `positions:coarse`: how many different devices were in each cell of 0.001 degrees
    (about 110 m) within each 5 minutes, if at least 5 (`--suppress-below`) were there. An
    area selects the cells that overlap it, a span selects whole 5 minutes; `at` selects the last 5 minutes that
    were complete.
    """
    if at is not None and (from_ is not None or to is not None):
        raise invalid("at", "excludes from and to")
    to_s = time.time() if to is None else to
    from_s = max(0.0, to_s - DEFAULT_SPAN_S) if from_ is None else from_
    if from_s > to_s:
        raise invalid("from", "is after `to`")
    area = {"bbox": bbox, "within": within, "near": near}
    query = PositionQuery(
        site=site.id,
        limit=limit,
        kind=kind,
        at_s=at,
        from_s=from_s,
        to_s=to_s,
        bbox=_numbers("bbox", bbox, 4),
        within=_polygon(site, within),
        near=_numbers("near", near, 3),
        area={name: value for name, value in area.items() if value is not None},
    )
    if reason is None or not actor.may("positions:read", site.id):
        return GeoJson(await state.positions.cells(query, lambda found: _collection("coarse", found, limit)))
    return GeoJson(
        await state.positions.fixes(actor, query, reason, lambda found: _collection("exact", found, limit))
    )


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


def _collection(precision: str, found: list[StoredFix] | list[CellCount], limit: int) -> bytes:
    """A GeoJSON FeatureCollection of at most `limit` features."""
    collection = {
        "type": "FeatureCollection",
        "precision": precision,
        "truncated": len(found) > limit,
        "features": [_feature(each) for each in found[:limit]],
    }
    return msgspec.json.encode(collection)


def _feature(found: StoredFix | CellCount) -> dict[str, Any]:
    geometry: dict[str, Any]
    properties: dict[str, Any]
    if isinstance(found, StoredFix):
        geometry = {"type": "Point", "coordinates": (found.lon, found.lat)}
        properties = {
            "device": found.device,
            "kind": found.kind,
            "t": iso(found.t),
            "acc": found.acc or None,
            "verdict": found.verdict,
        }
    else:
        south, west = found.south, found.west
        north, east = (round(edge + 1 / CELLS_PER_DEG, 3) for edge in (south, west))
        ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        properties = {
            "kind": found.kind,
            "from": iso(found.t),
            "to": iso(found.t + SLOT_S),
            "devices": found.devices,
        }
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _numbers(name: str, text: str | None, n: int) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise invalid(name, f"expected {n} numbers with commas between") from None
    if len(numbers) != n or not all(map(math.isfinite, numbers)):
        raise invalid(name, f"expected {n} finite numbers with commas between")
    return numbers


def _polygon(site: ServedSite, within: str | None) -> Any:
    """The geometry of a zone, or the GeoJSON text as it is, which the query checks."""
    if within is None or within.lstrip().startswith("{"):
        return within
    index = site.live.index.get(within)
    if index is None:
        raise invalid("within", f"is neither a zone nor a GeoJSON polygon: {within[:64]!r}")
    return site.site.zones[index].geometry
