"""Every name and shape on the wire: topics, subjects, streams, fixes, counts, events.

MQTT topics and NATS subjects are the same names with `/` or `.` between the parts.
Times are Unix seconds unless a name says otherwise (`_ns`). Arrays inside messages are raw
little-endian bytes with the dtype that the field's comment gives.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Literal

import msgspec

Kind = Literal["person", "vehicle"]
KINDS: tuple[Kind, Kind] = ("person", "vehicle")

#: Verdicts in the order of rule 1; the index is the code in columns and files.
VERDICTS = (
    "malformed",
    "invalid",
    "future",
    "duplicate",
    "out_of_order",
    "late",
    "inaccurate",
    "implausible",
    "outside",
    "accepted",
)
#: The numbers of a count, in the order of the last axis of every counts array.
NUMBERS = ("count", "low", "high", "stale")

ID_PATTERN = r"[A-Za-z0-9_-]{1,64}"
ID = re.compile(ID_PATTERN)

# --- streams and subjects of the log and of what is made from it -------------------------------
#: One stream per partition p: `FIX_<p>` on `fix.<p>.>`. Subjects in it:
#:   fix.<p>.<site>.<kind>.<device>          a fix
#:   fix.<p>.<site>.<kind>.<device>.status   "online" or "offline"
#:   $MQTT.msgs.fix.<p>.…                    the same, once more, before its PUBACK (fixlog/acknowledged.py)
#:   fix.<p>.tick                            the log's own clock, written by the partition's worker
FIX_STREAM = "FIX_{partition}"
TICK_SUBJECT = "fix.{partition}.tick"
COUNT_STREAM = "COUNT"  # count.<p>: PartitionCounts, the newest only
COUNT_SUBJECT = "count.{partition}"
EVENT_STREAM = "EVENT"  # event.<site>.<zone>: Event as JSON, republished to headcount.<site>.events.<zone>
EVENT_SUBJECT = "event.{site}.{zone}"
EPOCH_HEADER = "Headcount-Epoch"  # of the worker that sent an event; the event itself is the same from any
HISTORY_STREAM = "HISTORY"  # history.<p>: HistoryBatch, until it is written to a segment
HISTORY_SUBJECT = "history.{partition}"
FOREIGN_STREAM = "FOREIGN"  # owntracks, car-iotp, mobile-iotp: other formats, until translated
FOREIGN_SUBJECTS = ("owntracks.*.*", "owntracks.*.*.event", "car-iotp", "mobile-iotp")

FIX_TOPIC = "headcount/{site}/{kind}/{device}/fix"
STATUS_TOPIC = "headcount/{site}/{kind}/{device}/status"
COUNT_TOPIC = "headcount/{site}/counts/{zone}"
EVENT_TOPIC = "headcount/{site}/events/{zone}"
SITE_TOPIC = "headcount/{site}/site"


class Fix(msgspec.Struct, gc=False):
    """The payload of a fix: OwnTracks `location` JSON. Unknown keys are ignored.

    `t` may carry the fractions of a second under `tst`: where it is present, it is the event time.
    """

    tst: float
    lat: float
    lon: float
    acc: float | None = None
    t: float | str | None = None  # OwnTracks itself uses `t` for a trigger letter: only a number counts
    vel: float | None = None
    cog: float | None = None
    alt: float | None = None
    batt: float | None = None


def encode_fix(t_s: float, lat_deg: float, lon_deg: float, **optional: float | None) -> bytes:
    """The payload of a fix; `optional` are the other fields of `Fix`, left out where None.

    `tst` is the whole second, as OwnTracks has it; `t` is there only where there are fractions.
    """
    tst: float = math.floor(t_s) if abs(t_s) < 2**53 else t_s
    fields: dict[str, float | str | None] = {"_type": "location", "tst": tst}
    if tst != t_s:
        fields["t"] = t_s
    fields |= {"lat": lat_deg, "lon": lon_deg}
    fields |= {name: value for name, value in optional.items() if value is not None}
    return msgspec.json.encode(fields)


class Numbers(msgspec.Struct):
    """A zone's count of one kind, and what surrounds it (rule 4)."""

    count: int
    low: int
    high: int
    stale: int


class PublicNumbers(msgspec.Struct):
    """What the public is told of a count (counting/disclosure.py), in the same shape."""

    count: int | str | None  # a multiple of k; "<5" where it is below k = 5; None: not told
    low: None = None
    high: None = None
    stale: None = None


class ZoneCount(msgspec.Struct):
    """The retained message on `headcount/{site}/counts/{zone}` where all is told (k = 1); else on EXACT_TOPIC."""

    site: str
    zone: str
    at: str
    person: Numbers
    vehicle: Numbers


