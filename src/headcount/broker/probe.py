"""Questions to a NATS server: is it up, can it still write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt
import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client

from headcount.broker.config import INTERNAL, SYSTEM, BrokerConfig

#: What an answer may be in place of one: nobody listens, nobody answers, a refusal.
NO_ANSWER = (OSError, TimeoutError, nats.errors.Error, aiomqtt.MqttError)
_ANSWER_S = 5.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


async def request(config: BrokerConfig, user: str, subject: str, payload: bytes = b"") -> bytes:
    """The answer to one request, over a connection of its own.

    nats-py isn't used: a task that is cancelled inside of it may go on, or leave tasks behind, and
    these questions are asked all the time.

    Raises:
        OSError, TimeoutError: no answer.
    """
    login = {"user": user, "pass": config.password, "verbose": False, "pedantic": False}
    question = b"PUB %b answer %d\r\n%b\r\n" % (subject.encode(), len(payload), payload)
    async with asyncio.timeout(_ANSWER_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", config.nats_port)
        try:
            writer.write(b"CONNECT %b\r\nSUB answer 1\r\n%b" % (msgspec.json.encode(login), question))
            while line := await reader.readline():
                if line.startswith(b"MSG "):
                    return await reader.readexactly(int(line.split()[-1]))
                if line.startswith(b"-ERR"):
                    raise ConnectionRefusedError(line.decode(errors="replace").strip())
            raise ConnectionResetError("the NATS server closed the connection")
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the NATS server closed the connection") from error
        finally:
            writer.close()


async def ask_ready(config: BrokerConfig, *, devices: bool = True) -> None:
    """Return when JetStream answers and, with `devices`, an MQTT client is let in.

    Raises:
        any of NO_ANSWER: not yet.
    """
    account = msgspec.json.decode(await request(config, INTERNAL, "$JS.API.INFO"))
    if "error" in account:
        raise ConnectionRefusedError(account["error"].get("description"))
    if not devices:
        return
    async with aiomqtt.Client(_EVERYWHERE.get(config.host, config.host), config.mqtt_port, timeout=_ANSWER_S):
        pass


async def ask_health(config: BrokerConfig) -> str | None:
    """What the server itself finds wrong with it: None, or its words.

    It answers so when a stream could not be written: it refuses that stream's messages from then on,
    until it is started again, and MQTT publishers learn nothing of it.

    Raises:
        any of NO_ANSWER.
    """
    answer = await request(config, SYSTEM, "$SYS.REQ.SERVER.PING.HEALTHZ", b'{"details":true}')
    health: dict[str, Any] = msgspec.json.decode(answer).get("data", {})
    if health.get("status") == "ok":
        return None
    errors = [str(error.get("error")) for error in health.get("errors") or []]
    return "; ".join(errors) or str(health.get("error") or health.get("status"))


@asynccontextmanager
async def connected(config: BrokerConfig) -> AsyncIterator[Client]:
    """A NATS client with all rights that doesn't reconnect.

    Raises:
        any of NO_ANSWER.
    """
    client = Client()
    try:
        await client.connect(
            f"nats://127.0.0.1:{config.nats_port}",
            user=INTERNAL,
            password=config.password,
            allow_reconnect=False,
            error_cb=_ignore,
        )
        yield client
    finally:
        await client.close()
        _raise_swallowed_cancellation()


def _raise_swallowed_cancellation() -> None:
    """nats-py catches CancelledError where it flushes (`Client._flush_pending`) and goes on."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _ignore(_error: Exception) -> None:
    """The caller gets the error as an exception."""
