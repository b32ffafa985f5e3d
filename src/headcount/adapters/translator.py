"""The loop of the role `adapters`: foreign messages in, canonical ones out.

    FOREIGN ──pull──▶ decode ──▶ headcount.{site}.{kind}.{device}.{fix,status} ──▶ FIX_<p> ──▶ ack ──▶ purge

A batch is acknowledged when the log has acknowledged everything that came of it. Whatever ends the
program before that, the batch comes again, and the counting rules judge what is then there twice as
`duplicate`. So nothing is lost, and nothing is counted twice.

Topics and payloads hold names of people, so what is translated is removed from the disk, a moment later:
everything up to the first message that isn't acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from headcount.adapters import iotp, owntracks
from headcount.adapters.decoding import CanonicalMessage, IgnoredMessage, Outcome
from headcount.adapters.device_aliases import AliasResolver
from headcount.devices.registry_cache import RegistryCache
from headcount.errors import LogError
from headcount.messages.topics import FOREIGN_STREAM
from headcount.messaging import qos1
from headcount.messaging.connection import Connection, Endpoint, connected
from headcount.messaging.jetstream import (
    NS,
    PullConsumer,
    StoredMessage,
    acknowledge,
    append,
    consumer_info,
    pull_consumer,
)
from headcount.messaging.qos1 import QOS_HEADER
from headcount.messaging.secure_delete import purge

log = logging.getLogger(__name__)

DURABLE = "adapters"
METRICS_SUBJECT = "metrics.adapters.{worker}"
#: Messages of one batch, and of the answers to it that may be under way at once.
BATCH_SIZE = 1000
#: Seconds that a fetch waits for a first message: the longest time until a stop is noticed.
FETCH_S = 0.5
#: Seconds until an unacknowledged batch comes again, and until an unanswered publish is sent again.
ACK_WAIT_S, ACK_TIMEOUT_S = 60.0, 5.0
RETRY_INTERVAL_S = 1.0
METRICS_INTERVAL_S = 1.0
#: How often what is translated is removed from the disk.
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
    """How many messages were translated (by format), ignored and rejected (by reason) since the start."""

    translated: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)

    def add(self, format_: str, outcome: Outcome) -> None:
        """Count one outcome."""
        if isinstance(outcome, CanonicalMessage):
            self.translated[format_] += 1
        elif isinstance(outcome, IgnoredMessage):
            self.ignored[outcome.reason] += 1
        else:
            self.rejected[outcome.reason] += 1

    def message(self, worker: str) -> bytes:
        """The metrics as JSON."""
        translated = {"owntracks": 0, "iotp": 0} | self.translated
        body = {
            "worker": worker,
            "translated": translated,
            "ignored": self.ignored,
            "rejected": self.rejected,
        }
        return msgspec.json.encode(body)


def topic_of(subject: str) -> str:
    """The MQTT topic that the broker made this subject of.

    Source: nats-server `mqtt.go`: `/` parts the levels as `.`, a `.` is written `//`, and a level
    without a name is written `/`.
    """
    levels = ["" if level == "/" else level.replace("//", ".") for level in subject.split(".")]
    return "/".join(levels)


def translate(
    subject: str,
    payload: bytes,
    received_s: float,
    names: AliasResolver,
    vehicles: frozenset[str] = frozenset(),
) -> tuple[str, list[Outcome]]:
    """The name of a foreign message's format, and what comes of it. Never raises."""
    topic = topic_of(subject)
    if topic in iotp.KIND_OF_TOPIC:
        return "iotp", iotp.decode(topic, payload, received_s, names)
    return "owntracks", owntracks.decode(topic, payload, names, vehicles)


async def run(
    core: Endpoint,
    site_id: str,
    stop: asyncio.Event,
    *,
    secret: str,
    worker: str = "0",
    vehicles: frozenset[str] = frozenset(),
) -> None:
    """Translate until `stop` is set; at most `FETCH_S` and a batch later this returns.

    Args:
        core: where the log is.
        site_id: whose canonical topics the translations go to.
        stop: set to end.
        secret: the deployment's, from which handles of unregistered names are derived.
        worker: names this process in its metrics.
        vehicles: OwnTracks devices that drive, see `owntracks.decode`.

    Raises:
        LogError: the stream FOREIGN isn't there.
        StopRequestedError: `stop` was set while it waited for the core.
    """
    async with (
        connected(core, f"headcount adapters {worker}", stop) as connection,
        pull_consumer(connection, FOREIGN_STREAM, _CONSUMER) as consumer,
    ):
        tally, registry = TranslationStats(), RegistryCache()
        adapter = _Translator(connection, site_id, AliasResolver(secret, registry), vehicles, tally)
        async with asyncio.TaskGroup() as loops:
            keeping = loops.create_task(registry.run(connection), name="registry")
            loops.create_task(_report(connection, tally, worker, stop), name="metrics")
            # before the registry is known, a registered device would get another name
            ready = loops.create_task(_wait_for_either(registry.ready, stop))
            await ready
            purging = loops.create_task(_purge(connection), name="purge")
            await adapter.work(consumer, stop)
            keeping.cancel()
            purging.cancel()


