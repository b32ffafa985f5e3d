"""Why a single device is counted or not."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query

from headcount.access.audit_log import Value
from headcount.access.roles import Caller
from headcount.api.middleware.authorization import Reason, Require
from headcount.api.parameters import DeviceId, SiteId
from headcount.api.routes.sites import Json
from headcount.api.schemas import personal
from headcount.api.schemas.examples import failures, success
from headcount.api.schemas.problems import UNKNOWN_DEVICE, ProblemError, invalid
from headcount.api.services import Parts, known_site, parts_of
from headcount.devices.pseudonym_keys import daily_pseudonym
from headcount.devices.trace import DEFAULT_LIMIT, MAX_LIMIT, is_unknown, kinds_in_log
from headcount.messages.topics import Kind

router = APIRouter(prefix="/v1", tags=["devices"])
Running = Annotated[Parts, Depends(parts_of)]
Watcher = Annotated[Caller, Depends(Require("positions:read"))]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Messages at most, the newest.")]


@router.get(
    "/sites/{site}/devices/{device}/trace",
    summary="Why a device is counted or not",
    response_model=personal.TraceShape,
    responses={
        **success("Its last messages, oldest first, each with the rule that decided", personal.TRACE),
        **failures("unknown-site", "unknown-device", "invalid-parameter", "log-away"),
    },
)
async def trace(
    site: SiteId,
    device: DeviceId,
    parts: Running,
    who: Watcher,
    reason: Reason = None,
    kind: Annotated[
        Kind | None, Query(description="Of a device that isn't registered; without it, the one heard most.")
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Json:
    """A device's messages of the last hour, judged once more, with the numbers that decided.

    They are read from the log and given to an engine that begins with nothing at `since`; `live` is what the
    counting worker knows, and `agrees` whether both are in the same zones.

    It needs a reason (header `Headcount-Reason`, or `reason`), which goes into the audit log.
    """
    known_site(parts, site)
    if reason is None:
        raise invalid("reason", "a single device's positions need one; it goes into the audit log")
    chosen = await _kind(parts, site, device, kind)
    if chosen is None:
        raise _unknown(device)
    names = await parts.day_keys.pseudonyms_of(chosen, device)
    found = await parts.tracer.trace(parts.nats, chosen, device, limit=limit, names=names)
    if is_unknown(found):
        raise _unknown(device)
    detail: dict[str, Value] = {"reason": reason, "site": site, "rows": len(found.lines)}
    subject = await daily_pseudonym(parts.nats, chosen, device)
    await parts.audit.record("positions.trace", who.subject, subject, detail)
    return Json(msgspec.json.encode(found))


async def _kind(parts: Parts, site: str, device: str, kind: Kind | None) -> Kind | None:
    """As registered, else as asked for, else as heard."""
    registered = await parts.registry.get(device)
    if registered is not None:
        return registered.kind if registered.site == site else None
    if kind is not None:
        return kind
    heard = await kinds_in_log(parts.nats, site, device, parts.sources.partitions)
    return heard[0] if heard else None


def _unknown(device: str) -> ProblemError:
    return ProblemError(UNKNOWN_DEVICE, f"Nothing was heard of device {device!r} here within the last hour.")
