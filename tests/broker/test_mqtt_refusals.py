"""The broker's answers to clients of other MQTT versions, unusable client ids and unusable topics."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from attack.mqtt_packets import connect, packet, publish, subscribe, text
from headcount.broker.core import Broker
from nats_fixture import running_broker

LOOPBACK = "127.0.0.1"
CONNECT_3_1 = packet(0x10, text(b"MQIsdp") + b"\x03\x02\x00\x3c" + text(b"x"))
CONNECT_5 = packet(0x10, text(b"MQTT") + b"\x05\x02\x00\x3c\x00" + text(b"x"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The broker of this file; no client needs an account."""
    with running_broker(tmp_path_factory.mktemp("refusals")) as running:
        yield running


class Client:
    """A raw connection, after CONNECT was accepted unless there is none."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use `connected`."""
        self._reader, self._writer = reader, writer

    async def answers(self, data: bytes, expected: bytes) -> bool:
        """Whether the broker answers so, and keeps the connection open."""
        self._writer.write(data)
        found = await self._reader.readexactly(len(expected))
        self._writer.write(b"\xc0\x00")
        return found == expected and await self._reader.readexactly(2) == b"\xd0\x00"

    async def last(self, data: bytes) -> bytes:
        """The last bytes that the broker sends before it closes the connection."""
        self._writer.write(data)
        try:
            return await self._reader.read()
        except ConnectionError:
            return b""


@contextlib.asynccontextmanager
async def client(broker: Broker, *, connected: bool = True) -> AsyncIterator[Client]:
    """A client with an id of its own."""
    reader, writer = await asyncio.open_connection(LOOPBACK, broker.config.mqtt_port)
    try:
        if connected:
            writer.write(connect(secrets.token_hex(8).encode()))
            assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
        yield Client(reader, writer)
    finally:
        writer.close()


async def test_versions(broker: Broker) -> None:
    """MQTT 5 is refused with return code 1; a client of MQTT 3.1 is disconnected."""
    async with client(broker, connected=False) as new:
        assert await new.last(CONNECT_5) == b"\x20\x02\x00\x01"
    async with client(broker, connected=False) as old:
        assert await old.last(CONNECT_3_1) == b""


@pytest.mark.parametrize("client_id", [b"a b", b"a.b", b"a>b", b"a*b"])
async def test_client_ids(broker: Broker, client_id: bytes) -> None:
    """Client ids with a space, `.`, `>` or `*` are refused with return code 2."""
    async with client(broker, connected=False) as device:
        assert await device.last(connect(client_id)) == b"\x20\x02\x00\x02"


@pytest.mark.parametrize("name", [b"headcount/ul/person/a b/fix", b"headcount/ul/person/+/fix", b"a\tb"])
async def test_topics_to_publish(broker: Broker, name: bytes) -> None:
    """A publisher with white space or a wildcard in the topic is disconnected."""
    async with client(broker) as device:
        assert await device.last(publish(name, b"{}", 1)) == b""


async def test_topics_to_subscribe(broker: Broker) -> None:
    """A subscription that is forbidden, or has white space in the topic, is refused with 0x80."""
    async with client(broker) as device:
        for name in (b"headcount/ul/counts/a b", b"headcount/ul/person/x", b"headcount//ul/counts/a"):
            assert await device.answers(subscribe(name), b"\x90\x03\x00\x07\x80"), name


@pytest.mark.parametrize(
    "name",
    [b"headcount/ul/person/x", b"headcount/ul/person/x/fix/", b"/headcount/ul/person/x/fix", b"headcount"],
)
async def test_forbidden_topics(broker: Broker, name: bytes) -> None:
    """A publish to a topic that is not allowed is acknowledged and dropped; the connection stays open."""
    async with client(broker) as device:
        assert await device.answers(publish(name, b"{}", 1), b"\x40\x02\x00\x01")
