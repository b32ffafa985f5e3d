"""Health, readiness and scaling."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from headcount.api.schemas.base import Schema


class HealthResponse(Schema):
    """The process answers."""

    status: Literal["alive"]


class ReadinessResponse(Schema):
    """The counts are live."""

    status: Literal["ready"]
    at: str
    age_s: float


class ScalingTargetEntry(Schema):
    """One role of the fleet."""

    role: Literal["broker", "count"]
    wanted: int = Field(description="Desired number of units.")
    actual: int = Field(description="Actual number of units, without those that are leaving.")
    least: int = Field(description="Configured minimum.")
    most: int = Field(description="Configured maximum.")


class ScalingDecisionEntry(Schema):
    """One change and its reason."""

    at: str
    role: Literal["broker", "count"]
    before: int
    after: int
    reason: str = Field(description="In words, with the numbers.")
    dry: bool = Field(description="Logged only, not carried out.")


class ScalingResponse(Schema):
    """The state of the autoscaler."""

    name: str = Field(description="The autoscaler that decides.")
    at: str = Field(description="When it last polled, by its own clock.")
    age_s: float = Field(description="Seconds since its last report was received.")
    driver: str = Field(description="How units are started and stopped: `process`, `docker` or `none`.")
    dry_run: bool
    targets: list[ScalingTargetEntry]
    signals: dict[str, float | None] = Field(description="By name; null = currently unknown.")
    decisions: list[ScalingDecisionEntry] = Field(description="The last 50, newest last.")


READY: dict[str, Any] = {"status": "ready", "at": "2026-11-24T13:00:00.100Z", "age_s": 0.12}
SCALING: dict[str, Any] = {
    "name": "core-4f02aa",
    "at": "2026-11-24T10:00:02.000Z",
    "age_s": 0.4,
    "driver": "docker",
    "dry_run": False,
    "targets": [
        {"role": "broker", "wanted": 2, "actual": 2, "least": 1, "most": 4},
        {"role": "count", "wanted": 3, "actual": 2, "least": 1, "most": 8},
    ],
    "signals": {"fixes_per_s": 41200.0, "lag": 12.0, "latency_p99_s": 0.148, "connections": 6100.0},
    "decisions": [
        {
            "at": "2026-11-24T10:00:00.000Z",
            "role": "count",
            "before": 2,
            "after": 3,
            "reason": "41200 fixes/s need 2.35 of 17500 each",
            "dry": False,
        }
    ],
}
