"""Device traces."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from headcount.api.schemas.base import Schema
from headcount.messages.records import RefusalAction, RefusalReason
from headcount.messages.topics import Kind


class TraceCheck(Schema):
    """A line of rule 1 that was checked; the last one of a fix decided."""

    line: int = Field(description="In the table of rule 1, from 1.")
    verdict: str
    matched: bool
    value: float | None = Field(description="The value that was compared; null: none.")
    limit: float | None = Field(description="The limit that it was compared with.")
    unit: str = Field(description="The unit of both: `s`, `m`, or none.")


class TraceEdge(Schema):
    """A zone that the device was or is a member of, or that is near (rule 2)."""

    zone: str
    inside: bool = Field(description="Whether the zone covers the position.")
    edge_m: float = Field(description="Distance to the zone's edge; negative inside.")
    margin_m: float = Field(description="How far outside a member may be, with this accuracy.")
    member_before: bool
    member: bool


class TraceZoneChange(Schema):
    """A change of membership."""

    zone: str
    type: Literal["enter", "exit"]
    t: str | None
    reason: Literal["moved", "outside", "coarse", "silent", "removed", "site"]


class TraceLine(Schema):
    """One message, or a site change, and its effect."""

    received: str
    what: Literal["fix", "online", "offline", "forgotten", "site"]
    t: str | None = Field(description="When the device measured it.")
    lat: float | None
    lon: float | None
    acc: float | None
    verdict: str | None = Field(description="null: the message is not a fix.")
    rule: str = Field(
        description="`1.9` is line 9 of rule 1; `3` a status; `6` a site change; or `forgotten`."
    )
    why: str = Field(description="One sentence, with the numbers.")
    checks: list[TraceCheck]
    edges: list[TraceEdge]
    changes: list[TraceZoneChange]
    zones: list[str] = Field(description="The device's zones afterwards.")


class TraceRefusal(Schema):
    """A publish, subscription or connection of the device that the broker refused."""

    at: str
    action: RefusalAction
    reason: RefusalReason
    topic: str


class TraceResponse(Schema):
    """A device's messages, each with its effect, and the device's state now."""

    site: str
    kind: Kind
    device: str
    since: str = Field(description="Where the replay starts, without state.")
    truncated: bool = Field(description="Whether the hour has more messages than are read.")
    messages: int = Field(description="Number of messages read.")
    lines: list[TraceLine]
    left: list[TraceZoneChange] = Field(description="Changes since its last message, by missing fixes.")
    zones: list[str] = Field(description="The device's zones at the end of the replay.")
    live: dict[str, Any] | None = Field(description="The counting worker's state; null: no answer.")
    agrees: bool | None = Field(description="Whether both place the device in the same zones.")
    refused: list[TraceRefusal] = Field(description="Refusals of the broker in the last hour: at most 10.")