class PublicZoneCount(msgspec.Struct):
    """The retained message on `headcount/{site}/counts/{zone}` where small counts are hidden."""

    site: str
    zone: str
    at: str
    person: PublicNumbers
    vehicle: PublicNumbers


class Event(msgspec.Struct):
    """The message on `headcount/{site}/events/{zone}`: one change of membership (rule 2)."""

    id: str
    site: str
    zone: str
    type: Literal["enter", "exit"]
    kind: Kind
    device: str  # a pseudonym of the day
    t: float
    reason: Literal["moved", "outside", "silent", "removed"]


class PartitionCounts(msgspec.Struct):
    """One partition's absolute counts at an instant (msgpack on `count.<p>`).

    They hold every message of the partition's stream received at or before `at`, and no other.
    A total at `at` is the sum over all partitions with the same `at`; a larger epoch wins.
    """

    site: str
    partition: int
    partitions: int
    epoch: int
    seq: int  # the last stream sequence that is counted in
    at: float  # a multiple of TICK_S
    zones: int  # Z
    values: bytes  # int32 [Z, 2 kinds, 4 numbers], zones in the order of the site file, `site` first


class FixColumns(msgspec.Struct):
    """Rows of the history, as columns of equal length n."""

    seq: bytes  # int64 stream sequence
    t: bytes  # float64
    received: bytes  # float64
    device: bytes  # pseudonyms, 8 bytes each
    kind: bytes  # uint8 index into KINDS
    lat: bytes  # float64 degrees
    lon: bytes  # float64 degrees
    acc: bytes  # float32 metres, 0 = unknown
    verdict: bytes  # uint8 index into VERDICTS


class CountsAt(msgspec.Struct):
    """A partition's counts at one instant, for the history."""

    at: float
    values: bytes  # int32 [Z, 2, 4]


class HistoryBatch(msgspec.Struct):
    """What a partition's worker hands to the history (msgpack on `history.<p>`).

    It is a pure function of the log: whoever works through the same stretch again sends the same
    rows, so a reader keeps the first row of each (partition, seq) and the first counts of each
    (partition, at), and drops the rest.
    """

    site: str
    partition: int
    partitions: int
    epoch: int
    zones: list[str]
    fixes: FixColumns | None
    counts: list[CountsAt]


# --- a deployment of many units --------------------------------------------------------------------
#: Bucket UNIT: what each unit of a cluster says about itself once a second.
#:   broker.<name>   BrokerUnit as JSON
#:   scaling.state   ScalingState as JSON
BROKER_UNIT_KEY = "broker.{name}"
SCALING_KEY = "scaling.state"
#: Requests to a broker unit, answered by its agent.
KICK_SUBJECT = "unit.broker.{name}.kick"  # KickRequest → KickAnswer


class BrokerUnit(msgspec.Struct):
    """What a broker unit says about itself: where it is reached, and how much it carries."""

    name: str
    version: str  # of headcount
    server: str  # the NATS server's version
    host: str  # under which others reach it
    mqtt_port: int
    ws_port: int
    health_port: int
    state: Literal["up", "draining"]
    connections: int  # of devices, over MQTT and WebSocket
    messages_per_s: float  # from devices
    cpu_s: float  # used by the server and its agent since the start
    started_s: float


class KickRequest(msgspec.Struct):
    """Send so many devices away, spread over a time: they come back through the balancer."""

    connections: int
    within_s: float


class KickAnswer(msgspec.Struct):
    """How many devices will be sent away."""

    kicked: int


class ScalingTarget(msgspec.Struct):
    """One role of the fleet: how many there should be and are, and within which limits."""

    role: Literal["broker", "count"]
    wanted: int
    actual: int
    least: int
    most: int


class Decision(msgspec.Struct):
    """One step of the scaler, and why."""

    at: float
    role: Literal["broker", "count"]
    before: int
    after: int
    reason: str
    dry: bool = False  # only said, not done


class ScalingState(msgspec.Struct):
    """What a scaler has seen and done, newest decision last."""

    name: str  # of the scaler
    at: float
    driver: str
    dry_run: bool
    targets: list[ScalingTarget]
    signals: dict[str, float | None]  # as the scaler names them; None = not known now
    decisions: list[Decision]


