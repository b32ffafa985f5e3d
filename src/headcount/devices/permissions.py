"""What each may publish and hear: devices their own and the public's, programs by their role; pure.

The server checks rights on the subject after its mapping, so a device's fix is named twice: as it is
published and as it stands in the log. No right of a device has a wildcard where another device's id, or
another kind's or site's name, could stand: it can neither speak as another nor hear that there is one.
What QoS 1 needs inside of the server ($MQTT.…) the server does itself, and MQTT clients can't name it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from headcount.messages.records import DeviceStatus, Role
from headcount.messages.topics import Kind

#: The largest message of a device; the streams take no larger ones.
MAX_PAYLOAD_BYTES = 64 << 10
#: Subscriptions of one connection.
MAX_SUBSCRIPTIONS = 50
#: What hears more than the public has, and the scope of the API that stands for it.
EXACT, EVENTS = ("exact", "counts:exact"), ("events", "events:read")
#: The user name of programs; their password is their token.
PROGRAM_USER = "token"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects (NATS) that somebody may publish to and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    subscriptions: int = MAX_SUBSCRIPTIONS
    payload_bytes: int = MAX_PAYLOAD_BYTES


class DeviceIdentity(Protocol):
    """Of a device, what its rights depend on."""

    id: str
    site: str
    kind: Kind
    status: DeviceStatus
    gateway: bool


def device_permissions(device: DeviceIdentity) -> Permissions | None:
    """A device's rights; None: it isn't let in."""
    if device.status not in {"active", "paused"}:
        return None
    own = f"headcount.{device.site}.{device.kind}.{device.id}"
    public = (f"headcount.{device.site}.counts", f"headcount.{device.site}.counts.>")
    subscribe = (*public, f"headcount.{device.site}.site", f"{own}.cmd")
    if device.status == "paused":
        return Permissions((f"{own}.ack",), subscribe)
    logged = f"fix.*.{device.site}.{device.kind}.{device.id}"
    owntracks = f"owntracks.{device.id}.*"
    publish: tuple[str, ...] = (
        f"{own}.fix",
        f"{own}.status",
        f"{own}.ack",
        logged,
        f"{logged}.status",
        owntracks,
        f"{owntracks}.event",
    )
    if device.gateway:
        publish += ("car-iotp", "mobile-iotp")
    return Permissions(publish, subscribe)


def program_permissions(role: Role, sites: tuple[str, ...] = (), scopes: tuple[str, ...] = ()) -> Permissions:
    """A program's rights on these sites (none named: on all): it publishes nothing.

    `scopes` narrow what the role has; none named: all of it.
    """
    more = {"public": (), "viewer": (EXACT,)}.get(role, (EXACT, EVENTS))
    names = ("counts", "site", *(name for name, scope in more if not scopes or scope in scopes))
    subscribe = tuple(
        subject
        for site in sites or ("*",)
        for name in names
        for subject in _with_parent(f"headcount.{site}.{name}")
    )
    return Permissions((), subscribe, max(MAX_SUBSCRIPTIONS, len(subscribe)))


def _with_parent(subject: str) -> tuple[str, ...]:
    """MQTT's `counts/#` also means `counts` itself; `site` has nothing below it."""
    return (subject,) if subject.endswith(".site") else (subject, f"{subject}.>")
