"""Health, readiness and scaling."""

from __future__ import annotations

from typing import Literal

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
