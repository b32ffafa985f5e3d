"""MQTT clients that send the messages of the load and record the acknowledged ones."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiomqtt

from headcount.lab.chaos.traffic import ScheduledMessage
from headcount.messages.topics import FIX_TOPIC, STATUS_TOPIC

# the broker is killed on purpose: messages of the MQTT library about that are not shown
_silent = logging.getLogger(__name__)
_silent.setLevel(logging.CRITICAL)

ACK_S = 5.0
RETRY_S = 0.2


@dataclass(slots=True)
class SendCounters:
    """The counters of all senders."""

    messages: int = 0
    dropped: int = 0  # QoS 0 messages that could not be sent
    resent: int = 0  # QoS 1 messages that were not acknowledged
    disconnects: int = 0
    acknowledged: dict[int, float] = field(default_factory=dict)  # number of a fix → Unix seconds


async def send(
    messages: Sequence[ScheduledMessage],
    port: int,
    start_s: int,
    counters: SendCounters,
    connection: int = 0,
) -> None:
    """Send the messages of a connection in order, each at its time or as soon as possible.

    A QoS 1 message is sent until it is acknowledged; a QoS 0 message once.
    """
    waiting = list(reversed(messages))
    while waiting:
        try:
            async with aiomqtt.Client(
                "127.0.0.1",
                port,
                identifier=f"chaos-{connection}",
                timeout=ACK_S,
                logger=_silent,
                socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            ) as client:
                await _send_all(client, waiting, start_s, counters)
        except (aiomqtt.MqttError, OSError):
            counters.disconnects += 1
            if waiting and waiting[-1].qos:
                counters.resent += 1
            await asyncio.sleep(RETRY_S)


def ignore_disconnects(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception handler for the loop: aiomqtt abandons futures when a connection fails while it is opened."""
    if not isinstance(context.get("exception"), aiomqtt.MqttError):
        loop.default_exception_handler(context)


async def _send_all(
    client: aiomqtt.Client, waiting: list[ScheduledMessage], start_s: int, counters: SendCounters
) -> None:
    while waiting:
        message = waiting[-1]
        wait_s = start_s + message.at_s - time.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        topic = (FIX_TOPIC if message.status is None else STATUS_TOPIC).format(
            site=message.site, kind=message.kind, device=message.device
        )
        try:
            await client.publish(topic, message.payload(start_s), qos=message.qos)
        except (aiomqtt.MqttError, OSError):
            if not message.qos:
                counters.dropped += 1
                waiting.pop()
            raise
        waiting.pop()
        counters.messages += 1
        if message.qos and message.number:
            counters.acknowledged.setdefault(message.number, time.time())
