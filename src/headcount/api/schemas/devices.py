"""The shapes of what the endpoints of the registry take and give, with an example of each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from headcount.api.parameters import Moment
from headcount.api.schemas.responses import Shape
from headcount.devices.device_fields import MAX_ALIASES, MAX_GROUPS, MAX_LABEL_CHARS, MAX_TEXT_CHARS
from headcount.devices.device_filter import DevicePage
from headcount.devices.one_time_links import (
    CLAIM_CODE_LIFETIME_S,
    LINK_LIFETIME_S,
    MAX_CLAIM_CODES,
    MAX_CODE_CHARS,
    MAX_LIFETIME_S,
    MIN_LIFETIME_S,
)
from headcount.messages.records import Device, DeviceStatus, Seen
from headcount.messages.times import iso
from headcount.messages.topics import Kind

_Label = Annotated[str, Field(max_length=MAX_LABEL_CHARS, description="By what people know it; personal.")]
_Groups = Annotated[list[str], Field(max_length=MAX_GROUPS, description="1 to 64 of A-Z a-z 0-9 _ - each.")]
_Aliases = Annotated[
    list[str],
    Field(
        max_length=MAX_ALIASES, description="Its names in other formats: `owntracks/alice/phone`, `iotp/42`."
    ),
]
_Gateway = Annotated[bool, Field(description="Whether it may publish the older flows' topics for others.")]
_Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]


class Body(BaseModel):
    """What comes in: nothing but the fields that are named."""

    model_config = ConfigDict(extra="forbid")


class NewDevice(Body):
    """A device to register. Its id is given by us."""

    kind: Kind
    label: _Label = ""
    groups: _Groups = []
    aliases: _Aliases = []
    gateway: _Gateway = False
    firmware: _Text = ""
    app: _Text = ""


class DeviceChange(Body):
    """What is to be changed of a device; groups and aliases are replaced as a whole."""

    label: _Label | None = None
    groups: _Groups | None = None
    aliases: _Aliases | None = None
    gateway: _Gateway | None = None
    firmware: _Text | None = None
    app: _Text | None = None
    certificate: Annotated[
        str | None, Field(max_length=64, description="SHA-256 of the only client certificate that is taken.")
    ] = None
    status: Annotated[
        Literal["active", "paused", "disabled"] | None,
        Field(description="`paused`: let in, not counted. `disabled`: not let in; its connection is cut."),
    ] = None
    resume: Annotated[Moment | None, Field(description="When a pause ends by itself.")] = None


class LinkWish(Body):
    """How long a link lasts."""

    within_s: Annotated[int, Field(ge=MIN_LIFETIME_S, le=MAX_LIFETIME_S)] = LINK_LIFETIME_S


class ClaimsWish(Body):
    """Which claim codes are wanted."""

    kind: Kind
    count: Annotated[int, Field(ge=1, le=MAX_CLAIM_CODES)]
    groups: _Groups = []
    within_s: Annotated[int, Field(ge=MIN_LIFETIME_S, le=MAX_LIFETIME_S)] = CLAIM_CODE_LIFETIME_S


class Redemption(Body):
    """A one-time link's or claim code's secret."""

    code: Annotated[str, Field(min_length=1, max_length=MAX_CODE_CHARS)]


class SeenShape(Shape):
    """When a device was last connected, since the broker's last start."""

    at: str
    connected: bool


class RegisteredShape(Shape):
    """A device of the registry."""

    id: str = Field(description="Its handle: random, given at registration.")
    site: str
    kind: Kind
    status: DeviceStatus
    label: str = Field(description="By what people know it; personal.")
    groups: list[str]
    aliases: list[str]
    gateway: bool
    firmware: str
    app: str
    certificate: str = Field(description='SHA-256 of the only client certificate that is taken; "" = any.')
    created: str
    changed: str
    resume: str | None = Field(description="When a pause ends by itself.")
    last_seen: SeenShape | None


class RegisteredPageShape(Shape):
    """Some devices in the order of their ids."""

    site: str
    devices: list[RegisteredShape]
    after: str | None = Field(description="Ask with this `after` for the next page; null = that was all.")


class WithSecretShape(RegisteredShape):
    """A device, and its secret: it is told here and never again."""

    secret: str


class CodeShape(Shape):
    """A link, and its QR code."""

    link: str
    qr_svg: str


class LinkShape(Shape):
    """A one-time link for a device, for its app or its browser; either uses up the code."""

    device: str
    code: str
    expires: str
    owntracks: CodeShape
    page: CodeShape


class BrokerShape(Shape):
    """Where a device reaches the broker over MQTT."""

    host: str
    port: int
    tls: bool


class ProvisionedShape(Shape):
    """Credentials, told once."""

    device: str = Field(description="Its id: the MQTT user name, and the MQTT client id or its beginning.")
    secret: str = Field(description="The MQTT password.")
    site: str
    kind: Kind
    topic: str = Field(description="Fixes go to this and `/fix`.")
    mqtt: BrokerShape
    websocket: str = Field(description="MQTT over WebSocket, for browsers.")


