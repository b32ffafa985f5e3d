"""The translator of other formats: foreign messages in, canonical ones out.

    FOREIGN ──pull──▶ decode ──▶ headcount.{site}.{kind}.{device}.{fix,status} ──▶ FIX_<p> ──▶ ack ──▶ purge

A batch is acknowledged when the log has acknowledged all of its translations. If the process ends before
that, the batch is delivered again, and the counting rules judge repeated fixes as `duplicate`. So nothing is
lost, and nothing is counted twice.

Topics and payloads contain names of people, so translated messages are soon removed from the disk: everything
up to the first message that is not acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from headcount.decoders.canonical import CanonicalMessage, Outcome
from headcount.decoders.device_aliases import AliasResolver
from headcount.decoders.formats import SHIPPED, decode_message
from headcount.decoding import DecodeError, Ignored, Message
from headcount.devices.registry_cache import RegistryCache
from headcount.errors import LogError
from headcount.messages.reports import ADAPTER_REPORT_SUBJECT, AdapterReport
from headcount.messages.topics import FOREIGN_STREAM
from headcount.messaging import qos1
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.consumers import PullConsumer, acknowledge, pull_consumer
from headcount.messaging.jetstream import NS, StoredMessage, append, consumer_info
from headcount.messaging.qos1 import QOS_HEADER
from headcount.messaging.secure_delete import purge
from headcount.messaging.streams import opened_log
from headcount.runtime.retry import RETRY_S
from headcount.runtime.tasks import cancel_all, wait_any

log = logging.getLogger(__name__)

DURABLE = "adapters"
#: Messages of one batch, all of which are published concurrently.
BATCH_SIZE = 1000
#: Time that a fetch waits for a first message, and so the longest reaction to a stop.
FETCH_S = 0.5
#: Time after which an unacknowledged batch is delivered again, and an unacknowledged publish repeated.
ACK_WAIT_S, ACK_TIMEOUT_S = 60.0, 5.0
METRICS_INTERVAL_S = 1.0
#: The most frequent problems of rejected messages are logged this often.
LOG_INTERVAL_S, MAX_LOGGED, MAX_PROBLEMS = 60.0, 5, 100
#: Minimum interval at which translated messages are removed from the disk.
PURGE_INTERVAL_S = 0.2
_CONSUMER = {
    "durable_name": DURABLE,
    "deliver_policy": "all",
    "ack_policy": "explicit",
    "ack_wait": int(ACK_WAIT_S * NS),
    "max_ack_pending": 4 * BATCH_SIZE,
}


@dataclass(slots=True)
class TranslationStats:
    """Numbers of translated (by format), ignored and rejected messages (by reason) since the start."""

    translated: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)  # of rejected messages since the last log line

    def add(self, format_: str, outcome: Outcome) -> None:
        """Count one outcome."""
        if isinstance(outcome, CanonicalMessage):
            self.translated[format_] += 1
        elif isinstance(outcome, Ignored):
            self.ignored[outcome.reason] += 1
        else:
            self.rejected[outcome.label] += 1
            problem = f"{format_}: {outcome.problem or outcome.label}"
            if problem in self.problems or len(self.problems) < MAX_PROBLEMS:
                self.problems[problem] += 1

    def log_problems(self) -> None:
        """Log the most frequent problems since the last call."""
        for problem, count in self.problems.most_common(MAX_LOGGED):
            log.warning("rejected %d messages of the format %s", count, problem)
        self.problems.clear()

    def report(self, worker: str) -> AdapterReport:
        """All numbers; formats without a message are 0."""
        translated = {format_.name: 0 for format_ in SHIPPED} | self.translated
        return AdapterReport(worker, translated, dict(self.ignored), dict(self.rejected))


def topic_of(subject: str) -> str:
    """The MQTT topic of a subject.

    Source: nats-server `mqtt.go`: `/` becomes `.`, `.` becomes `//`, and an empty level becomes `/`.
    """
    levels = ["" if level == "/" else level.replace("//", ".") for level in subject.split(".")]
    return "/".join(levels)


def translate(
    subject: str, payload: bytes, received_s: float, names: AliasResolver
) -> tuple[str, list[Outcome]]:
    """The format of a foreign message, and its translations. Never raises."""
    message = Message(topic_of(subject), received_s)
    for format_ in SHIPPED:
        if format_.matches(message.topic):
            try:
                payload = names.decrypted(format_.name, payload, message)
            except DecodeError as error:
                return format_.name, [error]
            decoded = decode_message(format_, payload, message)
            return format_.name, [names.outcome(format_.name, each) for each in decoded]
    return "unknown", [DecodeError("topic", "no format has this topic")]


async def run(
    core: Endpoint,
    site_id: str,
    stop: asyncio.Event,
    *,
    secret: str,
    worker: str = "0",
) -> None:
    """Translate until `stop` is set, and return at most `FETCH_S` and a batch later.

    Messages of registered devices go to their site, others to the site `site_id`. The handles of unregistered names
    are derived from the deployment's `secret`. `worker` names this process in its metrics.

    Raises:
        LogError: the stream FOREIGN does not exist.
        StopRequestedError: `stop` was set while waiting for the core.
    """
    async with (
        opened_log(core, f"headcount adapters {worker}", stop) as connection,
        pull_consumer(connection, FOREIGN_STREAM, _CONSUMER) as consumer,
    ):
        stats, registry = TranslationStats(), RegistryCache()
        names = AliasResolver(secret, registry, site_id)
        translator = _Translator(connection, names, stats)
        async with asyncio.TaskGroup() as loops:
            caching = loops.create_task(registry.run(connection), name="registry")
            loops.create_task(_report(connection, stats, worker, stop), name="metrics")
            # before the registry is read, a registered device would get a derived handle
            await wait_any(registry.ready, stop)
            purging = loops.create_task(_purge(connection, translator.acknowledged), name="purge")
            await translator.run(consumer, stop)
            await cancel_all({caching, purging})


async def _report(connection: Connection, stats: TranslationStats, worker: str, stop: asyncio.Event) -> None:
    log_s = -LOG_INTERVAL_S
    while True:
        if stats.problems and time.monotonic() - log_s >= LOG_INTERVAL_S:
            log_s = time.monotonic()
            stats.log_problems()
        if connection.is_connected:
            report = msgspec.json.encode(stats.report(worker))
            await connection.publish(ADAPTER_REPORT_SUBJECT.format(worker=worker), report)
        if stop.is_set():
            return
        await wait_any(stop, timeout_s=METRICS_INTERVAL_S)


@dataclass(frozen=True, slots=True)
class _Translator:
    connection: Connection
    names: AliasResolver
    stats: TranslationStats
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, consumer: PullConsumer, stop: asyncio.Event) -> None:
        while not stop.is_set():
            messages = await _fetch(consumer)
            if not messages:
                continue
            canonical = [found for message in messages for found in self._translated(message)]
            if await _publish_all(self.connection, canonical, stop):
                try:
                    for message in messages:
                        await acknowledge(self.connection, message)
                    self.acknowledged.set()
                except LogError as error:
                    log.debug("cannot acknowledge a batch, it will be delivered again: %s", error)

    def _translated(self, message: StoredMessage) -> list[CanonicalMessage]:
        subject, qos = message.subject.encode(), message.headers.get(QOS_HEADER, "")
        if not qos1.counts(subject, qos.encode()):
            return []  # it is delivered again once it has been acknowledged
        plain = qos1.plain(subject).decode()
        format_, outcomes = translate(plain, message.data, message.stored_s, self.names)
        for outcome in outcomes:
            self.stats.add(format_, outcome)
        return [outcome for outcome in outcomes if isinstance(outcome, CanonicalMessage)]


async def _purge(connection: Connection, acknowledged: asyncio.Event) -> None:
    """Remove messages from the disk as soon as all earlier ones are acknowledged, too."""
    acknowledged.set()  # at the start, those that were acknowledged before
    while True:
        await acknowledged.wait()
        acknowledged.clear()
        await asyncio.sleep(PURGE_INTERVAL_S)
        try:
            info = await consumer_info(connection, FOREIGN_STREAM, DURABLE)
            if info.acknowledged:
                await purge(connection, FOREIGN_STREAM, info.acknowledged)
            if info.num_ack_pending or info.num_pending:
                acknowledged.set()  # while more messages arrive, some deleted ones remain in the newest file
        except LogError as error:
            log.debug("cannot remove translated messages, trying again: %s", error)
            acknowledged.set()


async def _fetch(consumer: PullConsumer) -> list[StoredMessage]:
    try:
        return await consumer.fetch(BATCH_SIZE, FETCH_S)
    except LogError as error:
        log.warning("cannot fetch foreign messages, trying again: %s", error)
        await asyncio.sleep(RETRY_S)
        return []


async def _publish_all(
    connection: Connection, canonical: list[CanonicalMessage], stop: asyncio.Event
) -> bool:
    """Publish until the log has acknowledged all messages; False: stopped before."""
    left = canonical
    while left:
        left = await _publish(connection, left)
        if left:
            log.warning("the log did not accept %d translated messages, trying again", len(left))
            if stop.is_set():
                return False
            await asyncio.sleep(RETRY_S)
    return True


async def _publish(connection: Connection, canonical: list[CanonicalMessage]) -> list[CanonicalMessage]:
    """Publish all messages; returns those that the log has not acknowledged."""

    async def one(message: CanonicalMessage) -> CanonicalMessage | None:
        try:
            await append(connection, message.subject, message.payload, timeout_s=ACK_TIMEOUT_S)
        except LogError:
            return message
        return None

    return [message for message in await asyncio.gather(*map(one, canonical)) if message is not None]
