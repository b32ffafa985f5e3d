"""Fixes of devices over HTTP: `/v1/fixes`, and `/v1/osmand` for OsmAnd and Traccar Client."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from headcount.api.media_types import GEOJSON, Json
from headcount.api.middleware.device_authentication import AuthenticatedDevice
from headcount.api.middleware.ingest_key import device_of_ingest_key
from headcount.api.schemas import ingest
from headcount.api.schemas.problems import (
    BAD_REQUEST,
    NOT_STORED,
    TOO_LONG,
    UNKNOWN_SITE,
    UNSUPPORTED,
    ParameterProblem,
    ProblemError,
)
from headcount.api.state import ApiState, State
from headcount.decoders import osmand
from headcount.decoders.http_body import MAX_FIXES, decode_body
from headcount.decoding import DecodeError
from headcount.errors import LogError
from headcount.messages.records import Device
from headcount.messages.topics import Kind
from headcount.services.ingest import Receipt

NDJSON = "application/x-ndjson"
#: Each may have any of the forms of `decode_body`; without a media type, too.
_MEDIA_TYPES = ("application/json", NDJSON, GEOJSON, "text/plain", "")
_MAX_SHOWN = 10
_SITE_REMOVED = "The site of this device was removed."
_MAX_KEY_CHARS = 255
#: The receipt of the fix, for people who try it with curl: the apps get the empty body that they expect.
VERDICT_HEADER = "headcount-verdict"

_FIX = {"$ref": "#/components/schemas/FixBody"}

router = APIRouter(prefix="/v1", tags=["fixes"])


@router.post(
    "/fixes",
    summary="Send fixes",
    response_model=ingest.ReceiptsResponse,
    response_description="All fixes are stored",
    responses={207: {"description": "Some fixes are stored", "model": ingest.ReceiptsResponse}},
    openapi_extra={
        "x-problems": ["bad-request", "unsupported-media-type", "fixes-rejected", "unknown-site"],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"anyOf": [_FIX, {"type": "array", "maxItems": MAX_FIXES, "items": _FIX}]}
                },
                NDJSON: {"schema": {"type": "string", "format": "binary"}},
                GEOJSON: {"schema": {"type": "object"}},
                "text/plain": {
                    "schema": {"type": "string", "format": "binary"},
                    "example": "eyJsYXQiOjUyLjY3LCJsb24iOi04LjU3fQ==",
                },
            },
        },
    },
)
async def create_fixes(
    request: Request,
    device: AuthenticatedDevice,
    state: State,
    kind: Annotated[
        Kind | None,
        Query(description="For gateways: the kind of devices that are not registered. Default: its own."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=_MAX_KEY_CHARS,
            description="Any text that only repetitions of this request have. For two minutes, a repetition "
            "stores nothing again.",
        ),
    ] = None,
) -> Json:
    """Send one fix or up to 1000: an object, an array, one per line, GeoJSON, or Base64 of these.

    The answer comes when the log has all stored fixes on disk. They are stored in the order of their event times.
    A gateway sends fixes of several devices, each with its `id`.
    """
    if not _is_counted(state, device):
        raise ProblemError(UNKNOWN_SITE, _SITE_REMOVED)
    lines = _media_type(request) == NDJSON
    body = await request.body()
    try:
        decoded = decode_body(body, time.time(), kind or device.kind, lines=lines)
    except DecodeError as error:
        state.limits.take_fixes(device, 1)
        raise _body_problem(error) from error
    state.limits.take_fixes(device, max(1, len(decoded)))
    repeatable = "" if idempotency_key is None else _digest(idempotency_key, body)
    receipts = await state.ingest.store_named(device, decoded, repeatable)
    state.metrics.http.count_fixes("fixes", receipts)
    return _answer(receipts)


@router.get(
    "/osmand",
    summary="Send a fix as OsmAnd does",
    response_class=Response,
    response_description="The fix is stored, or can never be; the header `Headcount-Verdict` has the verdict",
    openapi_extra={"x-problems": ["unknown-ingest-key"], "security": [{"ingest_key": []}]},
)
async def get_osmand(request: Request, state: State) -> Response:
    """Take a fix from the query: `id` (the ingest key), `lat`, `lon`, `timestamp`, `accuracy`, `speed` (knots) and others.

    Unknown parameters are ignored. A fix that can never be stored gets 200, too: the apps repeat anything else
    for ever.
    """
    return await _osmand(request, state)


@router.post(
    "/osmand",
    summary="Send fixes as Traccar Client does",
    response_class=Response,
    response_description="The fixes are stored, or can never be; the header `Headcount-Verdict` has the verdict",
    openapi_extra={
        "x-problems": ["unknown-ingest-key"],
        "security": [{"ingest_key": []}],
        "requestBody": {
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "application/x-www-form-urlencoded": {"schema": {"type": "object"}},
            }
        },
    },
)
async def create_osmand(request: Request, state: State) -> Response:
    """Take fixes as Traccar Client sends them: in the query, in a form, or as JSON since version 9.

    The identifier of the app is the ingest key. Unknown fields are ignored, and a fix that can never be stored
    gets 200, as in GET.
    """
    return await _osmand(request, state)


async def _osmand(request: Request, state: ApiState) -> Response:
    try:
        report = osmand.read_report(request.query_params, await request.body())
    except DecodeError as error:
        raise _body_problem(error) from error
    device = await device_of_ingest_key(request, report.identifier)
    decoded = osmand.decode_report(report, time.time())
    state.limits.take_fixes(device, max(1, len(decoded)))
    if _is_counted(state, device):
        receipts = await state.ingest.store(device, decoded)
    else:
        receipts = [Receipt("inactive", _SITE_REMOVED)] * len(decoded)
    state.metrics.http.count_fixes("osmand", receipts)
    verdicts = dict.fromkeys(receipt.verdict for receipt in receipts)
    return Response(headers={VERDICT_HEADER: ", ".join(verdicts)})


def _is_counted(state: ApiState, device: Device) -> bool:
    """Whether the site of a device exists: fixes of a removed one would be stored, but never counted.

    Raises:
        LogError: that is not known yet.
    """
    if state.live.named(device.site) is not None:
        return True
    if not state.sites.is_read:
        raise LogError("the sites have not been read yet")
    return False


def _media_type(request: Request) -> str:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity")
    if media_type not in _MEDIA_TYPES or encoding != "identity":
        found = media_type if media_type not in _MEDIA_TYPES else encoding
        raise ProblemError(UNSUPPORTED, f"{found[:64]!r} is not supported. {UNSUPPORTED.meaning}")
    return media_type


def _body_problem(error: DecodeError) -> ProblemError:
    if error.label == "too_many":
        return ProblemError(TOO_LONG, f"{error.problem} Split the request.")
    return ProblemError(BAD_REQUEST, f"The body is not valid: {error.problem}.")


def _digest(key: str, body: bytes) -> str:
    return hashlib.blake2b(key.encode() + b"\0" + body, digest_size=16).hexdigest()


def _answer(receipts: Sequence[Receipt]) -> Json:
    stored = sum(receipt.verdict == "stored" for receipt in receipts)
    if receipts and not stored:
        shown = [
            ParameterProblem(parameter=str(index), problem=f"{verdict}: {problem}")
            for index, (verdict, problem) in enumerate(receipts[:_MAX_SHOWN])
        ]
        detail = "; ".join(f"{each.parameter}: {each.problem}" for each in shown)
        raise ProblemError(NOT_STORED, detail, errors=shown)
    fixes = [
        {"verdict": verdict} | ({"problem": problem} if problem else {}) for verdict, problem in receipts
    ]
    return Json({"stored": stored, "fixes": fixes}, 200 if stored == len(receipts) else 207)
