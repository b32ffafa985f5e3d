"""A person's own data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from headcount.api.schemas.base import Schema
from headcount.api.schemas.commands import CommandResponse
from headcount.messages.records import DeviceStatus
from headcount.messages.topics import Kind


class AccessEntry(Schema):
    """An access to this device's positions."""

    at: str
    actor: str
    action: str
    reason: str | None


class MeResponse(Schema):
    """A device, for its owner."""

    device: str
    site: str
    kind: Kind
    status: DeviceStatus
    label: str
    groups: list[str]
    aliases: list[str]
    created: str
    resume: str | None = Field(description="When a pause ends automatically.")
    connected: bool | None = Field(description="Whether its connection is open; null: unknown.")
    zones: list[str] = Field(description="The zones in which it is counted now.")
    last: dict[str, Any] | None = Field(description="The last position that was used, and the last verdict.")
    commands: list[CommandResponse]
    looks: list[AccessEntry] = Field(
        description="Accesses to this device alone, on days whose pseudonyms are still known."
    )


class PauseRequest(Schema):
    """The end of a pause; with neither field, it lasts until it is resumed."""

    until: Annotated[str | None, Field(max_length=64, description="RFC 3339.")] = None
    for_s: Annotated[
        float | None, Field(gt=0, le=366 * 86_400, allow_inf_nan=False, description="Seconds.")
    ] = None


class PauseResponse(Schema):
    """The device's status."""

    status: DeviceStatus
    resume: str | None


class ErasureResponse(Schema):
    """The start of an erasure."""

    status: Literal["erasing"]
    detail: str
