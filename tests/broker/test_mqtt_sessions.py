"""MQTT sessions with a real broker: thousands of devices with one, and a device with too many."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import aiomqtt
import pytest

from attack.mqtt_packets import connect, packet, publish, subscribe, text
from broker.test_auth_service import LOOPBACK, Yard, enters, topic, yard
from cluster_fixture import open_core, open_unit
from headcount.broker.core import Broker
from headcount.broker.device_rate_limiter import MqttRateLimits
from headcount.devices import mqtt_sessions
from headcount.devices.mqtt_sessions import MAX_QOS2_WAITING, MAX_SESSIONS, MqttSessions
from headcount.devices.permissions import MAX_SUBSCRIPTIONS
from headcount.devices.registry import Registry
from headcount.errors import LogError
from headcount.messages.topics import INTERNAL
from headcount.messaging import jetstream
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.mqtt_address import MqttAddress
from headcount.messaging.streams import DEVICE_BUCKET, MAX_QOS2_BYTES, MQTT_QOS2, MQTT_SESSIONS
from headcount.runtime.retry import retry
from nats_fixture import PASSWORD, open_broker, running_broker
from waiting import BUSY_S, until

MANY = 5_000
#: Clients that connect at the same time.
AT_ONCE = 40
CLEAN, PERSISTENT = 0xC2, 0xC0
UNLIMITED = MqttRateLimits(connects_per_minute=100_000)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The broker of this file."""
    with running_broker(tmp_path_factory.mktemp("sessions"), anonymous=False) as running:
        yield running


class Session:
    """An MQTT connection with a session of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use `connected`."""
        self._reader, self._writer = reader, writer

    @classmethod
    async def connected(
        cls, port: int, user: str, password: str, client_id: str, flags: int = PERSISTENT
    ) -> Session:
        """A session of a client that was accepted."""
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        rest = text(user.encode()) + text(password.encode())
        writer.write(connect(client_id.encode(), flags=flags, rest=rest))
        assert (await reader.readexactly(4))[::3] == b"\x20\x00"
        return cls(reader, writer)

    async def subscribe(self, name: str) -> bool:
        """Whether a subscription with QoS 1 is granted."""
        self._writer.write(subscribe(name.encode()))
        return (await self._reader.readexactly(5)) == b"\x90\x03\x00\x07\x01"

    async def receive(self) -> bytes:
        """The next packet's first byte; acknowledge nothing."""
        head, size = await self._reader.readexactly(2)
        if size > 127:
            size = size % 128 + 128 * (await self._reader.readexactly(1))[0]
        await self._reader.readexactly(size)
        return bytes([head])

    async def hold(self, topic_name: str, payload: bytes, number: int) -> bool:
        """Publish with QoS 2 and no PUBREL; whether the broker holds it (PUBREC)."""
        self._writer.write(publish(topic_name.encode(), payload, 2, number))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            return (await self._reader.readexactly(4)) == b"\x50\x02" + struct.pack(">H", number)
        return False

    async def until_closed(self) -> None:
        """Wait until the broker closes the connection."""
        with contextlib.suppress(ConnectionError):
            assert await self._reader.read() == b""
        self._writer.close()

    def close(self) -> None:
        """End the connection; a persistent session stays."""
        if not self._writer.is_closing():
            self._writer.write(packet(0xE0, b""))
        self._writer.close()


@contextlib.asynccontextmanager
async def limited(here: Yard) -> AsyncIterator[MqttSessions]:
    """The limits on sessions are applied."""
    address = MqttAddress(LOOPBACK, here.port, INTERNAL, PASSWORD)
    async with applied(MqttSessions(Connection(here.core), [address])) as sessions:
        yield sessions


@contextlib.asynccontextmanager
async def applied(sessions: MqttSessions) -> AsyncIterator[MqttSessions]:
    """These limits are applied."""
    stop = asyncio.Event()
    task = asyncio.create_task(sessions.run(stop))
    try:
        yield sessions
    finally:
        stop.set()
        await task


