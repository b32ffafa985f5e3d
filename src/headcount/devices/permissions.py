"""Permissions to publish and subscribe: of devices, and of programs by their role; pure.

The server checks permissions on the subject after its mapping, so a device's fix needs two: for the subject
as published and as stored in the log. No permission of a device has a wildcard in the place of a device, kind
or site: a device can neither publish as another one nor learn that it exists. The subjects that QoS 1 needs
inside the server ($MQTT.…) are the server's own; MQTT clients cannot use them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from headcount.messages.records import AccessRole, DeviceStatus
from headcount.messages.topics import OWNTRACKS_SUBTOPICS, Kind

#: The largest message of a device; the streams take no larger ones.
MAX_PAYLOAD_BYTES = 64 << 10
#: Maximum number of subscriptions of one connection.
MAX_SUBSCRIPTIONS = 50
#: Topics that the public has no access to, each with the API scope that grants it.
EXACT, EVENTS = ("exact", "counts:exact"), ("events", "events:read")
#: The user name of programs; their password is their token.
PROGRAM_USER = "token"


@dataclass(frozen=True, slots=True)
class Permissions:
    """NATS subjects that a client may publish to and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    max_subscriptions: int = MAX_SUBSCRIPTIONS
    max_payload_bytes: int = MAX_PAYLOAD_BYTES


class DeviceIdentity(Protocol):
    """The fields of a device on which its permissions depend."""

    id: str
    site: str
    kind: Kind
    status: DeviceStatus
    gateway: bool


def device_permissions(device: DeviceIdentity, plugin_subjects: tuple[str, ...] = ()) -> Permissions | None:
    """A device's permissions; None: it may not connect. `plugin_subjects` are those of installed formats."""
    if device.status not in {"active", "paused"}:
        return None
    own = f"headcount.{device.site}.{device.kind}.{device.id}"
    public = (f"headcount.{device.site}.counts", f"headcount.{device.site}.counts.>")
    owntracks = f"owntracks.{device.id}.*"
    subscribe = (*public, f"headcount.{device.site}.site", f"{own}.cmd", f"{owntracks}.cmd")
    if device.status == "paused":
        return Permissions((f"{own}.ack",), subscribe)
    logged = f"fix.*.{device.site}.{device.kind}.{device.id}"
    publish: tuple[str, ...] = (
        f"{own}.fix",
        f"{own}.status",
        f"{own}.ack",
        logged,
        f"{logged}.status",
        owntracks,
        f"{owntracks}.event",
        *(f"{owntracks}.{subtopic}" for subtopic in OWNTRACKS_SUBTOPICS),
    )
    if device.gateway:
        publish += ("car-iotp", "mobile-iotp", *plugin_subjects)
    return Permissions(publish, subscribe)


def program_permissions(
    role: AccessRole, sites: tuple[str, ...] = (), scopes: tuple[str, ...] = ()
) -> Permissions:
    """A program's permissions; it publishes nothing.

    Args:
        role: the role of its token.
        sites: the sites of its token; empty = all.
        scopes: the scopes of its token, which narrow the role; empty = all of the role's.
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
    """MQTT's `counts/#` includes `counts` itself; nothing is below `site`."""
    return (subject,) if subject.endswith(".site") else (subject, f"{subject}.>")
