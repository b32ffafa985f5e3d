"""Delivering commands: each is sent until its device answers or its time is over.

A message that comes from NATS reaches an MQTT subscriber with QoS 0 whatever he asked for, so commands are
published by an MQTT client of our own, with QoS 1. Any number of these loops may run: the same command
comes more than once then, and devices know it by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol

import aiomqtt
import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from headcount.devices.commands import (
    OPEN_STATES,
    CommandStore,
    command_key,
    command_message,
    decode_ack,
    ends_s,
)
from headcount.errors import CertificateError, LogError
from headcount.messages.records import Command, Seen
from headcount.messages.topics import COMMAND_TOPIC
from headcount.messaging.kv import Bucket
from headcount.messaging.streams import COMMAND_BUCKET, SEEN_BUCKET

_log = logging.getLogger(__name__)

#: Between sendings to a device that is there or of which nothing is known; the last one goes on.
RESEND_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
#: To one that isn't there: it is sent when it comes, and now and then in case that we weren't told.
ABSENT_PAUSE_S = 300.0
#: From a device's coming to the sending: it must subscribe first.
SUBSCRIBE_DELAY_S = 0.3
RELOAD_INTERVAL_S = 30.0
POLL_INTERVAL_S = 0.5
RETRY_INTERVAL_S = 1.0
STOP_TIMEOUT_S = 0.8
ACK_SUBJECT = "headcount.*.*.*.ack"


class MqttBroker(Protocol):
    """An address where the core takes MQTT, and who we are there."""

    def client(self, name: str) -> aiomqtt.Client:
        """A client that isn't connected yet.

        Raises:
            CertificateError: the server's certificate can't be read.
        """


@dataclass(slots=True)
class _OpenCommand:
    """A command, and when it is sent next."""

    command: Command
    due_s: float = -math.inf
    sendings: int = 0


class CommandDelivery:
    """Sends commands and takes the answers."""

    def __init__(
        self,
        nc: Client,
        brokers: Sequence[MqttBroker],
        clock: Callable[[], float] = time.time,
        pauses_s: Sequence[float] = RESEND_PAUSES_S,
    ) -> None:
        """Work over a connection to the core that comes back by itself, and MQTT at any of some brokers."""
        js = nc.jetstream()
        self._nc = nc
        self._brokers = brokers
        self._clock = clock
        self._pauses_s = pauses_s
        self._commands = CommandStore(Bucket(nc, js, COMMAND_BUCKET))
        self._seen_bucket = Bucket(nc, js, SEEN_BUCKET)
        self._waiting: dict[str, _OpenCommand] = {}
        self._finished: dict[str, Command] = {}
        self._heard: set[str] = set()  # keys of which something was written since the last load began
        self._connected: dict[str, bool] = {}
        self._wake = asyncio.Event()
        self._stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until told to stop."""
        subscriptions = [
            await self._nc.subscribe(f"$KV.{COMMAND_BUCKET}.>", cb=self._on_command),
            await self._nc.subscribe(f"$KV.{SEEN_BUCKET}.>", cb=self._on_seen),
            await self._nc.subscribe(ACK_SUBJECT, cb=self._on_ack),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._keep_sending(), name="commands: send")
                loops = [
                    sending,
                    group.create_task(self._keep_loaded(), name="commands: load"),
                    group.create_task(self._keep_tidy(), name="commands: tidy"),
                ]
                await stop.wait()
                self._stopping = True
                self._wake.set()
                # an MQTT client that is cancelled while it connects leaves its connection open
                await asyncio.wait({sending}, timeout=STOP_TIMEOUT_S)
                for loop in loops:
                    loop.cancel()
        finally:
            if self._nc.is_connected:
                for subscription in subscriptions:
                    await subscription.unsubscribe()

    # --- what there is -----------------------------------------------------------------------------
    async def _keep_loaded(self) -> None:
        """Read all at the start, after a lost connection, and now and then: erasing tells nobody."""
        while True:
            reconnects = self._nc.stats["reconnects"]
            try:
                await self._load()
            except LogError as error:
                _log.debug("commands can't be read yet: %s", error)
                await asyncio.sleep(RETRY_INTERVAL_S)
                continue
            until_s = time.monotonic() + RELOAD_INTERVAL_S
            while time.monotonic() < until_s and self._nc.stats["reconnects"] == reconnects:  # noqa: ASYNC110  # nats-py counts only
                await asyncio.sleep(POLL_INTERVAL_S)

    async def _load(self) -> None:
        for id_, entry in (await self._seen_bucket.newest()).items():
            self._see(id_, entry.value)
        self._heard.clear()
        kept = {command_key(command): command for command in await self._commands.all()}
        # what is heard while all are read is newer
        for key in {*self._waiting, *self._finished} - kept.keys() - self._heard:
            self._waiting.pop(key, None)
            self._finished.pop(key, None)
        for key in kept.keys() - self._heard:
            self._take(kept[key])

    async def _on_command(self, msg: Msg) -> None:
        with contextlib.suppress(msgspec.MsgspecError):
            if msg.data:
                command = msgspec.json.decode(msg.data, type=Command)
                self._heard.add(command_key(command))
                self._take(command)

    def _take(self, command: Command) -> None:
        key = command_key(command)
        if command.state not in OPEN_STATES:
            self._waiting.pop(key, None)
            self._finished[key] = command
        elif key in self._waiting:
            self._waiting[key].command = command
        else:
            self._waiting[key] = _OpenCommand(command)
            self._wake.set()

    # --- who is there ------------------------------------------------------------------------------
    async def _on_seen(self, msg: Msg) -> None:
        id_ = msg.subject.rpartition(".")[2]
        came = self._see(id_, msg.data)
        if came:
            due_s = self._clock() + SUBSCRIBE_DELAY_S
            for waiting in self._waiting.values():
                if waiting.command.device == id_:
                    waiting.due_s, waiting.sendings = due_s, 0
            self._wake.set()

    def _see(self, id_: str, value: bytes) -> bool:
        """Remember whether a device is there; whether it is (again)."""
        try:
            seen = msgspec.json.decode(value, type=Seen)
        except msgspec.MsgspecError:
            self._connected.pop(id_, None)
            return False
        self._connected[id_] = seen.connected
        return seen.connected

    # --- sending -----------------------------------------------------------------------------------
    async def _keep_sending(self) -> None:
        for broker in cycle(self._brokers):
            try:
                async with broker.client("headcount-commands") as client:
                    while not self._stopping:
                        await self._send_due(client)
                    return
            except (aiomqtt.MqttError, CertificateError) as error:
                _log.info("commands: %s: no connection (%s), trying again", broker, error)
                await asyncio.sleep(RETRY_INTERVAL_S)

    async def _send_due(self, client: aiomqtt.Client) -> None:
        """Send what is due, and wait for what is next."""
        self._wake.clear()
        now_s = self._clock()
        for waiting in [w for w in self._waiting.values() if w.due_s <= now_s]:
            await self._send(client, waiting, now_s)
        next_s = min((w.due_s for w in self._waiting.values()), default=math.inf)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(
                self._wake.wait(), min(RELOAD_INTERVAL_S, max(0.0, next_s - self._clock()))
            )

    async def _send(self, client: aiomqtt.Client, waiting: _OpenCommand, now_s: float) -> None:
        command = waiting.command
        if command.expires <= now_s:
            waiting.due_s = math.inf  # `_keep_tidy` ends it
            return
        absent = self._connected.get(command.device) is False
        if not absent or waiting.sendings:
            topic = COMMAND_TOPIC.format(site=command.site, kind=command.kind, device=command.device)
            await client.publish(topic, msgspec.json.encode(command_message(command)), qos=1)
            if command.state == "queued" and not absent:
                with contextlib.suppress(LogError):  # the next sending says it again
                    await self._commands.sent(command, now_s)
        pause_s = ABSENT_PAUSE_S if absent else self._pauses_s[min(waiting.sendings, len(self._pauses_s) - 1)]
        waiting.sendings += 1
        if waiting.due_s <= now_s:  # else the device came meanwhile
            waiting.due_s = self._clock() + pause_s

    # --- answers and ends --------------------------------------------------------------------------
    async def _on_ack(self, msg: Msg) -> None:
        _, site, kind, device, _ = msg.subject.split(".")
        ack = decode_ack(msg.data)
        if ack is None or f"{device}.{ack.id}" not in self._waiting:
            return
        with contextlib.suppress(LogError):  # it is sent again, and answered again
            await self._commands.answered(site, kind, device, ack, self._clock())

    async def _keep_tidy(self) -> None:
        """End what is over, and erase what has been over for long."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            now_s = self._clock()
            try:
                for waiting in [w for w in self._waiting.values() if ends_s(w.command) <= now_s]:
                    await self._commands.expire(waiting.command, now_s)
                for key, command in [(k, c) for k, c in self._finished.items() if ends_s(c) <= now_s]:
                    await self._commands.erase(command.device, command.id)
                    self._finished.pop(key, None)
            except LogError as error:
                _log.debug("commands can't be tidied up now: %s", error)
                await asyncio.sleep(RETRY_INTERVAL_S)


async def run(nc: Client, brokers: Sequence[MqttBroker], stop: asyncio.Event) -> None:
    """The loop of the role `devices` that delivers commands."""
    await CommandDelivery(nc, brokers).run(stop)
