"""Shapes and examples of what is about one device: traces, commands, a person's own data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from headcount.api.schemas.responses import Shape
from headcount.messages.commands import CommandKind
from headcount.messages.records import DeviceStatus
from headcount.messages.topics import Kind


# --- traces --------------------------------------------------------------------------------------
class CheckShape(Shape):
    """A line of rule 1 that was looked at; the last one of a fix decided."""

    line: int = Field(description="In the table of rule 1, from 1.")
    verdict: str
    matched: bool
    value: float | None = Field(description="What was compared; null: nothing.")
    limit: float | None = Field(description="With what.")
    unit: str = Field(description="Of both: `s`, `m`, or nothing.")


class EdgeShape(Shape):
    """A zone that the device was or is a member of, or that is near (rule 2)."""

    zone: str
    inside: bool = Field(description="Whether the zone covers the position.")
    edge_m: float = Field(description="Distance to the zone's edge; negative inside.")
    margin_m: float = Field(description="So far outside a member may be.")
    member_before: bool
    member: bool


class ChangeShape(Shape):
    """A change of membership."""

    zone: str
    type: Literal["enter", "exit"]
    t: str | None
    reason: Literal["moved", "outside", "silent", "removed"]


class LineShape(Shape):
    """What became of one message."""

    received: str
    what: Literal["fix", "online", "offline", "forgotten"]
    t: str | None = Field(description="When the device measured it.")
    lat: float | None
    lon: float | None
    acc: float | None
    verdict: str | None = Field(description="null: it is no fix.")
    rule: str = Field(description="`1.8` is line 8 of rule 1; `3` a status; or `forgotten`.")
    why: str = Field(description="One sentence, with the numbers.")
    checks: list[CheckShape]
    edges: list[EdgeShape]
    changes: list[ChangeShape]
    zones: list[str] = Field(description="Of which it was a member afterwards.")


class TraceShape(Shape):
    """What became of a device's messages, and what is known of it now."""

    site: str
    kind: Kind
    device: str
    since: str = Field(description="Where the replay begins, with nothing known.")
    truncated: bool = Field(description="Whether the hour had too many messages to read all.")
    messages: int = Field(description="How many were read.")
    lines: list[LineShape]
    left: list[ChangeShape] = Field(description="By silence, since its last message.")
    zones: list[str] = Field(description="Of which it is a member where the replay ends.")
    live: dict[str, Any] | None = Field(description="What the counting worker knows; null: no answer.")
    agrees: bool | None = Field(description="Whether both are in the same zones.")


_CHECKS: list[dict[str, Any]] = [
    {"line": 1, "verdict": "malformed", "matched": False, "value": None, "limit": None, "unit": ""},
    {"line": 2, "verdict": "invalid", "matched": False, "value": None, "limit": None, "unit": ""},
    {"line": 3, "verdict": "future", "matched": False, "value": -0.4, "limit": 60.0, "unit": "s"},
    {"line": 4, "verdict": "duplicate", "matched": False, "value": 15.0, "limit": 0.0, "unit": "s"},
    {"line": 5, "verdict": "out_of_order", "matched": False, "value": 15.0, "limit": 0.0, "unit": "s"},
    {"line": 6, "verdict": "late", "matched": False, "value": 0.4, "limit": 900.0, "unit": "s"},
    {"line": 7, "verdict": "inaccurate", "matched": True, "value": 250.0, "limit": 100.0, "unit": "m"},
]
TRACE: dict[str, Any] = {
    "site": "ul",
    "kind": "person",
    "device": "k3vq2hbw5yxam7p4n6ts",
    "since": "2026-11-24T12:00:00.000Z",
    "truncated": False,
    "messages": 118,
    "lines": [
        {
            "received": "2026-11-24T12:59:58.400Z",
            "what": "fix",
            "t": "2026-11-24T12:59:58.000Z",
            "lat": 52.6737,
            "lon": -8.5722,
            "acc": 250.0,
            "verdict": "inaccurate",
            "rule": "1.7",
            "why": "Its accuracy is 250 m; 100 m are allowed. The device lives on.",
            "checks": _CHECKS,
            "edges": [],
            "changes": [],
            "zones": ["site", "library"],
        }
    ],
    "left": [],
    "zones": ["site", "library"],
    "live": {
        "present": True,
        "zones": ["library", "site"],
        "last_t": "2026-11-24T12:59:58.000Z",
        "lat": 52.6737,
        "lon": -8.5722,
        "acc": 8.0,
        "offline": False,
        "last_verdict": "inaccurate",
    },
    "agrees": True,
}


