"""Health, readiness, metrics, the state of the autoscaler, and the meaning of problem types."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from headcount.access.roles import Caller
from headcount.api.media_types import Json, revalidated
from headcount.api.metrics import SCALER_TIMEOUT_S, broker_connections
from headcount.api.middleware.authorization import RequireScope
from headcount.api.middleware.identity import AnyCaller
from headcount.api.schemas import system
from headcount.api.schemas.problems import (
    NO_SCALER,
    NOT_FOUND,
    NOT_READY,
    TYPES,
    ProblemError,
    ProblemMeaning,
)
from headcount.api.state import ApiState, State
from headcount.errors import DataFolderError, StoreError
from headcount.messages.times import iso

_log = logging.getLogger(__name__)
router = APIRouter(tags=["system"])


@router.get("/healthz", summary="Check whether the process answers", response_description="It answers")
async def get_health() -> system.HealthResponse:
    """Always return 200: a process that does not answer should be restarted."""
    return system.HealthResponse(status="alive")


@router.get(
    "/readyz",
    summary="Check whether the counts are live",
    response_description="The counts are live",
    openapi_extra={"x-problems": ["not-ready"]},
)
async def get_readiness(state: State, caller: AnyCaller) -> system.ReadinessResponse:
    """Return 200 when the core is connected and every partition has reported the counts of all sites within 2 s.

    Otherwise, callers with the scope `system:read` see what is missing.
    """
    totals = [served.live.snapshot.total.at for served in state.live.current if served.live.snapshot]
    if _missing(state) or not totals:
        detail = " ".join(_missing(state, caller)) if caller.may("system:read") else ""
        raise ProblemError(NOT_READY, detail or NOT_READY.meaning, headers={"retry-after": "1"})
    at_s = min(totals)
    return system.ReadinessResponse(
        status="ready", at=iso(at_s), age_s=round(max(0.0, time.time() - at_s), 3)
    )


@router.get(
    "/metrics",
    dependencies=[Depends(RequireScope("system:read"))],
    summary="Get metrics for Prometheus",
    response_class=PlainTextResponse,
    response_description="Prometheus' text format",
)
async def get_metrics(state: State) -> Response:
    """Return fixes by verdict, rate, lag, latency, devices present, freshness, scaling, and the API's requests."""
    state.metrics.broker_connections = await broker_connections(state.settings.system)
    state.metrics.damaged_segments = await _damaged_segments(state)
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def _damaged_segments(state: ApiState) -> int | None:
    try:
        return await asyncio.to_thread(state.history.damaged)
    except (DataFolderError, StoreError) as error:
        _log.warning("the history cannot be read: %s", error)
        return None


@router.get(
    "/v1/system/scaling",
    dependencies=[Depends(RequireScope("system:read"))],
    summary="Get the state of the autoscaler",
    response_description="Its last report",
    openapi_extra={"x-problems": ["no-scaler"]},
)
async def get_scaling(state: State) -> system.ScalingResponse:
    """Return the autoscaler's signals, its targets for brokers and workers, and its last decisions with reasons."""
    found = state.metrics.scaling()
    if found is None:
        detail = f"No autoscaler reported within the last {SCALER_TIMEOUT_S:.0f} s."
        raise ProblemError(NO_SCALER, detail)
    scaling, age_s = found
    return system.ScalingResponse(
        name=scaling.name,
        at=iso(scaling.at),
        age_s=round(age_s, 3),
        driver=scaling.driver,
        dry_run=scaling.dry_run,
        targets=[
            system.ScalingTargetEntry(
                role=target.role,
                wanted=target.wanted,
                actual=target.actual,
                least=target.min_units,
                most=target.max_units,
            )
            for target in scaling.targets
        ],
        signals=scaling.signals,
        decisions=[
            system.ScalingDecisionEntry(**{**msgspec.structs.asdict(decision), "at": iso(decision.at)})
            for decision in scaling.decisions
        ],
    )


@router.get("/openapi.json", include_in_schema=False)
async def get_openapi(request: Request) -> Response:
    """Return the description of this API."""
    return revalidated(request, Json(request.app.openapi()))


@router.get("/problems/{name}", include_in_schema=False)
async def get_problem(name: str) -> ProblemMeaning:
    """Return what a problem type means and what to do about it."""
    kind = TYPES.get(name)
    if kind is None:
        raise ProblemError(NOT_FOUND, f"There is no problem type of this name. Types: {', '.join(TYPES)}.")
    return ProblemMeaning(
        type=f"/problems/{kind.name}", title=kind.title, status=kind.status, meaning=kind.meaning
    )


def _missing(state: ApiState, caller: Caller | None = None) -> list[str]:
    """Return the reasons why the counts are not live; with `caller`, those that they may see."""
    reasons = [] if state.core.connected else ["The core is not connected."]
    now_s = time.time()
    for served in state.live.current if caller is None else state.live.visible(caller):
        if not served.is_due(now_s):
            continue
        live, site = served.live, "" if len(state.live.current) == 1 else f"Site {served.id}: "
        overdue = live.overdue_partitions()
        if overdue:
            fresh = live.partitions - len(overdue)
            some = ", ".join(map(str, overdue[:8])) + (", …" if len(overdue) > 8 else "")
            reasons.append(f"{site}{fresh} of {live.partitions} partitions are fresh; overdue: {some}.")
        if live.age_s() is None:
            reasons.append(f"{site}No partition has reported since the start.")
    return reasons
