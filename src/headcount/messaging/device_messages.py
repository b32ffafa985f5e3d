"""The messages of one device in the last hour, read from the log on request."""

from __future__ import annotations

import numpy as np

from headcount.counting.fix_columns import I8
from headcount.messages.times import iso
from headcount.messages.topics import FIX_STREAM, FORGET_SUBJECT
from headcount.messaging import qos1
from headcount.messaging.connection import Connection
from headcount.messaging.consumers import pull_consumer
from headcount.messaging.jetstream import StoredMessage, stream_info
from headcount.messaging.raw_batch import RawBatch
from headcount.messaging.streams import PARTITIONS_KEY

#: At most this many are read, the newest: an hour at one a second, stored twice with QoS 1.
MAX_MESSAGES = 8_000
LOG_S = 3600.0
_BATCH = 512
_FETCH_S = 5.0


async def messages_of(
    connection: Connection,
    partition: int,
    site: str,
    kind: str,
    device: str,
    now_s: float,
    max_messages: int = MAX_MESSAGES,
) -> tuple[RawBatch, float]:
    """A device's messages in the log, and the markers of all devices that are removed from the counts.

    Returns:
        The messages, and since when all are included (Unix seconds).

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
            "opt_start_time": iso(max(0.0, now_s - span_s)),
            "filter_subjects": subjects,
        }
        async with pull_consumer(connection, stream, config) as consumer:
            if consumer.pending <= max_messages or span_s < 1.0:
                found = [message async for message in consumer.waiting(max_messages, _BATCH, _FETCH_S)]
                return _raw_batch(partition, found), now_s - span_s
        span_s /= 2


async def partitions_of_log(connection: Connection) -> int:
    """The number of partitions of the log.

    Raises:
        LogError: the log doesn't answer, or isn't there.
    """
    info = await stream_info(connection, FIX_STREAM.format(partition=0))
    return int((info.config.get("metadata") or {}).get(PARTITIONS_KEY, 1))


def _raw_batch(partition: int, messages: list[StoredMessage]) -> RawBatch:
    counted = [
        message
        for message in messages
        if qos1.counts(message.subject.encode(), message.headers.get(qos1.QOS_HEADER, "").encode())
    ]
    received_ns: I8 = np.array([message.stored_ns for message in counted], dtype=np.int64)
    return RawBatch(
        partition,
        [qos1.plain(message.subject.encode()) for message in counted],
        [message.data for message in counted],
        np.array([message.sequence for message in counted], dtype=np.int64),
        np.maximum.accumulate(received_ns),
    )
