"""Questions to a NATS server: is it up, can it still write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt
import msgspec
import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client

from headcount.broker.config import INTERNAL, SYSTEM, BrokerConfig

#: What an answer may be in place of one: nobody listens, nobody answers, a refusal.
NO_ANSWER = (OSError, TimeoutError, nats.errors.Error, aiomqtt.MqttError)
_ANSWER_S = 5.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@asynccontextmanager
async def connected(config: BrokerConfig, user: str = INTERNAL) -> AsyncIterator[Client]:
    """A NATS client that doesn't reconnect.

    Raises:
        any of NO_ANSWER.
    """
    _raise_swallowed_cancellation()
    # A bare connection first: nats-py logs every refusal with a trace.
    _, writer = await asyncio.open_connection("127.0.0.1", config.nats_port)
    writer.close()
    client = await nats.connect(
        f"nats://127.0.0.1:{config.nats_port}",
        user=user,
        password=config.password,
        allow_reconnect=False,
        connect_timeout=5,
        error_cb=_ignore,
    )
    try:
        yield client
    finally:
        await client.close()
        _raise_swallowed_cancellation()


async def ask_ready(config: BrokerConfig) -> None:
    """Return when JetStream answers and an MQTT client is let in.

    Raises:
        any of NO_ANSWER: not yet.
    """
    async with connected(config) as client:
        await client.jetstream(timeout=_ANSWER_S).account_info()
    async with aiomqtt.Client(_EVERYWHERE.get(config.host, config.host), config.mqtt_port, timeout=_ANSWER_S):
        pass


async def ask_health(config: BrokerConfig) -> str | None:
    """What the server itself finds wrong with it: None, or its words.

    It answers so when a stream could not be written: it refuses that stream's messages from then on,
    until it is started again, and MQTT publishers learn nothing of it.

    Raises:
        any of NO_ANSWER.
    """
    async with connected(config, SYSTEM) as client:
        answer = await client.request("$SYS.REQ.SERVER.PING.HEALTHZ", b'{"details":true}', timeout=_ANSWER_S)
    health: dict[str, Any] = msgspec.json.decode(answer.data).get("data", {})
    if health.get("status") == "ok":
        return None
    errors = [str(error.get("error")) for error in health.get("errors") or []]
    return "; ".join(errors) or str(health.get("error") or health.get("status"))


def _raise_swallowed_cancellation() -> None:
    """nats-py catches CancelledError where it flushes (`Client._flush_pending`) and goes on."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _ignore(_error: Exception) -> None:
    """The caller gets the error as an exception."""
