"""A person's own data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from headcount.api.schemas.base import Schema
from headcount.api.schemas.commands import COMMAND, CommandResponse
from headcount.api.schemas.traces import TRACE
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
    "detail": "Your name is erased now, everything else within a few minutes.",
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