# --- who may send, who may look ----------------------------------------------------------------------
#: What registration gives as a device's id: 100 random bits, told as 20 characters of base 32.
HANDLE_PATTERN = r"[a-z2-7]{20}"
HANDLE = re.compile(HANDLE_PATTERN)
#: Buckets; each key holds JSON. Names of people are in DEVICE and nowhere else.
#:   DEVICE   device.<id>             Device
#:            alias.<digest>          AliasOf: how a name of another format leads to a device
#:            link.<digest>           Link: a one-time link or a claim code, gone when used or over
#:   SEEN     <id>                    Seen, in memory
#:   COMMAND  <device>.<id>           Command
#:   ACCESS   token.<id>              Token
#:            session.<digest>        Session of the web page
#:   BAN      device.<id>, address.<hex of the address's text>   Ban, gone when it is over
#:   DAYKEY   day.<days since 1970>   32 random bytes: the key of that day's pseudonyms
DEVICE_KEY, ALIAS_KEY, LINK_KEY = "device.{id}", "alias.{digest}", "link.{digest}"
TOKEN_KEY, SESSION_KEY, DAYKEY_KEY = "token.{id}", "session.{digest}", "day.{day}"
#: The audit log: one stream, each entry chained to the one before.
AUDIT_STREAM = "AUDIT"
AUDIT_SUBJECT = "audit.{action}"
COMMAND_TOPIC = "headcount/{site}/{kind}/{device}/cmd"
ACK_TOPIC = "headcount/{site}/{kind}/{device}/ack"
#: The count as it is, retained, for those who may see it; COUNT_TOPIC is the public's.
EXACT_TOPIC = "headcount/{site}/exact/{zone}"
#: In the log: who is to be forgotten at this moment (`Forget` as JSON); see docs/concepts/privacy.md.
FORGET_SUBJECT = "fix.{partition}.forget"
#: A request to the role `history` (history/erasing.py): take these pseudonyms' rows out of everything it keeps.
HISTORY_ERASE_SUBJECT = "ask.history.erase"

DeviceStatus = Literal["active", "paused", "disabled", "erasing"]
Role = Literal["public", "viewer", "operator", "admin"]
ROLES: tuple[Role, Role, Role, Role] = ("public", "viewer", "operator", "admin")


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


class AliasOf(msgspec.Struct):
    """To which device a name of another format leads."""

    device: str


class Link(msgspec.Struct, kw_only=True):
    """A one-time link or a claim code: whoever shows its secret gets a device's credentials, once."""

    site: str
    kind: Kind
    expires: float
    device: str = ""  # for this device; "" = a new one
    label: str = ""
    groups: list[str] = []
    left: int = 1  # how often it can still be used


class Seen(msgspec.Struct):
    """When a device was last connected, as its broker unit says."""

    at: float
    connected: bool
    unit: str


class Ban(msgspec.Struct, omit_defaults=True):
    """Who is kept out until when, and why."""

    until: float
    reason: str
    #: Of an address from which somebody guesses: who proves to be a device may still come from there, since a
    #: whole campus may have one address.
    guesses: bool = False


class Token(msgspec.Struct, kw_only=True):
    """An API token; its secret is known to its owner only."""

    id: str
    name: str
    role: Role
    sites: list[str] = []  # [] = all
    scopes: list[str] = []  # [] = all of the role's
    secret: str  # SHA-256 of 256 random bits, in hex
    created: float
    expires: float | None = None


class Session(msgspec.Struct, kw_only=True):
    """Somebody who has logged in on the web page."""

    subject: str  # as the identity provider calls them
    name: str
    role: Role
    sites: list[str] = []
    csrf: str
    expires: float


CommandKind = Literal["interval", "report", "pause", "message"]


class Command(msgspec.Struct, kw_only=True):
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


class CommandSent(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The message on `headcount/{site}/{kind}/{device}/cmd`. The same id may come more than once."""

    id: str
    command: CommandKind
    expires: float
    interval_s: float | None = None
    until: float | None = None
    text: str | None = None


class Ack(msgspec.Struct):
    """The message on `headcount/{site}/{kind}/{device}/ack`."""

    id: str
    ok: bool = True
    text: str = ""


class Forget(msgspec.Struct):
    """Who is to be forgotten: leaves every zone (reason `removed`) and is as if never heard of."""

    kind: Kind
    pseudonyms: dict[str, str]  # day (since 1970) to the pseudonym of that day, 16 hexadecimal digits


#: Counts are taken at multiples of this; it bounds how far behind a published count can be.
TICK_S = 0.1
#: Counts go into the history at multiples of this.
HISTORY_TICK_S = 10.0


def iso(t: float) -> str:
    """Unix seconds as RFC 3339 in UTC with milliseconds: `2026-11-24T13:00:00.000Z`."""
    moment = datetime.fromtimestamp(round(t * 1000) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def partition_of(site: str, device: str, partitions: int) -> int:
    """The partition of a device, as the broker's subject mapping `partition(P,1,3)` has it.

    Source: nats-server `subject_transform.go`: FNV-1a, 32 bit, over the tokens without dots.
    """
    h = 2166136261
    for byte in (site + device).encode():
        h = ((h ^ byte) * 16777619) & 0xFFFFFFFF
    return h % partitions
