"""The translator of other formats: foreign messages in, canonical ones out.

    FOREIGN ──pull──▶ decode ──▶ headcount.{site}.{kind}.{device}.{fix,status} ──▶ FIX_<p> ──▶ ack ──▶ purge

A batch is acknowledged when the log has acknowledged all of its translations. If the process ends before
that, the batch is delivered again, and the counting rules judge repeated fixes as `duplicate`. So nothing is
lost, and nothing is counted twice.

The shipped formats share a consumer of FOREIGN; each plug-in has its own, so that a slow one delays no other.
Topics and payloads contain names of people, so translated messages are soon removed from the disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import msgspec

from headcount.adapters.foreign_purge import CONSUMER_PREFIX, Acknowledged, purge_translated
from headcount.adapters.translation_stats import TranslationStats
from headcount.decoders.canonical import CanonicalMessage
from headcount.decoders.device_aliases import AliasResolver
from headcount.decoders.formats import SHIPPED, decode_message, subjects_of
from headcount.decoders.plugin_process import Item, PluginProcess
from headcount.decoders.plugins import Plugin, installed
from headcount.decoding import Decoded, DecodeError, Message
from headcount.devices.registry_cache import RegistryCache
from headcount.errors import DecoderError, LogError
from headcount.messages.reports import ADAPTER_REPORT_SUBJECT
from headcount.messages.topics import FOREIGN_STREAM, FOREIGN_SUBJECTS
from headcount.messaging import qos1
from headcount.messaging.appending import append_in_order
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.consumers import PullConsumer, acknowledge, extend, pull_consumer
from headcount.messaging.jetstream import NS, NewMessage, StoredMessage
from headcount.messaging.qos1 import QOS_HEADER, STORED, with_stored
from headcount.messaging.streams import LOG_AGE_S, opened_log
from headcount.runtime.retry import RETRY_S, retry
from headcount.runtime.tasks import cancel_all, wait_any

log = logging.getLogger(__name__)
T = TypeVar("T")
#: The format of a message, and its results.
FormatResults = tuple[str, list[Decoded]]
#: Decodes the first messages, at least one.
BatchDecode = Callable[[Sequence[Item]], Awaitable[list[FormatResults]]]

#: The shipped formats by the first level of their topics, which the consumer selects.
_SHIPPED_ON = {topic.partition("/")[0]: format_ for format_ in SHIPPED for topic in format_.topics}
#: The consumers of the shipped formats and of a plug-in.
DURABLE, PLUGIN_DURABLE = CONSUMER_PREFIX, CONSUMER_PREFIX + "_{name}"
#: Messages of one batch, all of which are published concurrently.
BATCH_SIZE = 1000
#: Time that a fetch waits for a first message, and so the longest reaction to a stop.
FETCH_S = 0.5
#: Time after which an unacknowledged batch is delivered again.
ACK_WAIT_S = 60.0
#: Time that a plug-in has for a batch: then what it has decoded is published, and the rest has more time. After a kill
#: the rest is delivered again when its time is over.
DECODE_S, PLUGIN_ACK_WAIT_S = 3.0, 15.0
#: Between attempts to import a plug-in.
PLUGIN_RETRY_S = 10.0
METRICS_INTERVAL_S = 1.0
#: The most frequent problems of rejected messages are logged this often.
LOG_INTERVAL_S = 60.0
_CONSUMER = {
    "deliver_policy": "all",
    "ack_policy": "explicit",
    "ack_wait": int(ACK_WAIT_S * NS),
    "max_ack_pending": 4 * BATCH_SIZE,
}


def topic_of(subject: str) -> str:
    """The MQTT topic of a subject.

    Source: nats-server `mqtt.go`: `/` becomes `.`, `.` becomes `//`, and an empty level becomes `/`.
    """
    levels = ["" if level == "/" else level.replace("//", ".") for level in subject.split(".")]
    return "/".join(levels)


def decode_shipped(payload: bytes, message: Message, names: AliasResolver) -> FormatResults:
    """The results of a message of a shipped format. Never raises."""
    format_ = _SHIPPED_ON[message.topic.partition("/")[0]]
    try:
        payload = names.decrypted(format_.name, payload, message)
    except DecodeError as error:
        return format_.name, [error]
    return format_.name, decode_message(format_, payload, message)


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
    plugins, problems = installed()
    for problem in problems:
        log.error("%s", problem)
    async with (
        opened_log(core, f"headcount adapters {worker}", stop) as connection,
        _consumer(connection, DURABLE, FOREIGN_SUBJECTS) as consumer,
    ):
        registry = RegistryCache()
        stats = TranslationStats(
            [*(format_.name for format_ in SHIPPED), *(plugin.name for plugin in plugins)]
        )
        work = _Work(connection, AliasResolver(secret, registry, site_id), stats)
        async with asyncio.TaskGroup() as loops:
            caching = loops.create_task(registry.run(connection), name="registry")
            loops.create_task(_report(connection, stats, worker, stop), name="metrics")
            # before the registry is read, a registered device would get a derived handle
            await wait_any(registry.ready, stop)
            others = [
                loops.create_task(work.run_plugin(plugin, stop), name=f"decoder {plugin.name}")
                for plugin in plugins
            ]
            purging = loops.create_task(purge_translated(connection, work.acknowledged), name="purge")
            await work.translate_all(consumer, work.decode_shipped, stop)
            await cancel_all({caching, purging, *others})


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
class _Work:
    connection: Connection
    names: AliasResolver
    stats: TranslationStats
    acknowledged: Acknowledged = field(default_factory=Acknowledged)

    async def decode_shipped(self, items: Sequence[Item]) -> list[FormatResults]:
        """The results of messages of the shipped formats."""
        return [decode_shipped(payload, message, self.names) for payload, message in items]

    async def run_plugin(self, plugin: Plugin, stop: asyncio.Event) -> None:
        """Translate the messages of a plug-in, which wait while it cannot be started."""
        work = partial(self._run_plugin, plugin, stop)
        await retry(work, (LogError,), f"decoder {plugin.name}", level=logging.WARNING)

    async def _run_plugin(self, plugin: Plugin, stop: asyncio.Event) -> None:
        name, subjects = PLUGIN_DURABLE.format(name=plugin.name), subjects_of(plugin.topics)
        async with PluginProcess(plugin) as process:
            # the first consumer, which may idle too long, keeps messages from being removed meanwhile
            async with _consumer(self.connection, name, subjects):
                await self._running(plugin, process.start)
            log.info("decoder %s of %s: %s", plugin.name, plugin.package, ", ".join(plugin.topics))

            async def decode(items: Sequence[Item]) -> list[FormatResults]:
                found = await self._running(plugin, partial(process.decode, items, DECODE_S))
                return [(plugin.name, results) for results in found]

            async with _consumer(self.connection, name, subjects) as consumer:
                await self.translate_all(consumer, decode, stop)

    async def _running(self, plugin: Plugin, work: Callable[[], Awaitable[T]]) -> T:
        """Call `work`, again and again while the plug-in cannot be imported."""

        async def attempt() -> T:
            try:
                found = await work()
            except (DecoderError, OSError):
                self.stats.running[plugin.name] = False
                raise
            self.stats.running[plugin.name] = True
            return found

        return await retry(
            attempt,
            (DecoderError, OSError),
            f"the messages of {', '.join(plugin.topics)} wait",
            pause_s=PLUGIN_RETRY_S,
            level=logging.ERROR,
        )

    async def translate_all(self, consumer: PullConsumer, decode: BatchDecode, stop: asyncio.Event) -> None:
        """Translate the messages of a consumer until `stop` is set."""
        while not stop.is_set():
            left = await _fetch(consumer)
            while left and not stop.is_set():
                done = await self._translate_first(left, decode, stop)
                left = left[done:]
                for message in left:
                    await self._answer(extend, message)

    async def _translate_first(
        self, messages: list[StoredMessage], decode: BatchDecode, stop: asyncio.Event
    ) -> int:
        """Translate and acknowledge the first messages; return their number."""
        # a message whose sender waits for its acknowledgement is delivered again after that
        counted = [number for number, message in enumerate(messages) if _counts(message)]
        results = await decode([_item(messages[number]) for number in counted]) if counted else []
        canonical: list[NewMessage] = []
        for format_, decoded in results:
            for each in decoded:
                outcome = self.names.outcome(format_, each)
                self.stats.add(format_, outcome)
                if isinstance(outcome, CanonicalMessage):
                    canonical.append(NewMessage(outcome.subject, outcome.payload))
        done = len(messages) if len(results) == len(counted) else counted[len(results)]
        if await append_in_order(self.connection, canonical, stop):
            for message in messages[:done]:
                await self._answer(acknowledge, message)
            self.acknowledged.add(message.sequence for message in messages[:done])
        return done

    async def _answer(
        self, answer: Callable[[Connection, StoredMessage], Awaitable[None]], message: StoredMessage
    ) -> None:
        try:
            await answer(self.connection, message)
        except LogError as error:
            log.debug("cannot acknowledge a message, it will be delivered again: %s", error)


def _consumer(
    connection: Connection, name: str, subjects: Sequence[str]
) -> AbstractAsyncContextManager[PullConsumer]:
    config = _CONSUMER | {"durable_name": name, "filter_subjects": with_stored(subjects)}
    if name != DURABLE:  # that of a plug-in that was removed goes with its last message
        config |= {"inactive_threshold": LOG_AGE_S * NS, "ack_wait": int(PLUGIN_ACK_WAIT_S * NS)}
    return pull_consumer(connection, FOREIGN_STREAM, config)


def _counts(message: StoredMessage) -> bool:
    return qos1.counts(message.subject.encode(), message.headers.get(QOS_HEADER, "").encode())


def _item(message: StoredMessage) -> Item:
    return message.data, Message(topic_of(message.subject.removeprefix(STORED)), message.stored_s)


async def _fetch(consumer: PullConsumer) -> list[StoredMessage]:
    try:
        return await consumer.fetch(BATCH_SIZE, FETCH_S)
    except LogError as error:
        log.warning("cannot fetch foreign messages, trying again: %s", error)
        await asyncio.sleep(RETRY_S)
        return []