async def _report(connection: Connection, tally: TranslationStats, worker: str, stop: asyncio.Event) -> None:
    while True:
        if connection.is_connected:
            await connection.publish(METRICS_SUBJECT.format(worker=worker), tally.message(worker))
        if stop.is_set():
            return
        try:
            await asyncio.wait_for(stop.wait(), METRICS_INTERVAL_S)
        except TimeoutError:
            continue


@dataclass(frozen=True, slots=True)
class _Translator:
    connection: Connection
    site_id: str
    names: AliasResolver
    vehicles: frozenset[str]
    tally: TranslationStats

    async def work(self, consumer: PullConsumer, stop: asyncio.Event) -> None:
        while not stop.is_set():
            messages = await _fetch(consumer)
            if not messages:
                continue
            canonical = [found for message in messages for found in self._translated(message)]
            if await _publish_all(self.connection, self.site_id, canonical, stop):
                try:
                    for message in messages:
                        await acknowledge(self.connection, message)
                except LogError as error:
                    log.debug("not acknowledged, it comes again: %s", error)

    def _translated(self, message: StoredMessage) -> list[CanonicalMessage]:
        subject, qos = message.subject.encode(), message.headers.get(QOS_HEADER, "")
        if not qos1.counts(subject, qos.encode()):
            return []  # it comes again when it has been acknowledged
        plain = qos1.plain(subject).decode()
        format_, outcomes = translate(plain, message.data, message.stored_s, self.names, self.vehicles)
        for outcome in outcomes:
            self.tally.add(format_, outcome)
        return [outcome for outcome in outcomes if isinstance(outcome, CanonicalMessage)]


async def _purge(connection: Connection) -> None:
    """Remove from the disk what is acknowledged without a gap, as soon as it is."""
    done = 0
    while True:
        await asyncio.sleep(PURGE_INTERVAL_S)
        try:
            info = await consumer_info(connection, FOREIGN_STREAM, DURABLE)
            if info.acknowledged != done:
                await purge(connection, FOREIGN_STREAM, info.acknowledged)
                # while more comes, some of what is dead stays in the newest file
                done = info.acknowledged if not info.num_ack_pending and not info.num_pending else 0
        except LogError as error:
            log.debug("what is translated can't be removed now, trying again: %s", error)


async def _wait_for_either(first: asyncio.Event, second: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in (first, second)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _fetch(consumer: PullConsumer) -> list[StoredMessage]:
    try:
        return await consumer.fetch(BATCH_SIZE, FETCH_S)
    except LogError as error:
        log.warning("the broker gives no foreign messages, trying again: %s", error)
        await asyncio.sleep(RETRY_INTERVAL_S)
        return []


async def _publish_all(
    connection: Connection, site_id: str, canonical: list[CanonicalMessage], stop: asyncio.Event
) -> bool:
    """Publish until the log has acknowledged all; False when stopped before."""
    left = canonical
    while left:
        left = await _publish(connection, site_id, left)
        if left:
            log.warning("the log did not take %d translated messages, trying again", len(left))
            if stop.is_set():
                return False
            await asyncio.sleep(RETRY_INTERVAL_S)
    return True


async def _publish(
    connection: Connection, site_id: str, canonical: list[CanonicalMessage]
) -> list[CanonicalMessage]:
    """Send all, then wait for the answers; returns those that the log hasn't acknowledged."""

    async def one(message: CanonicalMessage) -> CanonicalMessage | None:
        subject = f"headcount.{site_id}.{message.kind}.{message.device}.{message.what}"
        try:
            await append(connection, subject, message.payload, timeout_s=ACK_TIMEOUT_S)
        except LogError:
            return message
        return None

    return [message for message in await asyncio.gather(*map(one, canonical)) if message is not None]
