"""Publishes, subscriptions and connections that the NATS server refuses: counted by reason, the last ones by device.

A refused publish is acknowledged and dropped, and only the server's log has it. So its lines are read on the
way to the file, before names are removed.
"""

from __future__ import annotations

import re
import time
from collections import Counter, OrderedDict

import msgspec

from headcount.messages.records import Refusal, RefusalAction, RefusalReason, Refusals
from headcount.messages.reports import REFUSAL_REPORT_SUBJECT, RefusalReport
from headcount.messages.topics import HANDLE, ID, KINDS
from headcount.messaging.connection import Connection
from headcount.messaging.streams import REFUSED_BUCKET

#: Devices of which the last refusals are kept in memory, and their number for each.
MAX_DEVICES, MAX_LAST = 10_000, 10
MAX_TOPIC_CHARS = 200
#: Devices whose refusals are stored at a time, once a second; the others later.
_STORED_AT_ONCE = 100
PUBLISH_INTERVAL_S = 1.0

_LINE = re.compile(rb' - mid(?:_ws)?:\d+ - (?:"((?:[^"\\]|\\.)*)" - )?(.*)')
_VIOLATION = re.compile(rb'(Publish|Subscription) Violation - .*?Subject "((?:[^"\\]|\\.)*)"')
_FILTER = re.compile(rb'invalid topic "((?:[^"\\]|\\.)*)"')
#: Parts of the server's other messages.
_MESSAGES: tuple[tuple[bytes, RefusalAction, RefusalReason], ...] = (
    (b"not supported for MQTT topics", "publish", "characters"),
    (b"wildcards not allowed in publish", "publish", "characters"),
    (b"message size exceeds maximum", "publish", "size"),
    (b"invalid character in client ID", "connect", "client-id"),
    (b"unacceptable protocol version", "connect", "version"),
    (b"older protocol", "connect", "version"),
)


def refusal_of(line: bytes, now_s: float) -> tuple[str, Refusal] | None:
    """The refusal that a line of the server's log reports, and its device ("" if it is unknown); None: none."""
    match = _LINE.search(line)
    if match is None:
        return None
    client, what = (match[1] or b"").decode(errors="replace"), match[2]
    owner = client.partition("-")[0]
    device = owner if HANDLE.fullmatch(owner) else ""
    if violation := _VIOLATION.match(what):
        topic, named = _topic(violation[2].decode(errors="replace"))
        action: RefusalAction = "publish" if violation[1] == b"Publish" else "subscribe"
        reason: RefusalReason = "topic"
        if "" in topic.split("/"):
            reason = "slash"
        elif device and named and named != device:
            reason = "other-device"
        return device or named, Refusal(now_s, action, reason, topic[:MAX_TOPIC_CHARS])
    if found := _FILTER.match(what):
        topic = found[1].decode(errors="replace")
        return device, Refusal(now_s, "subscribe", "characters", topic[:MAX_TOPIC_CHARS])
    for text, action, reason in _MESSAGES:
        if text in what:
            return device, Refusal(now_s, action, reason)
    return None


def _topic(subject: str) -> tuple[str, str]:
    """The topic of a subject, and the device that it names ("" if none); an empty level is `/` in a subject."""
    levels = ["" if level == "/" else level for level in subject.split(".")]
    if levels[0] == "fix" and len(levels) > 4:  # as it is mapped: fix.<partition>.<site>.<kind>.<device>
        levels = ["headcount", *levels[2:5], *(levels[5:] or ["fix"])]
    named = ""
    if levels[0] == "headcount" and len(levels) > 3 and levels[2] in KINDS:
        named = levels[3]
    elif levels[0] == "owntracks" and len(levels) > 2:
        named = levels[1]
    return "/".join(levels), named if ID.fullmatch(named) else ""


class RefusalLog:
    """The refusals of one server since the start of this process."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[RefusalAction, RefusalReason]] = Counter()
        self.devices: OrderedDict[str, Refusals] = OrderedDict()
        self._changed: dict[str, None] = {}
        self._reported = 0

    def take(self, line: bytes) -> None:
        """Take a line of the server's log, whatever it is about."""
        found = refusal_of(line, time.time())
        if found is None:
            return
        device, refusal = found
        self.counts[refusal.action, refusal.reason] += 1
        if not device:
            return
        refusals = self.devices.pop(device, None) or Refusals()
        self.devices[device] = Refusals(refusals.total + 1, [*refusals.last[1 - MAX_LAST :], refusal])
        self._changed[device] = None
        if len(self.devices) > MAX_DEVICES:
            self.devices.popitem(last=False)

    @property
    def changed(self) -> bool:
        """Whether there is something to publish."""
        return self._reported != self.counts.total()

    async def publish(self, connection: Connection, server: str) -> None:
        """Publish the counts, and store the last refusals of devices that have new ones.

        Raises:
            LogError: there is no connection.
        """
        counts = {f"{action}.{reason}": float(number) for (action, reason), number in self.counts.items()}
        report = msgspec.json.encode(RefusalReport(server, counts))
        await connection.publish(REFUSAL_REPORT_SUBJECT.format(server=server), report)
        for device in list(self._changed)[:_STORED_AT_ONCE]:
            if (refusals := self.devices.get(device)) is not None:
                await connection.publish(f"$KV.{REFUSED_BUCKET}.{device}", msgspec.json.encode(refusals))
            del self._changed[device]
        if not self._changed:
            self._reported = self.counts.total()
