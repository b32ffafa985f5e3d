"""Commands as messages for the app OwnTracks, and its answers; pure.

    report       reportLocation
    interval     setConfiguration with locatorInterval and moveModeLocatorInterval
    message      action with notification: the iOS app shows it, the Android app ignores it
    zones        setWaypoints: the regions of the site and its zones
    clear_zones  clearWaypoints

The app does not confirm commands, but it answers reportLocation with a location whose trigger `t` is `r`, and
messages of one topic or reply arrive in order. So each other command is followed by a reportLocation, and the
answer confirms all commands that were sent before it.

Source: OwnTracks booklet, tech/json; android `MessageProcessor.kt`; ios `OwnTracksAppDelegate.m`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from headcount.errors import DeviceError
from headcount.messages.commands import CommandKind
from headcount.messages.records import AppRegion, Device, DeviceCommand
from headcount.messages.topics import OWNTRACKS_COMMAND_TOPIC
from headcount.messaging.fix_json import finite

#: The name of the app in the registry; a device with it gets its commands in the app's format.
OWNTRACKS = "OwnTracks"
#: The name of the phone in the app's topics.
DEVICE_NAME = "phone"
#: Pause between sending a command again: a phone may need a minute for a position, and setConfiguration makes
#: the app reconnect.
RESEND_PAUSE_S = 60.0
#: The clock of a phone may be this far behind ours.
CLOCK_TOLERANCE_S = 30.0
MQTT_MODE, HTTP_MODE = 0, 3
_REPORT = {"_type": "cmd", "action": "reportLocation"}


def is_owntracks(device: Device) -> bool:
    """Whether the app on a device is OwnTracks, of any version."""
    return device.app.casefold().startswith(OWNTRACKS.casefold())


def publish_topic(device: str) -> str:
    """The topic to which the app on a device publishes its locations."""
    return f"owntracks/{device}/{DEVICE_NAME}"


def command_topic(device: str) -> str:
    """The topic on which the app on a device receives its commands."""
    return OWNTRACKS_COMMAND_TOPIC.format(user=device, device=DEVICE_NAME)


def require_support(command: CommandKind, device: Device | None) -> None:
    """Check that the app on a device has a command.

    Raises:
        DeviceError: it has not.
    """
    has_regions = device is not None and is_owntracks(device)
    if command == "pause" and has_regions:
        remedy = "Use `headcount device pause`, which stops counting the phone"
        raise DeviceError("command pause", "OwnTracks has no pause that ends by itself", remedy)
    if command in {"zones", "clear_zones"} and not has_regions:
        remedy = f"Set the phone up with a link that allows commands, or set its app to {OWNTRACKS}"
        raise DeviceError(f"command {command}", "is for the app OwnTracks only", remedy)


def owntracks_messages(command: DeviceCommand, mode: int) -> list[dict[str, Any]]:
    """The messages that have the app execute a command and answer it; `mode` is the app's own."""
    first: dict[str, Any]
    match command.command:
        case "interval":
            # the iOS app reads no configuration without a mode
            seconds = round(command.interval_s or 0)
            configuration = {
                "_type": "configuration",
                "mode": mode,
                "locatorInterval": seconds,
                "moveModeLocatorInterval": seconds,
            }
            first = {"_type": "cmd", "action": "setConfiguration", "configuration": configuration}
        case "message":
            first = {"_type": "cmd", "action": "action", "notification": command.text}
        case "zones":
            regions = {"_type": "waypoints", "waypoints": [_waypoint(each) for each in command.regions or ()]}
            first = {"_type": "cmd", "action": "setWaypoints", "waypoints": regions}
        case "clear_zones":
            first = {"_type": "cmd", "action": "clearWaypoints"}
        case _:
            return [_REPORT]
    return [first, _REPORT]


def answered_s(payload: bytes) -> float | None:
    """When the app made the last requested location in a payload (Unix seconds); None: there is none."""
    try:
        value = msgspec.json.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    objects: Iterable[Any] = value if isinstance(value, list) else [value]
    made = [
        time_s
        for each in objects
        if isinstance(each, dict) and each.get("_type") == "location" and each.get("t") == "r"
        # `tst` is the time of the position, which may be an old one
        if (time_s := finite(each.get("created_at", each.get("tst")))) is not None
    ]
    return max(made, default=None)


def is_answered(sent_s: float, answer_s: float) -> bool:
    """Whether a requested location that was made at `answer_s` answers a command that was sent at `sent_s`."""
    return math.isfinite(sent_s) and answer_s >= sent_s - CLOCK_TOLERANCE_S


def _waypoint(region: AppRegion) -> dict[str, Any]:
    return {
        "_type": "waypoint",
        "desc": region.name,
        "lat": region.lat,
        "lon": region.lon,
        "rad": region.radius_m,
        "tst": region.created,
        "rid": region.id,
    }
