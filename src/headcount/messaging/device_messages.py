"""One device's own messages of the last hour, read from the log on request."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from headcount.errors import LogUnavailableError
from headcount.messages.topics import FIX_STREAM, FORGET_SUBJECT
from headcount.messaging import qos1
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import PullConsumer, StoredMessage, pull_consumer, stream_info
from headcount.messaging.streams import PARTITIONS_KEY

#: At most this many are read, the newest: an hour at one a second, stored twice with QoS 1.
MAX_MESSAGES = 8_000
LOG_S = 3600.0
_BATCH = 512
_FETCH_S = 5.0


@dataclass(slots=True)
class Messages:
    """Messages in the order of the log, as `payloads.rows` takes them; what was never acknowledged isn't here."""

    #: Everything since then is here (Unix seconds).
    since_s: float
    subjects: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    seq: list[int] = field(default_factory=list)
    received_ns: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.seq)


async def messages_of(
    connection: Connection,
    partition: int,
    site: str,
    kind: str,
    device: str,
    now_s: float,
    max_messages: int = MAX_MESSAGES,
) -> Messages:
    """A device's messages in the log, and the marks of devices that are to be forgotten.

    Args:
        connection: to the core, with all rights.
        partition: the device's.
        site: its site's id.
        kind: its kind.
        device: its id: no wildcards.
        now_s: Unix seconds.
        max_messages: with more than these, only the newer part of the hour is read.

    Raises:
        LogError: the log doesn't answer.
    """
    own = f"fix.{partition}.{site}.{kind}.{device}"
    subjects = qos1.with_stored([own, f"{own}.status", FORGET_SUBJECT.format(partition=partition)])
    stream, span_s = FIX_STREAM.format(partition=partition), LOG_S
    while True:
        config = {
            "deliver_policy": "by_start_time",
            "opt_start_time": _rfc_3339(now_s - span_s),
            "filter_subjects": subjects,
        }
        async with pull_consumer(connection, stream, config) as consumer:
            if consumer.pending <= max_messages or span_s < 1.0:
                return await _read(consumer, Messages(now_s - span_s), min(consumer.pending, max_messages))
        span_s /= 2


async def partitions_of_log(connection: Connection) -> int:
    """With how many partitions the log was created.

    Raises:
        LogError: the log doesn't answer, or isn't there.
    """
    info = await stream_info(connection, FIX_STREAM.format(partition=0))
    return int((info.config.get("metadata") or {}).get(PARTITIONS_KEY, 1))


async def _read(consumer: PullConsumer, found: Messages, left: int) -> Messages:
    while left > 0:
        batch = await consumer.fetch(min(left, _BATCH), _FETCH_S)
        if not batch:
            raise LogUnavailableError("the core stopped sending a device's messages")
        for message in batch:
            _add(found, message)
        left = min(left - len(batch), batch[-1].pending)
    return found


def _add(found: Messages, message: StoredMessage) -> None:
    subject, qos = message.subject.encode(), message.headers.get(qos1.QOS_HEADER, "").encode()
    if not qos1.counts(subject, qos):
        return
    found.subjects.append(qos1.plain(subject))
    found.payloads.append(message.data)
    found.seq.append(message.sequence)
    found.received_ns.append(max(message.stored_ns, found.received_ns[-1] if found.received_ns else 0))


def _rfc_3339(t_s: float) -> str:
    return (
        datetime.fromtimestamp(max(0.0, t_s), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
