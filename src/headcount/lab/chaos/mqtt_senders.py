"""Devices as MQTT clients: they send what the load says, and remember what was acknowledged."""

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

# the broker is killed on purpose: what the MQTT library says about that is of no interest
_unheard = logging.getLogger(__name__)
_unheard.setLevel(logging.CRITICAL)

ACK_S = 5.0
RETRY_S = 0.2


@dataclass(slots=True)
class SendCounters:
    """What all senders have done so far."""

    messages: int = 0
    dropped: int = 0  # QoS 0 that couldn't be sent: the broker was away
    again: int = 0  # QoS 1 sent once more, since no acknowledgement came
    broken: int = 0  # connections
    acknowledged: dict[int, float] = field(default_factory=dict)  # number of a fix → when, Unix seconds


async def send(
    says: Sequence[ScheduledMessage],
    site: str,
    port: int,
    start_s: int,
    sent: SendCounters,
    connection: int = 0,
) -> None:
    """Send one connection's messages in order, each at its time or as soon after it as possible.

    A QoS 1 message is sent until it is acknowledged; a QoS 0 one once.
    """
    waiting = list(reversed(says))
    while waiting:
        try:
            async with aiomqtt.Client(
                "127.0.0.1",
                port,
                identifier=f"prove-{connection}",
                timeout=ACK_S,
                logger=_unheard,
                socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            ) as client:
                await _send_all(client, waiting, site, start_s, sent)
        except (aiomqtt.MqttError, OSError):
            sent.broken += 1
            if waiting and waiting[-1].qos:
                sent.again += 1
            await asyncio.sleep(RETRY_S)


def overlook_breaks(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """For the event loop: aiomqtt leaves futures behind when a connection breaks while it is made."""
    if not isinstance(context.get("exception"), aiomqtt.MqttError):
        loop.default_exception_handler(context)


async def _send_all(
    client: aiomqtt.Client, waiting: list[ScheduledMessage], site: str, start_s: int, sent: SendCounters
) -> None:
    while waiting:
        say = waiting[-1]
        wait_s = start_s + say.at_s - time.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        topic = (FIX_TOPIC if say.status is None else STATUS_TOPIC).format(
            site=site, kind=say.kind, device=say.device
        )
        try:
            await client.publish(topic, say.payload(start_s), qos=say.qos)
        except (aiomqtt.MqttError, OSError):
            if not say.qos:
                sent.dropped += 1
                waiting.pop()
            raise
        waiting.pop()
        sent.messages += 1
        if say.qos and say.number:
            sent.acknowledged.setdefault(say.number, time.time())
