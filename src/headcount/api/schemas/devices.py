"""The device registry."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from headcount.api.parameters import Moment
from headcount.api.schemas.base import Schema
from headcount.devices.device_fields import MAX_ALIASES, MAX_GROUPS, MAX_LABEL_CHARS, MAX_TEXT_CHARS
from headcount.devices.one_time_links import (
    CLAIM_CODE_LIFETIME_S,
    LINK_LIFETIME_S,
    MAX_CLAIM_CODES,
    MAX_LIFETIME_S,
    MIN_LIFETIME_S,
)
from headcount.messages.records import DeviceStatus
from headcount.messages.topics import Kind

_Label = Annotated[
    str, Field(max_length=MAX_LABEL_CHARS, description="The name that people know it by; personal data.")
]
_Groups = Annotated[
    list[str], Field(max_length=MAX_GROUPS, description="Each 1 to 64 characters of A-Z a-z 0-9 _ -.")
]
_Aliases = Annotated[
    list[str],
    Field(
        max_length=MAX_ALIASES, description="Its names in other formats: `owntracks/alice/phone`, `iotp/42`."
    ),
]
_Gateway = Annotated[
    bool, Field(description="Whether it may publish to the topics of other formats for other devices.")
]
_Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
_Lifetime = Annotated[int, Field(ge=MIN_LIFETIME_S, le=MAX_LIFETIME_S, description="Seconds.")]


class DeviceCreate(Schema):
    """The device to register. headcount assigns its id."""

    kind: Kind
    label: _Label = ""
    groups: _Groups = Field([])
    aliases: _Aliases = Field([])
    gateway: _Gateway = False
    firmware: _Text = ""
    app: _Text = ""


class DeviceUpdate(Schema):
    """The fields to change; groups and aliases are replaced as a whole."""

    label: _Label | None = None
    groups: _Groups | None = None
    aliases: _Aliases | None = None
    gateway: _Gateway | None = None
    firmware: _Text | None = None
    app: _Text | None = None
    certificate: Annotated[
        str | None,
        Field(max_length=64, description="SHA-256 of the only client certificate that is accepted."),
    ] = None
    status: Annotated[
        Literal["active", "paused", "disabled"] | None,
        Field(
            description="`paused`: connected, not counted. `disabled`: rejected; its connection is closed."
        ),
    ] = None
    resume: Annotated[Moment | None, Field(description="When a pause ends automatically.")] = None


class OwnTracksOptions(Schema):
    """How the app OwnTracks is set up."""

    http: Annotated[bool, Field(description="The app sends by HTTP instead of MQTT.")] = False
    encrypt: Annotated[bool, Field(description="The app encrypts its messages with a new key.")] = False
    commands: Annotated[
        bool,
        Field(description="The app accepts commands, also those that change its settings and regions."),
    ] = False


class LinkCreate(Schema):
    """The lifetime of a link, and how it sets up the app OwnTracks."""

    within_s: _Lifetime = LINK_LIFETIME_S
    owntracks: OwnTracksOptions = OwnTracksOptions()


class ClaimCodesCreate(Schema):
    """The claim codes to create."""

    kind: Kind
    count: Annotated[int, Field(ge=1, le=MAX_CLAIM_CODES)]
    groups: _Groups = Field([])
    within_s: _Lifetime = CLAIM_CODE_LIFETIME_S
    owntracks: OwnTracksOptions = OwnTracksOptions()


class DeviceLastSeen(Schema):
    """When a device was last connected, since the broker's last start."""

    at: str
    connected: bool


class DeviceResponse(Schema):
    """A registered device."""

    id: str = Field(description="Random; assigned at registration.")
    site: str
    kind: Kind
    status: DeviceStatus
    label: str = Field(description="The name that people know it by; personal data.")
    groups: list[str]
    aliases: list[str]
    gateway: bool
    firmware: str
    app: str
    encrypted: bool = Field(description="Whether its messages must be encrypted with its key.")
    certificate: str = Field(description='SHA-256 of the only client certificate that is accepted; "" = any.')
    created: str
    changed: str
    resume: str | None = Field(description="When a pause ends automatically.")
    last_seen: DeviceLastSeen | None
    banned_until: str | None = Field(description="When its ban ends; null: it is not banned.")


class DeviceListResponse(Schema):
    """A page of devices, ordered by id."""

    site: str
    devices: list[DeviceResponse]
    after: str | None = Field(description="The `after` of the next page; null = this is the last one.")


class DeviceWithSecretResponse(DeviceResponse):
    """A device with its secret, which cannot be read again."""

    secret: str


class PayloadKeyResponse(Schema):
    """The key of a device's messages, which cannot be read again."""

    device: str
    key: str = Field(description="32 characters; in OwnTracks, the setting `encryptionKey`.")


class LinkTarget(Schema):
    """A link and its QR code."""

    link: str
    qr_svg: str


class LinkResponse(Schema):
    """A one-time link for a device, for its app or its browser; either uses up the code."""

    device: str
    code: str
    expires: str
    owntracks: LinkTarget
    page: LinkTarget
