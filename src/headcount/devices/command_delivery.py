"""Delivery of commands: each is sent until its device answers or it expires.

A message from a NATS client reaches an MQTT subscriber with QoS 0 whatever it subscribed to, so commands are
published by our own MQTT client, with QoS 1. Any number of deliveries may run: devices then receive the same
command more than once, and recognise it by its id.
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

import aiomqtt
import msgspec

from headcount.decoding import DecodeError
from headcount.devices.commands import (
    OPEN_STATES,
    CommandStore,
    command_key,
    command_message,
    decode_ack,
    ends_s,
)
from headcount.devices.owntracks_commands import MQTT_MODE, RESEND_PAUSE_S, command_topic, is_answered
from headcount.devices.owntracks_phones import OwnTracksPhones
from headcount.errors import CertificateError, LogError
from headcount.messages.commands import CommandAck
from headcount.messages.records import Device, DeviceCommand, LastSeen, decode_or_none
from headcount.messages.topics import COMMAND_TOPIC, DELIVERY
from headcount.messaging.connection import Connection, Message
from headcount.messaging.kv import KvBucket
from headcount.messaging.mqtt_address import MqttAddress
from headcount.messaging.streams import COMMAND_BUCKET, DEVICE_BUCKET, SEEN_BUCKET
from headcount.runtime.retry import RETRY_S, repeat, retry
from headcount.runtime.tasks import cancel_all

_log = logging.getLogger(__name__)

#: Pauses between sending to a connected device, or to one of unknown state; the last one repeats.
RESEND_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
#: The pause for a disconnected device, which is also sent its commands when it connects.
ABSENT_PAUSE_S = 300.0
#: Pause between a device's connection and the sending: it must subscribe first.
SUBSCRIBE_DELAY_S = 0.3
RELOAD_INTERVAL_S = 30.0
POLL_INTERVAL_S = 0.5
STOP_TIMEOUT_S = 0.8
ACK_SUBJECT = "headcount.*.*.*.ack"
OWNTRACKS_SUBJECT = "owntracks.*.*"


@dataclass(slots=True)
class _OpenCommand:
    """An open command, and when it is sent next."""

    command: DeviceCommand
    due_s: float = -math.inf
    attempts: int = 0
    sent_s: float = -math.inf  # by this delivery


class CommandDelivery:
    """Sends commands and records the answers."""

    def __init__(
        self,
        connection: Connection,
        brokers: Sequence[MqttAddress],
        clock: Callable[[], float] = time.time,
        pauses_s: Sequence[float] = RESEND_PAUSES_S,
        *,
        secret: str,
        anonymous: bool = False,
    ) -> None:
        """Deliver for the deployment with this secret, over MQTT connections to `brokers`.

        With `anonymous`, a device of unknown presence may be connected, without its account.
        """
        self._anonymous = anonymous
        self._connection = connection
        self._brokers = brokers
        self._clock = clock
        self._pauses_s = pauses_s
        self._commands = CommandStore(KvBucket(connection, COMMAND_BUCKET))
        self._seen_bucket = KvBucket(connection, SEEN_BUCKET)
        self._phones = OwnTracksPhones(KvBucket(connection, DEVICE_BUCKET), secret)
        self._open: dict[str, _OpenCommand] = {}
        self._finished: dict[str, DeviceCommand] = {}
        self._updated: set[str] = set()  # keys that were written since the last load started
        self._connected: dict[str, bool] = {}
        self._wake = asyncio.Event()
        self._stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set."""
        subscriptions = [
            await self._connection.subscribe(f"$KV.{COMMAND_BUCKET}.>", self._on_command),
            await self._connection.subscribe(f"$KV.{SEEN_BUCKET}.>", self._on_seen),
            await self._connection.subscribe(ACK_SUBJECT, self._on_ack),
            await self._connection.subscribe(OWNTRACKS_SUBJECT, self._on_owntracks),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._send_loop(), name="commands: send")
                loops = [
                    sending,
                    group.create_task(self._load_loop(), name="commands: load"),
                    group.create_task(self._expire_loop(), name="commands: expire"),
                ]
                await stop.wait()
                self._stopping = True
                self._wake.set()
                # cancelling an MQTT client while it connects would leave its connection open
                await asyncio.wait({sending}, timeout=STOP_TIMEOUT_S)
                await cancel_all(loops)
        finally:
            for subscription in subscriptions:
                await subscription.unsubscribe()

    # --- the commands ------------------------------------------------------------------------------
    async def _load_loop(self) -> None:
        """Read all commands at the start, after a reconnect, and periodically: erasures are not notified."""
        while True:
            reconnects = self._connection.reconnects
            await retry(self._load, (LogError,), "cannot read the commands yet")
            until_s = time.monotonic() + RELOAD_INTERVAL_S
            while time.monotonic() < until_s and self._connection.reconnects == reconnects:  # noqa: ASYNC110  # nats-py counts only
                await asyncio.sleep(POLL_INTERVAL_S)

    async def _load(self) -> None:
        for id_, entry in (await self._seen_bucket.newest()).items():
            was_connected = self._connected.get(id_)
            if self._update_seen(id_, entry.value) and not was_connected:
                self._send_soon(id_)
        self._updated.clear()
        stored = {command_key(command): command for command in await self._commands.all()}
        # updates received during the read are newer
        for key in {*self._open, *self._finished} - stored.keys() - self._updated:
            self._open.pop(key, None)
            self._finished.pop(key, None)
        for key in stored.keys() - self._updated:
            self._update(stored[key])

    async def _on_command(self, msg: Message) -> None:
        if command := decode_or_none(msg.data, DeviceCommand):
            self._updated.add(command_key(command))
            self._update(command)

    def _update(self, command: DeviceCommand) -> None:
        key = command_key(command)
        if command.state not in OPEN_STATES:
            self._open.pop(key, None)
            self._finished[key] = command
        elif key in self._open:
            self._open[key].command = command
        else:
            self._open[key] = _OpenCommand(command)
            self._wake.set()

    # --- connected devices -------------------------------------------------------------------------
    async def _on_seen(self, msg: Message) -> None:
        id_ = msg.subject.rpartition(".")[2]
        if self._update_seen(id_, msg.data):
            self._send_soon(id_)

    def _send_soon(self, id_: str) -> None:
        """Send the open commands of a device that has just connected."""
        due_s = self._clock() + SUBSCRIBE_DELAY_S
        for each in self._open.values():
            if each.command.device == id_:
                each.due_s, each.attempts = due_s, 0
        self._wake.set()

    def _update_seen(self, id_: str, value: bytes) -> bool:
        """Record whether a device is connected, and return it."""
        self._connected.pop(id_, None)
        seen = decode_or_none(value, LastSeen)
        if seen is not None:
            self._connected[id_] = seen.connected
        return seen is not None and seen.connected

    # --- sending -----------------------------------------------------------------------------------
    async def _send_loop(self) -> None:
        for broker in cycle(self._brokers):
            try:
                async with broker.client("headcount-commands") as client:
                    while not self._stopping:
                        await self._send_due(client)
                    return
            except (aiomqtt.MqttError, CertificateError) as error:
                _log.info("commands: cannot connect to %s (%s); trying again", broker, error)
                await asyncio.sleep(RETRY_S)

    async def _send_due(self, client: aiomqtt.Client) -> None:
        """Send the commands that are due, and wait for the next one."""
        self._wake.clear()
        now_s = self._clock()
        for each in [each for each in self._open.values() if each.due_s <= now_s]:
            await self._send(client, each, now_s)
        next_s = min((each.due_s for each in self._open.values()), default=math.inf)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(
                self._wake.wait(), min(RELOAD_INTERVAL_S, max(0.0, next_s - self._clock()))
            )

    async def _send(self, client: aiomqtt.Client, due: _OpenCommand, now_s: float) -> None:
        command = due.command
        if command.expires <= now_s:
            due.due_s = math.inf  # `_expire_loop` ends it
            return
        absent = not self._connected.get(command.device, self._anonymous)
        pause_s = ABSENT_PAUSE_S if absent else self._pauses_s[min(due.attempts, len(self._pauses_s) - 1)]
        with contextlib.suppress(LogError, DecodeError):  # the next attempt sends or writes it again
            phone = await self._phones.get(command.device)
            if phone is not None:
                pause_s = max(pause_s, RESEND_PAUSE_S)
                if now_s < due.sent_s + RESEND_PAUSE_S:  # the app reconnects after some commands
                    due.due_s = due.sent_s + RESEND_PAUSE_S
                    return
            if not absent or due.attempts:
                due.sent_s = now_s  # before the device can answer
                for topic, payload in self._messages(command, phone):
                    await client.publish(topic, payload, *DELIVERY[COMMAND_TOPIC])
                if command.state == "queued" and not absent:
                    await self._commands.mark_sent(command, now_s)
        due.attempts += 1
        if due.due_s <= now_s:  # else the device connected meanwhile
            due.due_s = self._clock() + pause_s

    def _messages(self, command: DeviceCommand, phone: Device | None) -> list[tuple[str, bytes]]:
        """The topics and payloads that bring a command to a device, in its own format."""
        if phone is not None:
            topic = command_topic(phone.id)
            return [(topic, each) for each in self._phones.command_payloads(command, phone, MQTT_MODE)]
        topic = COMMAND_TOPIC.format(site=command.site, kind=command.kind, device=command.device)
        return [(topic, msgspec.json.encode(command_message(command)))]

    # --- answers and expiry ------------------------------------------------------------------------
    async def _on_ack(self, msg: Message) -> None:
        _, site, kind, device, _ = msg.subject.split(".")
        ack = decode_ack(msg.data)
        if ack is None or f"{device}.{ack.id}" not in self._open:
            return
        with contextlib.suppress(LogError):  # the command is sent and answered again
            await self._commands.record_answer(site, kind, device, ack, self._clock())

    async def _on_owntracks(self, msg: Message) -> None:
        """Record the answer in a location of a phone, if there is one."""
        id_ = msg.subject.split(".")[1]
        waiting = [each for each in self._open.values() if each.command.device == id_]
        if not waiting:
            return
        with contextlib.suppress(LogError):  # the command is sent and answered again
            phone = await self._phones.get(id_)
            answer_s = None if phone is None else self._phones.answered_s(msg.data, phone)
            for command, sent_s in [(each.command, each.sent_s) for each in waiting]:
                if answer_s is not None and is_answered(command.sent or sent_s, answer_s):
                    ack = CommandAck(command.id)
                    await self._commands.record_answer(command.site, command.kind, id_, ack, self._clock())

    async def _expire_loop(self) -> None:
        """Expire open commands, and erase finished ones when they have been stored long enough."""
        await repeat(self._expire, (LogError,), "cannot expire commands now", pause_s=POLL_INTERVAL_S)

    async def _expire(self) -> None:
        now_s = self._clock()
        for each in [each for each in self._open.values() if ends_s(each.command) <= now_s]:
            await self._commands.expire(each.command, now_s)
        for key, command in [(k, c) for k, c in self._finished.items() if ends_s(c) <= now_s]:
            await self._commands.erase(command.device, command.id)
            self._finished.pop(key, None)