async def consumers(here: Yard) -> int:
    """The number of subscriptions with QoS 1 of all sessions."""
    connection = Connection(here.core)
    info = await jetstream.request(connection, "STREAM.INFO.$MQTT_msgs", timeout_s=BUSY_S)
    return int(info["state"]["consumer_count"])


async def stored(here: Yard, stream: str = MQTT_SESSIONS) -> int:
    """The number of messages of a stream."""
    return (await jetstream.stream_info(Connection(here.core), stream)).state.messages


@pytest.mark.timeout(600)
async def test_thousands_of_devices_receive_commands_with_qos_1(tmp_path: Path) -> None:
    """5,000 devices subscribe to their own commands with QoS 1; each gets what is sent."""
    async with open_broker(tmp_path, anonymous=False) as broker, yard(broker, UNLIMITED) as here:
        gate = asyncio.Semaphore(AT_ONCE)
        began_s = time.monotonic()

        async def device() -> tuple[Session, str]:
            async with gate:
                adding = partial(here.registry.add, "ul", "person")
                added, secret = await retry(adding, (LogError,), "registering a device")
                await until(lambda: added.id in here.gate.authenticator._accounts)
                session = await Session.connected(here.port, added.id, secret, added.id, CLEAN)
                command = topic(added, "cmd")
                assert await session.subscribe(command)
                return session, command

        devices = await asyncio.gather(*(device() for _ in range(MANY)))
        print(f"{MANY} devices subscribed within {time.monotonic() - began_s:.1f} s")
        assert await consumers(here) == MANY
        async with aiomqtt.Client(LOOPBACK, here.port, username=INTERNAL, password=PASSWORD) as ours:
            for session, command in devices[:: MANY // 20]:
                await ours.publish(command, b"{}", qos=1)
                assert (await session.receive())[0] >> 1 == 0x32 >> 1
        for session, _ in devices:
            session.close()


async def test_a_device_with_many_sessions(broker: Broker) -> None:
    """A device keeps its last 10 persistent sessions; a client that stays connected among them keeps its own."""
    async with yard(broker, UNLIMITED) as here, limited(here) as limits:
        (mine, secret), (other, others) = await here.person(), await here.person()
        stays = await Session.connected(here.port, other.id, others, other.id)
        assert await stays.subscribe(topic(other, "cmd"))
        for number in range(21):
            session = await Session.connected(here.port, mine.id, secret, f"{mine.id}-{number}")
            for each in range(49):
                assert await session.subscribe(f"headcount/ul/counts/{each}")
            session.close()
        await until(lambda: _are_stored(here, MAX_SESSIONS + 1))
        assert limits.discarded == 21 - MAX_SESSIONS
        assert await consumers(here) == MAX_SESSIONS * 49 + 1
        async with aiomqtt.Client(LOOPBACK, here.port, username=INTERNAL, password=PASSWORD) as ours:
            await ours.publish(topic(other, "cmd"), b"{}", qos=1)
        assert (await stays.receive())[0] & 0xF0 == 0x30
        await here.registry.remove(mine.id)
        await until(lambda: _are_stored(here, 1))
        assert await consumers(here) == 1
        await here.registry.remove(other.id)
        await until(lambda: _are_stored(here, 0))
        stays.close()


async def _are_stored(here: Yard, number: int) -> bool:
    return await stored(here) == number


async def test_a_session_with_many_subscriptions(broker: Broker) -> None:
    """A device's session with more than 50 subscriptions is discarded, and its connection closed."""
    async with yard(broker, UNLIMITED) as here, limited(here):
        mine, secret = await here.person()
        session = await Session.connected(here.port, mine.id, secret, mine.id)
        for each in range(MAX_SUBSCRIPTIONS):
            assert await session.subscribe(f"headcount/ul/counts/{each}")
        await until(lambda: _are_stored(here, 1))
        assert await session.subscribe("headcount/ul/counts/one-more")
        await session.until_closed()
        await until(lambda: _are_stored(here, 0))
        assert await consumers(here) == 0


async def test_sessions_that_end_do_not_count(broker: Broker) -> None:
    """A client with a new id and a clean session at each connection does not push out a persistent one."""
    async with yard(broker, UNLIMITED) as here, limited(here) as limits:
        mine, secret = await here.person()
        (await Session.connected(here.port, mine.id, secret, mine.id)).close()
        for number in range(3 * MAX_SESSIONS):
            (await Session.connected(here.port, mine.id, secret, f"{mine.id}-{number}", CLEAN)).close()
        await until(lambda: _are_stored(here, 1))
        await until(lambda: not limits._changed)
        assert limits.discarded == 0
        await here.registry.remove(mine.id)
        await until(lambda: _are_stored(here, 0))


async def test_qos_2_without_pubrel(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices that never send PUBREL do not use up the store of QoS 2 messages."""
    monkeypatch.setattr(mqtt_sessions, "POLL_INTERVAL_S", 0.1)
    async with yard(broker, UNLIMITED) as here, limited(here):
        for _ in range(5):
            mine, secret = await here.person()
            session = await Session.connected(here.port, mine.id, secret, mine.id, CLEAN)
            for number in range(1, 200):
                assert await session.hold(topic(mine), bytes(MAX_QOS2_BYTES - 500), number)
            assert not await session.hold(topic(mine), bytes(2 * MAX_QOS2_BYTES), 300)
            session.close()
        await until(lambda: _at_most(here, 5 * MAX_QOS2_WAITING))


async def test_retained_messages_of_devices_do_not_push_out_ours(broker: Broker) -> None:
    """A retained site stays whatever devices publish as retained, and can be changed after that."""
    site_topic = "headcount/ul/site"
    async with yard(broker, MqttRateLimits(burst_bytes=1 << 40)) as here:

        async def retained() -> bytes:
            async with aiomqtt.Client(LOOPBACK, here.port, username=INTERNAL, password=PASSWORD) as reader:
                await reader.subscribe(site_topic, qos=1)
                async with asyncio.timeout(BUSY_S):
                    return bytes((await anext(reader.messages)).payload)

        async with aiomqtt.Client(LOOPBACK, here.port, username=INTERNAL, password=PASSWORD) as ours:
            await ours.publish(site_topic, b"first", qos=1, retain=True)
            for _ in range(30):
                mine, secret = await here.person()
                async with here.client(mine.id, secret) as device:
                    for number in range(40):
                        name = f"owntracks/{mine.id}/{number}"
                        await device.publish(name, bytes(60 << 10), qos=0, retain=True)
                    await device.publish(topic(mine, "ack"), b"{}", qos=1)
            assert await retained() == b"first"

            async def changed() -> bool:
                await ours.publish(site_topic, b"second, and longer", qos=1, retain=True)
                return await retained() == b"second, and longer"

            await until(changed)


async def _at_most(here: Yard, number: int) -> bool:
    return await stored(here, MQTT_QOS2) <= number


async def test_at_a_broker_unit(tmp_path: Path) -> None:
    """The limits hold for devices of broker units: their sessions are in the core, too."""
    async with open_core(tmp_path) as core, open_unit(tmp_path, core, "b1") as unit:
        client = await core.client()
        await unit.until_status(200)
        registry = Registry(KvBucket(Connection(client), DEVICE_BUCKET), PASSWORD)
        mine, secret = await registry.add("s", "person")
        while not await enters(unit.port, mine.id, secret):  # noqa: ASYNC110 - replicated
            await asyncio.sleep(0.05)
        address = MqttAddress(LOOPBACK, core.configs[0].mqtt_port, INTERNAL, PASSWORD)
        first = await Session.connected(unit.port, mine.id, secret, f"{mine.id}-first")
        assert await first.subscribe(topic(mine, "cmd"))
        for number in range(MAX_SESSIONS):
            (await Session.connected(unit.port, mine.id, secret, f"{mine.id}-{number}")).close()
        async with applied(MqttSessions(Connection(client), [address])):
            await first.until_closed()
            stream = partial(jetstream.stream_info, Connection(client), MQTT_SESSIONS)

            async def are_within_limits() -> bool:
                return (await stream()).state.messages == MAX_SESSIONS

            await until(are_within_limits)
        await client.close()
