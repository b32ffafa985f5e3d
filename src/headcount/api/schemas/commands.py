"""Commands to devices."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from headcount.api.schemas.base import Schema
from headcount.messages.commands import CommandKind
from headcount.messages.topics import Kind


class CommandCreate(Schema):
    """The command to send, with the value that its kind needs."""

    command: CommandKind
    interval_s: float | None = Field(None, description="`interval`: seconds from fix to fix.")
    pause_s: float | None = Field(None, description="`pause`: for how many seconds the device sends nothing.")
    text: str | None = Field(
        None, description="`message`: the text that the device shows, 256 characters at most."
    )
    expires_s: float = Field(86_400.0, description="Seconds until it expires, 7 days at most.")
    kind: Kind | None = Field(None, description="Of a device that is not registered, where that is allowed.")


class CommandResponse(Schema):
    """A command and its state."""

    id: str
    command: CommandKind
    state: Literal["queued", "sent", "acknowledged", "refused", "expired"]
    created: str
    expires: str
    interval_s: float | None
    until: str | None = Field(description="`pause`: when the device continues.")
    text: str | None
    sent: str | None = Field(description="When the broker first received it.")
    answered: str | None
    answer: str = Field(description="The device's answer.")


class CommandListResponse(Schema):
    """A device's commands, newest first, with those that finished within the last day."""

    commands: list[CommandResponse]
