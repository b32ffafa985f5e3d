"""Positions: where people were, coarsely; with a reason that is written down, exactly."""

from __future__ import annotations

import math
import time
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query

from headcount.access.audit_log import Value
from headcount.access.roles import Caller
from headcount.api.core_connection import NoAnswerError
from headcount.api.middleware.authorization import Reason, Require, RequireAny
from headcount.api.parameters import At, DeviceId, From, SiteId, To
from headcount.api.routes.sites import DEFAULT_SPAN_S, GEOJSON, GeoJson, Json
from headcount.api.schemas import examples, responses
from headcount.api.schemas.examples import failures, success
from headcount.api.schemas.problems import NO_ANSWER, UNKNOWN_DEVICE, ProblemError, invalid
from headcount.api.services import Parts, known_site, parts_of
from headcount.devices.pseudonym_keys import daily_pseudonym
from headcount.history import queries
from headcount.messages.times import iso
from headcount.messages.topics import KINDS, Kind, partition_of
from headcount.settings import SMALLEST_SHOWN

MAX_LIMIT = 10_000
_MAX_TEXT = 20_000
#: Rows come into the history within about a minute: a slot is told when no more are to be expected.
_WRITTEN_S = 120.0

router = APIRouter(prefix="/v1", tags=["positions"])
Running = Annotated[Parts, Depends(parts_of)]
Watcher = Annotated[Caller, Depends(Require("positions:read"))]
Asking = Annotated[Caller, Depends(RequireAny("positions:coarse", "positions:read"))]


@router.get(
    "/sites/{site}/fixes",
    summary="Stored positions in an area",
    response_class=GeoJson,
    response_model=responses.FixesShape | responses.CellsShape,
    responses={
        200: {
            "description": "With a reason and the right to it, fixes, newest first; else cells of a grid.",
            "content": {
                GEOJSON: {
                    "examples": {"exact": {"value": examples.FIXES}, "coarse": {"value": examples.CELLS}}
                }
            },
        },
        **failures("unknown-site", "invalid-parameter", "history-unreadable", "too-many-queries", "log-away"),
    },
)
async def fixes(
    site: SiteId,
    parts: Running,
    who: Asking,
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
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Fixes at most, the newest.")] = 1000,
) -> GeoJson:
    """Positions of the last 24 hours; at most one of bbox, within and near.

    With the scope `positions:read` and a reason (header `Headcount-Reason`, or `reason`), which goes into the
    audit log: fixes with the day's pseudonyms. With `at`, each device's last position at or before that
    moment; else all fixes from `from` to `to`.

    Otherwise, with `positions:coarse`: how many different devices were in each cell of 0.001 degrees
    (about 110 m) within each 5 minutes, where those are 5 or more (or as many as `--suppress-below` says). An
    area chooses cells by their middle, a span whole 5 minutes; with `at`, the last 5 minutes that were over.
    """
    known_site(parts, site)
    if at is not None and (from_ is not None or to is not None):
        raise invalid("at", "can't go with from and to: it looks back by itself")
    question: dict[str, Any] = {
        "bbox": _numbers("bbox", bbox, 4),
        "within": _polygon(parts, within),
        "near": _numbers("near", near, 3),
        "limit": limit + 1,
        "kinds": KINDS if kind is None else (kind,),
    }
    to_s = time.time() if to is None else to
    from_s = max(0.0, to_s - DEFAULT_SPAN_S) if from_ is None else from_
    if from_s > to_s:
        raise invalid("from", "is after `to`")
    if reason is None or not who.may("positions:read", site):
        question |= _slots(at, from_s, to_s) | {"k": smallest_cell(parts)}
        return GeoJson(await parts.queries.run(lambda: _cells(parts, question, limit)))
    question |= {"at_s": at} if at is not None else {"from_s": from_s, "to_s": to_s}
    answer, rows = await parts.queries.run(lambda: _collection(parts, question, limit))
    detail: dict[str, Value] = {
        "reason": reason,
        "site": site,
        "rows": rows,
        "kind": kind or "any",
        "limit": limit,
    }
    area = {"bbox": bbox, "within": within, "near": near}
    span = {"at": iso(at)} if at is not None else {"from": iso(from_s), "to": iso(to_s)}
    detail |= {name: value for name, value in area.items() if value is not None} | span
    await parts.audit.record("positions.read", who.subject, "", detail)
    return GeoJson(answer)


