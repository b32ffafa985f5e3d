"""Commands to devices and their replies, as sent over MQTT (JSON)."""

from __future__ import annotations

from typing import Literal

import msgspec

#: `zones` and `clear_zones` are for the app OwnTracks, in its own format.
CommandKind = Literal["interval", "report", "pause", "message", "zones", "clear_zones"]


class CommandMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A command on COMMAND_TOPIC; it is repeated with the same id until the device replies or it expires."""

    id: str
    command: CommandKind
    expires: float
    interval_s: float | None = None
    until: float | None = None
    text: str | None = None


class CommandAck(msgspec.Struct):
    """A device's reply on ACK_TOPIC."""

    id: str
    ok: bool = True
    text: str = ""