class OwnTracksShape(BaseModel):
    """The settings of the app OwnTracks, an .otrc file."""

    model_config = ConfigDict(extra="allow")

    type_: Literal["configuration"] = Field(alias="_type")
    host: str
    port: int
    tls: bool
    username: str
    password: str


def told(device: Device, seen: Seen | None = None) -> dict[str, Any]:
    """A device as `RegisteredShape`."""
    return {
        "id": device.id,
        "site": device.site,
        "kind": device.kind,
        "status": device.status,
        "label": device.label,
        "groups": device.groups,
        "aliases": device.aliases,
        "gateway": device.gateway,
        "firmware": device.firmware,
        "app": device.app,
        "certificate": device.certificate,
        "created": iso(device.created),
        "changed": iso(device.changed),
        "resume": None if device.resume is None else iso(device.resume),
        "last_seen": None if seen is None else {"at": iso(seen.at), "connected": seen.connected},
    }


def told_page(site: str, page: DevicePage) -> dict[str, Any]:
    """A page as `RegisteredPageShape`."""
    devices = [told(device, page.seen.get(device.id)) for device in page.devices]
    return {"site": site, "devices": devices, "after": page.after or None}


REGISTERED: dict[str, Any] = {
    "id": "k3qv7m2xw5yd4hbt6zra",
    "site": "ul",
    "kind": "person",
    "status": "active",
    "label": "Ada",
    "groups": ["staff"],
    "aliases": ["owntracks/ada/phone"],
    "gateway": False,
    "firmware": "",
    "app": "OwnTracks 2.5",
    "certificate": "",
    "created": "2026-11-20T09:00:00.000Z",
    "changed": "2026-11-24T08:30:00.000Z",
    "resume": None,
    "last_seen": {"at": "2026-11-24T12:59:58.000Z", "connected": True},
}
REGISTERED_PAGE: dict[str, Any] = {"site": "ul", "devices": [REGISTERED], "after": None}
ERASING: dict[str, Any] = {**REGISTERED, "status": "erasing", "label": "", "groups": []}
WITH_SECRET: dict[str, Any] = {
    **REGISTERED,
    "last_seen": None,
    "secret": "an5h7q2wzk4vtc6rxe3mfyb2dgjs5uqp",
}
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" …/>'
LINK: dict[str, Any] = {
    "device": "k3qv7m2xw5yd4hbt6zra",
    "code": "p4zr6t2nq7wyk3vdxs5mhc2fgbj4eua7",
    "expires": "2026-11-25T13:00:00.000Z",
    "owntracks": {
        "link": "owntracks:///config?url=https%3A%2F%2Fcount.example.org%2Fv1%2Fprovision%2Fp4zr6t2nq7wyk3vdxs5mhc2fgbj4eua7.otrc",
        "qr_svg": _SVG,
    },
    "page": {"link": "https://count.example.org/me#join=p4zr6t2nq7wyk3vdxs5mhc2fgbj4eua7", "qr_svg": _SVG},
}
PROVISIONED: dict[str, Any] = {
    "device": "k3qv7m2xw5yd4hbt6zra",
    "secret": "an5h7q2wzk4vtc6rxe3mfyb2dgjs5uqp",
    "site": "ul",
    "kind": "person",
    "topic": "headcount/ul/person/k3qv7m2xw5yd4hbt6zra",
    "mqtt": {"host": "count.example.org", "port": 8883, "tls": True},
    "websocket": "wss://count.example.org:9001/mqtt",
}
OWNTRACKS: dict[str, Any] = {
    "_type": "configuration",
    "mode": 0,
    "host": "count.example.org",
    "port": 8883,
    "tls": True,
    "username": "k3qv7m2xw5yd4hbt6zra",
    "password": "an5h7q2wzk4vtc6rxe3mfyb2dgjs5uqp",
    "clientId": "k3qv7m2xw5yd4hbt6zra",
    "pubTopicBase": "owntracks/k3qv7m2xw5yd4hbt6zra/phone",
}
TABLE = (
    "id,site,kind,label,groups,aliases,gateway,firmware,app,status,created,last_seen\r\n"
    "k3qv7m2xw5yd4hbt6zra,ul,person,Ada,staff,owntracks/ada/phone,no,,OwnTracks 2.5,active,"
    "2026-11-20T09:00:00.000Z,2026-11-24T12:59:58.000Z\r\n"
)
SECRETS_TABLE = "id,secret,label\r\nk3qv7m2xw5yd4hbt6zra,an5h7q2wzk4vtc6rxe3mfyb2dgjs5uqp,Ada\r\n"
CODES_TABLE = (
    "code,expires,owntracks,page\r\n"
    "wq2z-7kdm-4xvt-hb5n,2026-12-08T13:00:00.000Z,owntracks:///config?url=https%3A%2F%2Fcount.example.org%2F"
    "v1%2Fprovision%2Fwq2z7kdm4xvthb5n.otrc,https://count.example.org/me#join=wq2z7kdm4xvthb5n\r\n"
)
