"""Records in key-value buckets, as JSON.

    bucket   key                             record
    DEVICE   device.<id>                     Device
             alias.<digest>                  Alias
             link.<digest>                   OneTimeLink, removed when it is used or expired
    SEEN     <id>                            LastSeen, in memory
    COMMAND  <device>.<id>                   DeviceCommand
    ACCESS   token.<id>                      ApiToken
             session.<digest>                WebSession
    REFUSED  <id>                            Refusals, in memory, for an hour
    BAN      device.<id>, address.<hex>      Ban, removed when it ends; the hex is of the address's text
    DAYKEY   day.<days since 1970>           32 random bytes: the key of that day's pseudonyms

Names of people are in the bucket DEVICE and nowhere else. The bucket UNIT is described in `units`.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from headcount.messages.commands import CommandKind
from headcount.messages.topics import Kind

DEVICE_KEY, ALIAS_KEY, LINK_KEY = "device.{id}", "alias.{digest}", "link.{digest}"
LOGIN_LINK_KEY = "login.{digest}"
TOKEN_KEY, SESSION_KEY, DAYKEY_KEY = "token.{id}", "session.{digest}", "day.{day}"
DeviceStatus = Literal["active", "paused", "disabled", "erasing"]
RefusalAction = Literal["publish", "subscribe", "connect"]
#: `slash`: an empty level in the topic; `other-device`: a topic of another one; `topic`: another forbidden one;
#: `characters`: white space or a wildcard in it.
RefusalReason = Literal["slash", "other-device", "topic", "characters", "size", "client-id", "version"]
AccessRole = Literal["public", "viewer", "operator", "admin"]
ACCESS_ROLES: tuple[AccessRole, ...] = ("public", "viewer", "operator", "admin")
T = TypeVar("T")


def decode_or_none(value: bytes | None, record: type[T]) -> T | None:
    """Decode a record; None if there is no value, or one that is not valid, such as of another version."""
    try:
        return None if value is None else msgspec.json.decode(value, type=record)
    except msgspec.MsgspecError:
        return None


class Device(msgspec.Struct, kw_only=True):
    """A device of the registry."""

    id: str  # HANDLE_PATTERN
    site: str
    kind: Kind
    status: DeviceStatus = "active"
    label: str = ""  # a name that people know it by; personal data
    groups: list[str] = []
    aliases: list[str] = []  # "owntracks/<user>/<device>", "iotp/<id>": names in other formats; personal data
    secret: str = ""  # hash of its password, see devices/credentials.py; "" = none
    ingest_key: str = ""  # hash of the secret part of its ingest key; "" = none
    payload_key: str = ""  # key of its messages, sealed, see decoders/payload_keys.py; "" = not encrypted
    certificate: str = ""  # SHA-256 of its client certificate in hex; "" = any of our CA with its id as CN
    valid_from: float = 0.0  # signed tokens issued before this are rejected
    gateway: bool = False  # may publish on the topics of other formats for others
    firmware: str = ""
    app: str = ""
    created: float = 0.0
    changed: float = 0.0
    resume: float | None = None  # end of a pause


class Alias(msgspec.Struct):
    """The device that a name in another format refers to."""

    device: str


class PhoneOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a link or claim code sets up the app OwnTracks."""

    http: bool = False  # send by HTTP instead of MQTT
    encrypt: bool = False  # encrypt messages with a new key
    commands: bool = False  # accept commands, also those that change settings


DEFAULT_PHONE = PhoneOptions()


class OneTimeLink(msgspec.Struct, kw_only=True):
    """A one-time link or a claim code, exchanged for a device's credentials."""

    site: str
    kind: Kind
    expires: float
    device: str = ""  # for this device; "" = a new one
    label: str = ""
    groups: list[str] = []
    left: int = 1  # remaining uses
    phone: PhoneOptions = DEFAULT_PHONE


class LastSeen(msgspec.Struct):
    """When a device was last connected, reported by its broker unit."""

    at: float
    connected: bool
    unit: str


class Refusal(msgspec.Struct):
    """A publish, subscription or connection of a device that the broker refused."""

    at: float
    action: RefusalAction
    reason: RefusalReason
    topic: str = ""


class Refusals(msgspec.Struct):
    """The last refusals of a device, oldest first, and their number since the broker's start."""

    total: int = 0
    last: list[Refusal] = []


class Ban(msgspec.Struct, omit_defaults=True):
    """A device or address that may not connect until a time."""

    until: float
    reason: str
    #: An address with too many failed authentications. Devices that authenticate are still admitted from there,
    #: since a whole campus may share one address.
    guesses: bool = False


class ApiToken(msgspec.Struct, kw_only=True):
    """An API token; only its owner knows the secret."""

    id: str
    name: str
    role: AccessRole
    sites: list[str] = []  # [] = all
    scopes: list[str] = []  # [] = all of the role's
    secret: str  # SHA-256 of 256 random bits, in hex
    created: float
    expires: float | None = None


class WebSession(msgspec.Struct, kw_only=True):
    """A login on the web page."""

    by: Literal["person", "token", "link"] = "person"
    subject: str  # of the identity provider, or the id of a token or link
    name: str
    role: AccessRole
    sites: list[str] = []
    scopes: list[str] = []  # [] = all of the role's
    csrf: str
    expires: float


class LoginLink(msgspec.Struct, kw_only=True):
    """A one-time link that opens a session."""

    id: str
    role: AccessRole
    sites: list[str] = []
    expires: float


class AppRegion(msgspec.Struct, frozen=True, kw_only=True):
    """A circle whose edge an app notices; the same id and time of creation replace it."""

    id: str
    name: str
    lat: float
    lon: float
    radius_m: int
    created: int  # Unix seconds


class DeviceCommand(msgspec.Struct, kw_only=True):
    """A command to a device; it is sent as `CommandMessage`."""

    id: str
    device: str
    kind: Kind
    site: str
    command: CommandKind
    created: float
    expires: float
    interval_s: float | None = None
    until: float | None = None
    text: str | None = None
    regions: list[AppRegion] | None = None
    state: Literal["queued", "sent", "acknowledged", "refused", "expired"] = "queued"
    sent: float | None = None
    answered: float | None = None
    answer: str = ""
