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
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext

from headcount.adapters import iotp, owntracks
from headcount.adapters.decoding import Canonical, Ignored, Outcome
from headcount.adapters.device_aliases import Names
from headcount.devices.registry_cache import RegistryCache
from headcount.errors import LogError
from headcount.messages.topics import FOREIGN_STREAM
from headcount.messaging import qos1
from headcount.messaging.qos1 import QOS_HEADER
from headcount.messaging.secure_delete import purge
from headcount.runtime.tasks import unless_stopped

log = logging.getLogger(__name__)

DURABLE = "adapters"
METRICS_SUBJECT = "metrics.adapters.{worker}"
#: Messages of one batch, and of the answers to it that may be under way at once.
BATCH = 1000
#: Seconds that a fetch waits for a first message: the longest time until a stop is noticed.
FETCH_S = 0.5
#: Seconds until an unacknowledged batch comes again, and until an unanswered publish is sent again.
ACK_WAIT_S, ANSWER_S = 60.0, 5.0
RETRY_S = 1.0
METRICS_EVERY_S = 1.0
#: How often what is translated is removed from the disk.
PURGE_EVERY_S = 0.2


@dataclass(slots=True)
class Tally:
    """How many messages were translated (by format), ignored and rejected (by reason) since the start."""

    translated: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)

    def add(self, format_: str, outcome: Outcome) -> None:
        """Count one outcome."""
        if isinstance(outcome, Canonical):
            self.translated[format_] += 1
        elif isinstance(outcome, Ignored):
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
    subject: str, payload: bytes, received_s: float, names: Names, vehicles: frozenset[str] = frozenset()
) -> tuple[str, list[Outcome]]:
    """The name of a foreign message's format, and what comes of it. Never raises."""
    topic = topic_of(subject)
    if topic in iotp.KIND_OF_TOPIC:
        return "iotp", iotp.decode(topic, payload, received_s, names)
    return "owntracks", owntracks.decode(topic, payload, names, vehicles)


async def run(
    options: Mapping[str, Any],
    site_id: str,
    stop: asyncio.Event,
    *,
    secret: str,
    worker: str = "0",
    vehicles: frozenset[str] = frozenset(),
) -> None:
    """Translate until `stop` is set; at most `FETCH_S` and a batch later this returns.

    Args:
        options: for `nats.connect`; reconnecting for ever is the default.
        site_id: whose canonical topics the translations go to.
        stop: set to end.
        secret: the deployment's, from which handles of unregistered names are derived.
        worker: names this process in its metrics.
        vehicles: OwnTracks devices that drive, see `owntracks.decode`.

    Raises:
        LogError: the stream FOREIGN isn't there.
        StopRequestedError: `stop` was set while it waited for the core.
    """
    defaults = {
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.5,
        "name": f"adapters-{worker}",
        "error_cb": _note,
    }
    connect_options: dict[str, Any] = {**defaults, **options}
    client = await unless_stopped(nats.connect(**connect_options), stop)
    try:
        subscription = await _subscribe(client)
        tally, directory = Tally(), RegistryCache()
        adapter = _Adapter(client, site_id, Names(secret, directory), vehicles, tally)
        async with asyncio.TaskGroup() as loops:
            keeping = loops.create_task(directory.run(lambda: client), name="registry")
            loops.create_task(_report(client, tally, worker, stop), name="metrics")
            # before the registry is known, a registered device would get another name
            ready = loops.create_task(_either(directory.ready, stop))
            await ready
            purging = loops.create_task(_purge(client), name="purge")
            await adapter.work(subscription, stop)
            keeping.cancel()
            purging.cancel()
    finally:
        # nats-py raises what the lost connection did, when the broker is away just now
        with suppress(nats.errors.Error, OSError, TimeoutError):
            await client.close()


async def _note(error: Exception) -> None:
    log.warning("connection to the broker: %s", error)


async def _subscribe(client: Client) -> JetStreamContext.PullSubscription:
    jetstream = client.jetstream()
    config = ConsumerConfig(
        durable_name=DURABLE,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=4 * BATCH,
    )
    try:
        with suppress(nats.js.errors.NotFoundError):
            present = await jetstream.consumer_info(FOREIGN_STREAM, DURABLE)
            if present.config.ack_policy != config.ack_policy:  # of an earlier release
                await jetstream.delete_consumer(FOREIGN_STREAM, DURABLE)
        await jetstream.add_consumer(FOREIGN_STREAM, config)
        return await jetstream.pull_subscribe_bind(DURABLE, FOREIGN_STREAM)
    except nats.js.errors.NotFoundError as error:
        raise LogError(f"there is no stream {FOREIGN_STREAM}: start headcount's broker first") from error


