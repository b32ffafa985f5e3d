"""Positions: stored fixes and single devices. Only for programs on this machine."""

from __future__ import annotations

import math
import time
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query

from headcount.api import examples, shapes
from headcount.api.access import require_local
from headcount.api.examples import failures, success
from headcount.api.link import NoAnswerError
from headcount.api.parameters import At, DeviceId, From, SiteId, To
from headcount.api.parts import Parts, known_site, parts_of
from headcount.api.problems import NO_ANSWER, UNKNOWN_DEVICE, ProblemError, invalid
from headcount.api.sites import DEFAULT_SPAN_S, GEOJSON, GeoJson, Json
from headcount.history import query
from headcount.wire import KINDS, Kind, iso, partition_of

MAX_LIMIT = 10_000
_MAX_TEXT = 20_000

router = APIRouter(prefix="/v1", tags=["positions"], dependencies=[Depends(require_local)])
Running = Annotated[Parts, Depends(parts_of)]
Area = Annotated[str | None, Query(max_length=_MAX_TEXT)]


@router.get(
    "/sites/{site}/fixes",
    summary="Stored fixes in an area",
    response_class=GeoJson,
    response_model=shapes.FixesShape,
    responses={
        **success("The fixes, newest first", examples.FIXES, GEOJSON),
        **failures(
            "positions-only-local",
            "unknown-site",
            "invalid-parameter",
            "history-unreadable",
            "too-many-queries",
        ),
    },
)
async def fixes(
    site: SiteId,
    parts: Running,
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
    """Fixes of the last 24 hours with the day's pseudonyms; at most one of bbox, within and near.

    With `at`, each device's last position at or before that moment; else all fixes from `from` to `to`.
    Positions are personal data: only programs on this machine get them.
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
    if at is not None:
        question["at_s"] = at
    else:
        question["to_s"] = time.time() if to is None else to
        question["from_s"] = max(0.0, question["to_s"] - DEFAULT_SPAN_S) if from_ is None else from_
        if question["from_s"] > question["to_s"]:
            raise invalid("from", "is after `to`")
    return GeoJson(await parts.queries.run(lambda: _collection(parts, question, limit)))


@router.get(
    "/sites/{site}/devices/{kind}/{device}",
    summary="What is known of a device",
    response_model=shapes.DeviceShape,
    responses={
        **success("Its state now", examples.DEVICE),
        **failures(
            "positions-only-local", "unknown-site", "unknown-device", "invalid-parameter", "no-answer"
        ),
    },
)
async def device(site: SiteId, kind: Literal["person", "vehicle"], device: DeviceId, parts: Running) -> Json:
    """Why a device is counted or not: its zones, its last position, and how its fixes were judged.

    Positions are personal data: only programs on this machine get them.
    """
    known_site(parts, site)
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
    last_t = state.get("last_t")
    state["last_t"] = iso(last_t) if isinstance(last_t, int | float) else last_t
    return Json(msgspec.json.encode({"site": site, "kind": kind, "device": device, **state}))


def _collection(parts: Parts, question: dict[str, Any], limit: int) -> bytes:
    """The GeoJSON of a question's answer; blocks."""
    found = query.fixes(parts.sources.data, **question)
    features = [_feature(fix) for fix in found[:limit]]
    collection = {"type": "FeatureCollection", "truncated": len(found) > limit, "features": features}
    return msgspec.json.encode(collection)


def _feature(fix: query.StoredFix) -> dict[str, Any]:
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