@router.get(
    "/sites/{site}/devices/{kind}/{device}",
    summary="What is known of a device",
    response_model=responses.DeviceShape,
    responses={
        **success("Its state now", examples.DEVICE),
        **failures("unknown-site", "unknown-device", "invalid-parameter", "no-answer", "log-away"),
    },
)
async def device(
    site: SiteId,
    kind: Literal["person", "vehicle"],
    device: DeviceId,
    parts: Running,
    who: Watcher,
    reason: Reason = None,
) -> Json:
    """Why a device is counted or not: its zones, its last position, and how its fixes were judged.

    It needs a reason (header `Headcount-Reason`, or `reason`), which goes into the audit log.
    """
    known_site(parts, site)
    if reason is None:
        raise invalid("reason", "a single device's position needs one; it goes into the audit log")
    partition = partition_of(site, device, parts.sources.partitions)
    question = msgspec.json.encode({"kind": kind, "device": device})
    try:
        state = msgspec.json.decode(await parts.link.ask(partition, question), type=dict[str, Any])
    except NoAnswerError as error:
        raise ProblemError(
            NO_ANSWER, f"{error}. {NO_ANSWER.meaning}", headers={"retry-after": "1"}
        ) from error
    if not state:
        raise ProblemError(UNKNOWN_DEVICE, f"Nothing was received from {kind} {device!r} on site {site!r}.")
    detail: dict[str, Value] = {"reason": reason, "site": site, "kind": kind, "rows": 1}
    subject = await daily_pseudonym(parts.nats, kind, device)
    await parts.audit.record("positions.device", who.subject, subject, detail)
    last_t = state.get("last_t")
    state["last_t"] = iso(last_t) if isinstance(last_t, int | float) else last_t
    return Json(msgspec.json.encode({"site": site, "kind": kind, "device": device, **state}))


def smallest_cell(parts: Parts) -> int:
    """How many devices a cell must have to be told; also where everything is open, more than one."""
    return parts.sources.smallest_shown if parts.sources.smallest_shown > 1 else SMALLEST_SHOWN


def _slots(at: float | None, from_s: float, to_s: float) -> dict[str, float]:
    """Whole slots that are over, so that nothing is learnt from one that grows."""
    over_s = math.floor((time.time() - _WRITTEN_S) / queries.SLOT_S) * queries.SLOT_S
    if at is not None:
        end_s = min(math.floor(at / queries.SLOT_S) * queries.SLOT_S, over_s)
        return {"from_s": max(0, end_s - queries.SLOT_S), "to_s": max(0, end_s)}
    return {"from_s": from_s, "to_s": max(from_s, min(to_s, over_s))}


def _cells(parts: Parts, question: dict[str, Any], limit: int) -> bytes:
    """The GeoJSON of a question to the grid; blocks."""
    found = queries.cells(parts.sources.data, **question)
    collection = {
        "type": "FeatureCollection",
        "precision": "coarse",
        "truncated": len(found) > limit,
        "features": [_square(cell) for cell in found[:limit]],
    }
    return msgspec.json.encode(collection)


def _square(cell: queries.Cell) -> dict[str, Any]:
    south, west = cell.south, cell.west
    north, east = (round(edge + 1 / queries.CELLS_PER_DEG, 3) for edge in (south, west))
    ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "kind": cell.kind,
            "from": iso(cell.t),
            "to": iso(cell.t + queries.SLOT_S),
            "devices": cell.devices,
        },
    }


def _collection(parts: Parts, question: dict[str, Any], limit: int) -> tuple[bytes, int]:
    """The GeoJSON of a question's answer, and how many fixes are in it; blocks."""
    found = queries.fixes(parts.sources.data, **question)
    features = [_feature(fix) for fix in found[:limit]]
    collection = {
        "type": "FeatureCollection",
        "precision": "exact",
        "truncated": len(found) > limit,
        "features": features,
    }
    return msgspec.json.encode(collection), len(features)


def _feature(fix: queries.StoredFix) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": (fix.lon, fix.lat)},
        "properties": {
            "device": fix.device,
            "kind": fix.kind,
            "t": iso(fix.t),
            "acc": fix.acc or None,
            "verdict": fix.verdict,
        },
    }


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


def _polygon(parts: Parts, within: str | None) -> Any:
    """The geometry of a zone, or the GeoJSON text as it is: the history looks at it."""
    if within is None or within.lstrip().startswith("{"):
        return within
    index = parts.live.index.get(within)
    if index is None:
        raise invalid("within", f"is neither a zone nor a GeoJSON polygon: {within[:64]!r}")
    return parts.sources.site.zones[index].geometry
