"""Kafka topics as a source: a consumer group, whose offsets are committed when the log has the records.

Bridges of one name divide the partitions among them. A partition has one reader and its records are copied in
order, so the order of the records with one key holds. After a rebalance or a kill, the next reader of a
partition starts at the committed offset and copies some records again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import parse_qs

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.cimpl import Message

from headcount.bridge.bus_topics import record_topic, topic_pattern
from headcount.bridge.source import BATCH_SIZE, SourceMessage, SourceOptions
from headcount.errors import SettingsError

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Time that a poll waits for a first record, and so the longest reaction to a stop.
POLL_S = 0.5
#: Time that the brokers have to answer the question whether they are there.
PROBE_S = 2.0
_NOT_CONNECTED = "not connected yet"
_SETTINGS = {
    "enable.auto.commit": False,
    # a new group copies what the topic has; the counting rules judge old fixes as `late`
    "auto.offset.reset": "earliest",
    # the partitions of a bridge that was killed get another reader after this
    "session.timeout.ms": 10_000,
    # bridges that come and go leave the other partitions where they are
    "partition.assignment.strategy": "cooperative-sticky",
    "topic.metadata.refresh.interval.ms": 10_000,  # topics that are created later
    # what is fetched when the brokers go is stored, and cannot be committed
    "queued.max.messages.kbytes": 2 << 10,
    "fetch.message.max.bytes": 128 << 10,
    "log_level": 0,  # errors are reported by `problem`
}


def source(options: SourceOptions) -> KafkaSource:
    """The brokers of a URL.

    Raises:
        SettingsError: the URL names no topic, or a setting is not valid.
    """
    return KafkaSource(options)


class KafkaSource:
    """Topics of one Kafka cluster, with a group of the bridge's name."""

    exclusive = False

    def __init__(self, options: SourceOptions) -> None:
        """Join the group of these options when `batches` is called.

        Raises:
            SettingsError: the URL names no topic, or a setting is not valid.
        """
        self._options = options
        self._pattern = topic_pattern(options.url.query)
        self._topics = list(options.topics) or [name for name in [options.url.path.strip("/")] if name]
        if not self._topics:
            raise SettingsError("bridge.from", "names no Kafka topic; use kafka://HOST:9092/TOPIC")
        self._offsets: dict[tuple[str, int], int] = {}  # topic and partition → offset to continue at
        self._has_failed_commit = False
        self.problem = _NOT_CONNECTED

    async def batches(self, stop: asyncio.Event) -> AsyncGenerator[list[SourceMessage], None]:
        """Yield records until `stop` is set; see `Source`.

        Raises:
            SettingsError: a setting is not valid.
        """
        with ThreadPoolExecutor(1, "kafka") as thread:
            self._thread, self._offsets = thread, {}
            self._consumer = await self._in_thread(self._join)
            try:
                while not stop.is_set():
                    if batch := await self._in_thread(self._next):
                        yield batch
            finally:
                await self._in_thread(self._consumer.close)

    async def acknowledge(self) -> None:
        """Commit the offsets of what was yielded; see `Source`."""
        await self._in_thread(self._commit)

    def _in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    # --- in the thread: calls of the client block ---------------------------------------------------
    def _join(self) -> Consumer:
        try:
            consumer = Consumer(
                consumer_settings(self._options) | {"error_cb": self._on_error, "on_commit": self._on_commit}
            )
        except KafkaException as error:
            raise SettingsError("bridge.from", f"Kafka's client refuses it: {error.args[0].str()}") from error
        consumer.subscribe(self._topics)
        return consumer

    def _next(self) -> list[SourceMessage]:
        """The next records; [] where there are none now."""
        batch = []
        for record in self._consumer.consume(BATCH_SIZE, POLL_S):
            if error := record.error():
                self._note(error.str())
                continue
            self._offsets[record.topic() or "", record.partition() or 0] = (record.offset() or 0) + 1
            batch.append(self._message(record))
        if self.problem:  # also after records, which may have been fetched before
            self._probe()
        if self._has_failed_commit and not batch and not self.problem:
            self._commit()
        return batch

    def _message(self, record: Message) -> SourceMessage:
        payload = record.value()
        if payload is None:  # deletes the records with its key from a compacted topic
            return SourceMessage("", b"", "empty")
        named = dict(record.headers() or ()).get("topic")
        topic = record_topic(self._pattern, named, record.key(), record.topic() or "")
        return SourceMessage(topic, payload)

    def _probe(self) -> None:
        """Note whether the brokers answer and have the topics."""
        try:
            found = self._consumer.list_topics(timeout=PROBE_S).topics
        except KafkaException as error:
            self._on_error(error.args[0])
            return
        missing = [name for name in self._topics if name not in found]
        self._note(f"there is no Kafka topic {missing[0]}" if missing else "")

    def _on_error(self, error: KafkaError) -> None:
        if self.problem in ("", _NOT_CONNECTED):  # the first error names the cause
            self._note(error.str())

    def _commit(self) -> None:
        """Commit the last offset of each partition, so that each commit makes up for those that failed."""
        owned = {(each.topic, each.partition) for each in self._consumer.assignment()}
        self._offsets = {place: offset for place, offset in self._offsets.items() if place in owned}
        if offsets := [TopicPartition(*place, offset) for place, offset in self._offsets.items()]:
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def _on_commit(self, error: KafkaError | None, _: list[TopicPartition]) -> None:
        if error is not None and not self._has_failed_commit:
            _log.warning("%s: cannot commit now: %s", self._options.address, error.str())
        self._has_failed_commit = error is not None

    def _note(self, problem: str) -> None:
        text = problem and f"{self._options.address}: {problem}"
        if text != self.problem:
            _log.warning(text) if text else _log.info("connected to %s", self._options.address)
        self.problem = text


def consumer_settings(options: SourceOptions) -> dict[str, Any]:
    """The settings of Kafka's client for these options.

    Raises:
        SettingsError: a password would be sent without encryption.
    """
    encrypted, query = options.url.scheme == "kafkas", parse_qs(options.url.query)
    brokers = options.url.netloc.rpartition("@")[2]
    found = _SETTINGS | {"bootstrap.servers": brokers, "group.id": options.name, "client.id": options.name}
    found["security.protocol"] = ("SASL_" if options.user else "") + ("SSL" if encrypted else "PLAINTEXT")
    if options.user:
        mechanism = query.get("sasl", ["SCRAM-SHA-512"])[-1]
        if mechanism == "PLAIN" and not encrypted:
            raise SettingsError("bridge.from", "sasl=PLAIN sends the password; use it with kafkas://")
        found |= {
            "sasl.mechanism": mechanism,
            "sasl.username": options.user,
            "sasl.password": options.password,
        }
    files = {"ca": options.settings.ca, "certificate": options.settings.cert, "key": options.settings.key}
    return found | {f"ssl.{name}.location": str(file) for name, file in files.items() if file is not None}