# --- commands ------------------------------------------------------------------------------------
class CommandAsked(Shape):
    """A command that is to be sent; each has its own value."""

    command: CommandKind
    interval_s: float | None = Field(None, description="`interval`: a fix every so many seconds.")
    pause_s: float | None = Field(None, description="`pause`: the device sends nothing for so long.")
    text: str | None = Field(None, description="`message`: what the device shows, 256 characters at most.")
    expires_s: float = Field(86_400.0, description="For so many seconds it is tried, 7 days at most.")
    kind: Kind | None = Field(None, description="Of a device that isn't registered, where that is allowed.")


class CommandShape(Shape):
    """A command, and what became of it."""

    id: str
    command: CommandKind
    state: Literal["queued", "sent", "acknowledged", "refused", "expired"]
    created: str
    expires: str
    interval_s: float | None
    until: str | None = Field(description="`pause`: when the device goes on.")
    text: str | None
    sent: str | None = Field(description="When the broker had it for the first time.")
    answered: str | None
    answer: str = Field(description="What the device said.")


class CommandsShape(Shape):
    """A device's commands, newest first; finished ones of the last day among them."""

    commands: list[CommandShape]


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


# --- a person's own data ---------------------------------------------------------------------------
class LookShape(Shape):
    """Somebody looked at this device's own positions."""

    at: str
    actor: str
    action: str
    reason: str | None


class MeShape(Shape):
    """What is known of a device, told to itself."""

    device: str
    site: str
    kind: Kind
    status: DeviceStatus
    label: str
    groups: list[str]
    aliases: list[str]
    created: str
    resume: str | None = Field(description="When a pause ends by itself.")
    connected: bool | None = Field(description="Whether its connection is open; null: not known.")
    zones: list[str] = Field(description="Where it is counted now.")
    last: dict[str, Any] | None = Field(description="Its last used position, and its last verdict.")
    commands: list[CommandShape]
    looks: list[LookShape] = Field(
        description="Who has looked at this device by itself, of those days whose names are still known."
    )


class PauseAsked(Shape):
    """For how long nothing is to be counted; with neither, until it is resumed."""

    until: Annotated[str | None, Field(max_length=64, description="RFC 3339.")] = None
    for_s: Annotated[
        float | None, Field(gt=0, le=366 * 86_400, allow_inf_nan=False, description="Seconds.")
    ] = None


class StatusShape(Shape):
    """How it stands."""

    status: DeviceStatus
    resume: str | None


class ErasingShape(Shape):
    """What happens now."""

    status: Literal["erasing"]
    detail: str


ME: dict[str, Any] = {
    "device": "k3vq2hbw5yxam7p4n6ts",
    "site": "ul",
    "kind": "person",
    "status": "active",
    "label": "Ada's phone",
    "groups": ["staff"],
    "aliases": [],
    "created": "2026-11-20T09:00:00.000Z",
    "resume": None,
    "connected": True,
    "zones": ["site", "library"],
    "last": {
        "t": "2026-11-24T12:59:58.000Z",
        "lat": 52.6737,
        "lon": -8.5722,
        "acc": 8.0,
        "verdict": "accepted",
        "offline": False,
    },
    "commands": [COMMAND],
    "looks": [
        {
            "at": "2026-11-24T11:00:00.000Z",
            "actor": "token k3vq2hbw5yxa",
            "action": "positions.trace",
            "reason": "why is my phone not counted, ticket 12",
        }
    ],
}
PAUSED: dict[str, Any] = {"status": "paused", "resume": "2026-11-24T14:00:00.000Z"}
ERASING: dict[str, Any] = {
    "status": "erasing",
    "detail": "Names are gone now, everything else within a few minutes.",
}
EXPORT: dict[str, Any] = {
    "exported": "2026-11-24T13:00:00.000Z",
    "registry": {
        "id": ME["device"],
        "site": "ul",
        "kind": "person",
        "status": "active",
        "label": "Ada's phone",
        "groups": ["staff"],
        "aliases": [],
        "certificate": "",
        "valid_from": None,
        "gateway": False,
        "firmware": "",
        "app": "",
        "created": ME["created"],
        "changed": ME["created"],
        "resume": None,
    },
    "seen": {"at": "2026-11-24T12:59:00.000Z", "connected": True},
    "names": {"20781": "fbb3da864ed0a60a"},
    "log": {
        "since": "2026-11-24T12:00:00.000Z",
        "messages": [
            {
                "received": "2026-11-24T12:59:58.400Z",
                "what": "fix",
                "payload": {"tst": 1795525198, "lat": 52.6737, "lon": -8.5722, "acc": 8.0},
            }
        ],
    },
    "memberships": [
        {"zone": "site", "type": "enter", "t": "2026-11-24T12:59:58.000Z", "reason": "moved"},
    ],
    "history": [
        {"t": "2026-11-24T12:59:58.000Z", "lat": 52.6737, "lon": -8.5722, "acc": 8.0, "verdict": "accepted"}
    ],
    "now": TRACE["live"],
    "commands": [COMMAND],
    "looks": ME["looks"],
}
