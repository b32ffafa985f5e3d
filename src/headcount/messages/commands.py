"""Commands to devices and their answers, as sent over MQTT."""

from __future__ import annotations

from typing import Literal

import msgspec

CommandKind = Literal["interval", "report", "pause", "message"]


class CommandMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The message on `headcount/{site}/{kind}/{device}/cmd`. The same id may come more than once."""

    id: str
    command: CommandKind
    expires: float
    interval_s: float | None = None
    until: float | None = None
    text: str | None = None


class CommandAck(msgspec.Struct):
    """The message on `headcount/{site}/{kind}/{device}/ack`."""

    id: str
    ok: bool = True
    text: str = ""
