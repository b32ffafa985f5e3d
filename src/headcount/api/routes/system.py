"""For whoever runs it: is it alive, are its numbers live, and its metrics."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from headcount.access.roles import Caller
from headcount.api.metrics import SCALER_AWAY_S
from headcount.api.middleware.authorization import Require, caller_of
from headcount.api.schemas import system
from headcount.api.schemas.problems import NO_SCALER, NOT_READY, ProblemError
from headcount.api.schemas.responses import failures, success
from headcount.api.state import ApiState, State
from headcount.messages.times import iso

router = APIRouter(tags=["system"])


@router.get(
    "/healthz",
    summary="Whether the process answers",
    responses=success("It answers", {"status": "alive"}),
)
async def get_health() -> system.HealthResponse:
    """Always 200: a process that doesn't answer this should be restarted."""
    return system.HealthResponse(status="alive")


@router.get(
    "/readyz",
    summary="Whether the numbers are live",
    responses={**success("They are", system.READY), **failures("not-ready")},
)
async def get_readiness(state: State, who: Annotated[Caller, Depends(caller_of)]) -> system.ReadinessResponse:
    """200 when the broker is connected and every partition has reported within 2 s.

    Else what is missing, for those with the scope `system:read`.
    """
    reasons = _missing(state)
    if reasons or state.live.snapshot is None:
        told = " ".join(reasons) if who.may("system:read") else NOT_READY.meaning
        raise ProblemError(NOT_READY, told, headers={"retry-after": "1"})
    age_s = round(state.live.age_s() or 0.0, 3)
    return system.ReadinessResponse(status="ready", at=iso(state.live.snapshot.total.at), age_s=age_s)


@router.get(
    "/metrics",
    dependencies=[Depends(Require("system:read"))],
    summary="Metrics for Prometheus",
    response_class=Response,
    responses=success(
        "Prometheus' text format",
        'headcount_fixes_total{kind="person",verdict="accepted"} 12345.0\n',
        "text/plain",
    ),
)
async def get_metrics(state: State) -> Response:
    """Fixes by verdict, rate, lag, latency, devices present, freshness, scaling, and the API's own requests."""
    state.metrics.broker_connections = await asyncio.to_thread(state.metrics.ask_connections)
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get(
    "/v1/system/scaling",
    dependencies=[Depends(Require("system:read"))],
    summary="How large the fleet is, and why",
    responses={**success("What the scaler says", system.SCALING), **failures("no-scaler")},
)
async def get_scaling(state: State) -> system.ScalingResponse:
    """What the scaler sees, how many brokers and workers it wants, and its last decisions with their reasons."""
    told = state.metrics.scaling()
    if told is None:
        raise ProblemError(NO_SCALER, f"No scaler was heard within the last {SCALER_AWAY_S:.0f} s.")
    scaling, age_s = told
    return system.ScalingResponse(
        name=scaling.name,
        at=iso(scaling.at),
        age_s=round(age_s, 3),
        driver=scaling.driver,
        dry_run=scaling.dry_run,
        targets=[system.ScalingTargetEntry(**msgspec.structs.asdict(target)) for target in scaling.targets],
        signals=scaling.signals,
        decisions=[
            system.ScalingDecisionEntry(**{**msgspec.structs.asdict(decision), "at": iso(decision.at)})
            for decision in scaling.decisions
        ],
    )


def _missing(state: ApiState) -> list[str]:
    live, reasons = state.live, []
    if not state.core.connected:
        reasons.append("The broker is not connected.")
    silent = live.silent()
    if silent:
        fresh = live.partitions - len(silent)
        some = ", ".join(map(str, silent[:8])) + (", …" if len(silent) > 8 else "")
        reasons.append(f"{fresh} of {live.partitions} partitions are fresh; silent: {some}.")
    age_s = live.age_s()
    if age_s is None:
        reasons.append("No partition has reported since the start.")
    return reasons
