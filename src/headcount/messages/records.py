"""Records in key-value buckets: devices, links, bans, tokens, sessions, commands.

Names of people are in the bucket DEVICE and nowhere else.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headcount.messages.commands import CommandKind
from headcount.messages.topics import Kind

#: Buckets; each key holds JSON. Names of people are in DEVICE and nowhere else.
#:   DEVICE   device.<id>             Device
#:            alias.<digest>          Alias: how a name of another format leads to a device
#:            link.<digest>           OneTimeLink: a one-time link or a claim code, gone when used or over
#:   SEEN     <id>                    LastSeen, in memory
#:   COMMAND  <device>.<id>           DeviceCommand
#:   ACCESS   token.<id>              ApiToken
#:            session.<digest>        WebSession of the web page
#:   BAN      device.<id>, address.<hex of the address's text>   Ban, gone when it is over
#:   DAYKEY   day.<days since 1970>   32 random bytes: the key of that day's pseudonyms
DEVICE_KEY, ALIAS_KEY, LINK_KEY = "device.{id}", "alias.{digest}", "link.{digest}"
TOKEN_KEY, SESSION_KEY, DAYKEY_KEY = "token.{id}", "session.{digest}", "day.{day}"
DeviceStatus = Literal["active", "paused", "disabled", "erasing"]
AccessRole = Literal["public", "viewer", "operator", "admin"]
ACCESS_ROLES: tuple[AccessRole, AccessRole, AccessRole, AccessRole] = (
    "public",
    "viewer",
    "operator",
    "admin",
)


class Device(msgspec.Struct, kw_only=True):
    """A device of the registry."""

    id: str  # HANDLE_PATTERN
    site: str
    kind: Kind
    status: DeviceStatus = "active"
    label: str = ""  # a name that people know it by; personal
    groups: list[str] = []
    aliases: list[str] = []  # "owntracks/<user>/<device>", "iotp/<id>": names in other formats; personal
    secret: str = ""  # hash of its password, see devices/credentials.py; "" = none
    certificate: str = ""  # SHA-256 of its client certificate in hex; "" = any of our CA with its id as CN
    valid_from: float = 0.0  # signed tokens made before this are refused
    gateway: bool = False  # may publish the older flows' topics for others
    firmware: str = ""
    app: str = ""
    created: float = 0.0
    changed: float = 0.0
    resume: float | None = None  # when a pause ends by itself


class Alias(msgspec.Struct):
    """To which device a name of another format leads."""

    device: str


class OneTimeLink(msgspec.Struct, kw_only=True):
    """A one-time link or a claim code: its secret is exchanged for a device's credentials, once."""

    site: str
    kind: Kind
    expires: float
    device: str = ""  # for this device; "" = a new one
    label: str = ""
    groups: list[str] = []
    left: int = 1  # how often it can still be used


class LastSeen(msgspec.Struct):
    """When a device was last connected, as reported by its broker unit."""

    at: float
    connected: bool
    unit: str


class Ban(msgspec.Struct, omit_defaults=True):
    """A ban, until a time and with a reason."""

    until: float
    reason: str
    #: The ban of an address that guesses credentials: valid devices may still connect from it, because a
    #: whole campus may share one address.
    guesses: bool = False


class ApiToken(msgspec.Struct, kw_only=True):
    """An API token; its secret is known to its owner only."""

    id: str
    name: str
    role: AccessRole
    sites: list[str] = []  # [] = all
    scopes: list[str] = []  # [] = all of the role's
    secret: str  # SHA-256 of 256 random bits, in hex
    created: float
    expires: float | None = None


class WebSession(msgspec.Struct, kw_only=True):
    """A person's login on the web page."""

    subject: str  # as the identity provider calls them
    name: str
    role: AccessRole
    sites: list[str] = []
    csrf: str
    expires: float


class DeviceCommand(msgspec.Struct, kw_only=True):
    """A command to a device, as it is kept; what is sent is `CommandSent`."""

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
    state: Literal["queued", "sent", "acknowledged", "refused", "expired"] = "queued"
    sent: float | None = None
    answered: float | None = None
    answer: str = ""
