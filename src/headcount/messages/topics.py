"""MQTT topics, NATS subjects and streams; ids and the partition of a device.

MQTT topics and NATS subjects are the same names with `/` or `.` between the parts.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Kind = Literal["person", "vehicle"]
KINDS: tuple[Kind, Kind] = ("person", "vehicle")
ID_PATTERN = r"[A-Za-z0-9_-]{1,64}"
ID = re.compile(ID_PATTERN)
#: The NATS user of headcount's own processes.
INTERNAL = "headcount"
# --- streams and their subjects ------------------------------------------------------------------------
#: One stream per partition p: `FIX_<p>` on `fix.<p>.>`. Subjects in it:
#:   fix.<p>.<site>.<kind>.<device>          a fix
#:   fix.<p>.<site>.<kind>.<device>.status   "online" or "offline"
#:   $MQTT.msgs.fix.<p>.…                    the acknowledged copy of a QoS 1 message (messaging/qos1.py)
#:   fix.<p>.tick                            the log's clock, written by the partition's worker when needed
#:   fix.<p>.forget                          ForgetMarker: removes a device from the counts
FIX_STREAM = "FIX_{partition}"
TICK_SUBJECT = "fix.{partition}.tick"
#: Has all workers count as often as while fixes arrive; empty, and not stored.
WAKE_SUBJECT = "wake"
COUNT_STREAM = "COUNT"  # count.<p>.<site>: counts of p and other partitions (encode_counts), only the newest
COUNT_SUBJECT = "count.{partition}.{site}"
COUNT_SUBJECTS = "count.*.*"
EVENT_STREAM = "EVENT"  # event.<site>.<zone>: Event as JSON, republished to headcount.<site>.events.<zone>
EVENT_SUBJECT = "event.{site}.{zone}"
EPOCH_HEADER = "Headcount-Epoch"  # of the worker that stored an event; any worker stores the same event
HISTORY_STREAM = "HISTORY"  # history.<p>: HistoryBatch, until it is written to a segment
HISTORY_SUBJECT = "history.{partition}"
FOREIGN_STREAM = "FOREIGN"  # owntracks, car-iotp, mobile-iotp: other formats, until translated
FOREIGN_SUBJECTS = ("owntracks.*.*", "owntracks.*.*.event", "car-iotp", "mobile-iotp")
FIX_TOPIC = "headcount/{site}/{kind}/{device}/fix"
STATUS_TOPIC = "headcount/{site}/{kind}/{device}/status"
COUNT_TOPIC = "headcount/{site}/counts/{zone}"
EVENT_TOPIC = "headcount/{site}/events/{zone}"
SITE_TOPIC = "headcount/{site}/site"
#: Request to the auth service of a core; the answer is empty when devices can connect, else the reason.
AUTH_READY_SUBJECT = "auth.ready"
#: KickRequest → KickReply, answered by the agent of a broker unit.
KICK_SUBJECT = "unit.broker.{name}.kick"
#: The id of a registered device: 100 random bits as 20 characters of base 32.
HANDLE_PATTERN = r"[a-z2-7]{20}"
HANDLE = re.compile(HANDLE_PATTERN)
#: The audit log; each entry includes the hash of the one before. Reads of one device add its pseudonym to the subject.
AUDIT_STREAM = "AUDIT"
AUDIT_SUBJECT = "audit.{action}"
COMMAND_TOPIC = "headcount/{site}/{kind}/{device}/cmd"
ACK_TOPIC = "headcount/{site}/{kind}/{device}/ack"
#: Commands to phones with OwnTracks; `user` is the id of the device.
OWNTRACKS_COMMAND_TOPIC = "owntracks/{user}/{device}/cmd"
#: Subtopics of OwnTracks without positions; the broker accepts their messages and stores none of them.
OWNTRACKS_SUBTOPICS = ("beacon", "dump", "info", "request", "status", "step", "waypoint", "waypoints")
OWNTRACKS_SUBJECTS = tuple(f"owntracks.*.*.{subtopic}" for subtopic in OWNTRACKS_SUBTOPICS)
#: Subjects of other formats that devices publish to.
FOREIGN_PUBLISH = (*FOREIGN_SUBJECTS, *OWNTRACKS_SUBJECTS)
#: Exact counts, for subscribers with permission; COUNT_TOPIC is the public's.
EXACT_TOPIC = "headcount/{site}/exact/{zone}"
FORGET_SUBJECT = "fix.{partition}.forget"


class TopicDelivery(NamedTuple):
    """How headcount publishes on an MQTT topic."""

    qos: Literal[0, 1]
    retain: bool


#: Of the topics on which headcount publishes. The server republishes events, which it does with QoS 0.
DELIVERY = {
    COUNT_TOPIC: TopicDelivery(0, retain=True),
    EXACT_TOPIC: TopicDelivery(0, retain=True),
    SITE_TOPIC: TopicDelivery(1, retain=True),
    EVENT_TOPIC: TopicDelivery(0, retain=False),
    COMMAND_TOPIC: TopicDelivery(1, retain=False),
    OWNTRACKS_COMMAND_TOPIC: TopicDelivery(1, retain=False),
}
#: EraseRequest → EraseReply, answered by the history's writer.
HISTORY_ERASE_SUBJECT = "ask.history.erase"
#: Has all history writers store what they have in memory; empty, and not answered.
HISTORY_FLUSH_SUBJECT = "ask.history.flush"
#: Has all workers store their rows for the history; empty. Each answers with RowsStored.
HISTORY_STORE_SUBJECT = "ask.history.store"
#: DeviceStateRequest → DeviceState or null, answered by the partition's worker.
DEVICE_STATE_SUBJECT = "ask.{partition}"


def subject_of(topic: str) -> str | None:
    """The NATS subject of an MQTT topic; None: it has none.

    Source: nats-server `mqtt.go`: `/` becomes `.`, `.` becomes `//`, and an empty level becomes `/`.
    """
    if not topic or re.search(r"[\x00-\x20\x7f*>+#\ud800-\udfff]", topic):
        return None
    return ".".join(level.replace(".", "//") or "/" for level in topic.split("/"))


def partition_of(site: str, device: str, partitions: int) -> int:
    """The partition of a device, computed like the server's subject mapping `partition(P,1,3)`.

    Source: nats-server `subject_transform.go`: FNV-1a, 32 bit, over the tokens without dots.
    """
    h = 2166136261
    for byte in (site + device).encode():
        h = ((h ^ byte) * 16777619) & 0xFFFFFFFF
    return h % partitions