async def _report(client: Client, tally: Tally, worker: str, stop: asyncio.Event) -> None:
    while True:
        if client.is_connected:
            await client.publish(METRICS_SUBJECT.format(worker=worker), tally.message(worker))
        if stop.is_set():
            return
        try:
            await asyncio.wait_for(stop.wait(), METRICS_EVERY_S)
        except TimeoutError:
            continue


@dataclass(frozen=True, slots=True)
class _Adapter:
    client: Client
    site_id: str
    names: Names
    vehicles: frozenset[str]
    tally: Tally

    async def work(self, subscription: JetStreamContext.PullSubscription, stop: asyncio.Event) -> None:
        while not stop.is_set():
            messages = await _fetch(subscription)
            if not messages:
                continue
            canonical = [found for message in messages for found in self._translated(message)]
            if await _publish_all(self.client, self.site_id, canonical, stop):
                for message in messages:
                    await _ack(message)

    def _translated(self, message: Msg) -> list[Canonical]:
        subject, qos = message.subject.encode(), (message.headers or {}).get(QOS_HEADER, "")
        if not qos1.counts(subject, qos.encode()):
            return []  # it comes again when it has been acknowledged
        received_s = message.metadata.timestamp.timestamp()
        plain = qos1.plain(subject).decode()
        format_, outcomes = translate(plain, message.data, received_s, self.names, self.vehicles)
        for outcome in outcomes:
            self.tally.add(format_, outcome)
        return [outcome for outcome in outcomes if isinstance(outcome, Canonical)]


async def _ack(message: Msg) -> None:
    try:
        await message.ack()
    except nats.errors.Error as error:
        log.debug("not acknowledged, it comes again: %s", error)


async def _purge(client: Client) -> None:
    """Remove from the disk what is acknowledged without a gap, as soon as it is."""
    jetstream = client.jetstream(timeout=ANSWER_S)
    done = 0
    while True:
        await asyncio.sleep(PURGE_EVERY_S)
        try:
            info = await jetstream.consumer_info(FOREIGN_STREAM, DURABLE)
            floor = info.ack_floor.stream_seq if info.ack_floor else 0
            if floor != done:
                await purge(client, FOREIGN_STREAM, floor)
                # while more comes, some of what is dead stays in the newest file
                done = floor if not info.num_ack_pending and not info.num_pending else 0
        except (LogError, nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
            log.debug("what is translated can't be removed now, trying again: %r", error)


async def _either(first: asyncio.Event, second: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in (first, second)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _fetch(subscription: JetStreamContext.PullSubscription) -> list[Msg]:
    try:
        return await subscription.fetch(BATCH, timeout=FETCH_S)
    except TimeoutError:
        return []
    except (nats.errors.Error, nats.js.errors.APIError) as error:
        log.warning("the broker gives no foreign messages, trying again: %r", error)
        await asyncio.sleep(RETRY_S)
        return []


async def _publish_all(client: Client, site_id: str, canonical: list[Canonical], stop: asyncio.Event) -> bool:
    """Publish until the log has acknowledged all; False when stopped before."""
    left = canonical
    while left:
        left = await _publish(client, site_id, left)
        if left:
            log.warning("the log did not take %d translated messages, trying again", len(left))
            if stop.is_set():
                return False
            await asyncio.sleep(RETRY_S)
    return True


async def _publish(client: Client, site_id: str, canonical: list[Canonical]) -> list[Canonical]:
    """Send all, then wait for the answers; returns those that the log hasn't acknowledged."""
    jetstream = client.jetstream()

    async def one(message: Canonical) -> None:
        subject = f"headcount.{site_id}.{message.kind}.{message.device}.{message.what}"
        await jetstream.publish(subject, message.payload, timeout=ANSWER_S)

    answers = await asyncio.gather(*(one(message) for message in canonical), return_exceptions=True)
    failed = []
    for message, answer in zip(canonical, answers, strict=True):
        if isinstance(answer, nats.errors.Error | nats.js.errors.Error | TimeoutError):
            failed.append(message)
        elif isinstance(answer, BaseException):
            raise answer
    return failed
