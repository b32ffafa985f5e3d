"""Commands to devices."""

from __future__ import annotations

from typing import Any, Literal

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


COMMAND: dict[str, Any] = {
    "id": "5f0c2b9a7d13e486",
    "command": "interval",
    "state": "acknowledged",
    "created": "2026-11-24T12:59:58.000Z",
    "expires": "2026-11-25T12:59:58.000Z",
    "interval_s": 30.0,
    "until": None,
    "text": None,
    "sent": "2026-11-24T12:59:58.020Z",
    "answered": "2026-11-24T12:59:58.310Z",
    "answer": "every 30 s",
}
COMMANDS: dict[str, Any] = {"commands": [COMMAND]}
