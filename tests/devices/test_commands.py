"""Commands reach devices with QoS 1, are answered or expire: with a real broker and real MQTT clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import pytest
from nats.aio.client import Client

import waiting
from cluster_fixture import open_core, open_unit
from headcount.broker.core import Broker
from headcount.devices import command_delivery, commands
from headcount.devices.command_delivery import CommandDelivery
from headcount.devices.commands import CommandStore, decode_ack
from headcount.errors import DeviceError
from headcount.messages.commands import CommandAck, CommandMessage
from headcount.messages.records import DeviceCommand, LastSeen
from headcount.messages.topics import ACK_TOPIC, COMMAND_TOPIC, INTERNAL
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.mqtt_address import MqttAddress
from headcount.messaging.streams import COMMAND_BUCKET, SEEN_BUCKET
from nats_fixture import PASSWORD, internal_client, running_broker

SITE, KIND = "s", "person"
PAUSES_S = (0.2, 0.4, 0.8)
_names = (f"d{number}" for number in range(1000))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker for this file."""
    with running_broker(tmp_path_factory.mktemp("broker"), partitions=1) as running:
        yield running


@pytest.fixture
def name() -> str:
    """A device that no other test uses."""
    return next(_names)


@dataclass
class DeliveryRole:
    """The store of commands, and deliveries with a clock that can be set ahead."""

    nc: Client
    commands: CommandStore
    ahead_s: float = 0.0
    deliveries: list[CommandDelivery] = field(default_factory=list)

    def now_s(self) -> float:
        """The time of this role's clock."""
        return time.time() + self.ahead_s

    async def add(self, device: str, command: Any = "report", **fields: Any) -> DeviceCommand:
        """Queue a command."""
        return await self.commands.add(SITE, "person", device, command, now_s=self.now_s(), **fields)

    async def until(self, command: DeviceCommand, state: str) -> DeviceCommand:
        """Wait until a command is in a state."""

        async def reached() -> DeviceCommand | None:
            found = await self.commands.get(command.device, command.id)
            return found if found is not None and found.state == state else None

        found: DeviceCommand = await waiting.until(reached, f"the command is {state}")
        return found

    async def seen(self, device: str, *, connected: bool) -> None:
        """Publish whether a device is connected, as its broker unit does."""
        value = msgspec.json.encode(LastSeen(time.time(), connected, "unit"))
        await KvBucket(Connection(self.nc), SEEN_BUCKET).put(device, value)

    async def until_known(self, device: str) -> None:
        """Wait until all deliveries know whether a device is connected."""
        await waiting.until(
            lambda: all(device in delivery._connected for delivery in self.deliveries),
            f"the deliveries know {device}",
        )


@asynccontextmanager
async def role(broker: Broker, loops: int = 1, *, anonymous: bool = True) -> AsyncIterator[DeliveryRole]:
    """Run some deliveries at a broker."""
    client = await internal_client(broker)
    try:
        async with delivering(client, broker.config.mqtt_port, loops, anonymous=anonymous) as made:
            yield made
    finally:
        await client.close()


@asynccontextmanager
async def delivering(
    client: Client, mqtt_port: int, loops: int = 1, *, anonymous: bool = True
) -> AsyncIterator[DeliveryRole]:
    """Run some deliveries over a connection to the core, with MQTT on this port."""
    stop = asyncio.Event()
    made = DeliveryRole(client, CommandStore(KvBucket(Connection(client), COMMAND_BUCKET)))
    brokers = [MqttAddress("127.0.0.1", mqtt_port, INTERNAL, PASSWORD)]
    async with asyncio.TaskGroup() as group:
        for _ in range(loops):
            delivery = CommandDelivery(
                Connection(client), brokers, made.now_s, PAUSES_S, secret=PASSWORD, anonymous=anonymous
            )
            made.deliveries.append(delivery)
            group.create_task(delivery.run(stop))
        try:
            yield made
        finally:
            stop.set()


@asynccontextmanager
async def device(broker: Broker | int, name: str) -> AsyncIterator[aiomqtt.Client]:
    """A device that subscribes to its commands, at a broker or a port."""
    port = broker if isinstance(broker, int) else broker.config.mqtt_port
    async with aiomqtt.Client("127.0.0.1", port, timeout=60) as client:
        await client.subscribe(topic(name), qos=1)
        yield client


def topic(name: str, what: str = COMMAND_TOPIC) -> str:
    """The topic of a device's commands, or another one."""
    return what.format(site=SITE, kind=KIND, device=name)


async def received(client: aiomqtt.Client) -> tuple[CommandMessage, int]:
    """The next command, and its quality of service."""
    async with asyncio.timeout(120):
        message = await anext(client.messages)
    assert isinstance(message.payload, bytes)
    return msgspec.json.decode(message.payload, type=CommandMessage), message.qos


async def answer(client: aiomqtt.Client, name: str, **fields: Any) -> None:
    """Acknowledge, or refuse, as a device does."""
    await client.publish(topic(name, ACK_TOPIC), msgspec.json.encode(fields), qos=1)


async def test_a_connected_device_receives_a_command(
    broker: Broker, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command arrives without waiting for the next poll, with QoS 1, and its answer is stored."""
    monkeypatch.setattr(command_delivery, "RELOAD_INTERVAL_S", 3600.0)
    async with role(broker) as devices, device(broker, name) as phone:
        sent = await devices.add(name, "interval", interval_s=30.0)
        command, qos = await received(phone)
        assert qos == 1
        assert (command.id, command.command, command.interval_s) == (sent.id, "interval", 30.0)
        assert (await devices.until(sent, "sent")).sent is not None
        await answer(phone, name, id=command.id, text="every 30 s")
        done = await devices.until(sent, "acknowledged")
        assert done.answer == "every 30 s"
        assert done.answered is not None


@pytest.mark.parametrize("known", [True, False])
async def test_an_absent_device_receives_a_command_when_it_connects(
    broker: Broker, name: str, known: bool
) -> None:
    """A command to a device that is disconnected, or never was connected, is queued until it connects."""
    async with role(broker, anonymous=known) as devices:
        if known:
            await devices.seen(name, connected=False)
            await devices.until_known(name)
        sent = await devices.add(name, "message", text="battery low?")
        await asyncio.sleep(0.5)  # time in which it may not be sent
        found = await devices.commands.get(name, sent.id)
        assert found is not None
        assert found.state == "queued"
        async with device(broker, name) as phone:
            await devices.seen(name, connected=True)
            command, qos = await received(phone)
            assert (command.id, command.text, qos) == (sent.id, "battery low?", 1)
            await answer(phone, name, id=command.id, ok=False, text="no screen")
            assert (await devices.until(sent, "refused")).answer == "no screen"


async def test_it_is_repeated_until_it_is_answered(broker: Broker, name: str) -> None:
    """A command to a device of unknown state is repeated with growing pauses until it is answered."""
    async with role(broker) as devices:
        sent = await devices.add(name)
        await devices.until(sent, "sent")
        async with device(broker, name) as phone:
            first, second = await received(phone), await received(phone)
            assert first[0].id == second[0].id == sent.id
            await answer(phone, name, id=sent.id)
            await devices.until(sent, "acknowledged")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5):
                    await anext(phone.messages)


async def test_expired_and_erased(broker: Broker, name: str) -> None:
    """A command without an answer expires, is not sent any more, and is erased a day later."""
    async with role(broker) as devices:
        await devices.seen(name, connected=False)
        sent = await devices.add(name, expires_s=600.0)
        devices.ahead_s = 601.0
        await devices.until(sent, "expired")
        async with device(broker, name) as phone:
            await devices.seen(name, connected=True)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5):
                    await anext(phone.messages)
            await answer(phone, name, id=sent.id)
        devices.ahead_s += commands.RETENTION_S

        async def is_erased() -> bool:
            return not await devices.commands.of(name)

        await waiting.until(is_erased, "the command is erased")


async def test_only_its_device_answers(broker: Broker, name: str) -> None:
    """Answers of other devices or kinds, to other ids, or invalid ones change nothing."""
    async with role(broker) as devices, device(broker, name) as phone:
        sent = await devices.add(name)
        await received(phone)
        good = msgspec.json.encode({"id": sent.id})
        await phone.publish(f"headcount/{SITE}/vehicle/{name}/ack", good, qos=1)
        await phone.publish(f"headcount/other/{KIND}/{name}/ack", good, qos=1)
        await phone.publish(topic(f"{name}x", ACK_TOPIC), good, qos=1)
        for broken in (
            b"",
            b"{",
            b"[" * 5000,
            b'{"id": 1}',
            b'{"id": "*"}',
            b'{"id": "0123456789abcdef"}',
        ):
            await phone.publish(topic(name, ACK_TOPIC), broken, qos=1)
        await asyncio.sleep(0.3)  # time in which they could have an effect
        await devices.until(sent, "sent")
        await answer(phone, name, id=sent.id, text="a\x00b" + "x" * 1000)
        done = await devices.until(sent, "acknowledged")
        assert done.answer == "ab" + "x" * (commands.MAX_TEXT_CHARS - 2)


async def test_several_deliveries(broker: Broker, name: str) -> None:
    """With several deliveries each command has one id, is answered once, and none is lost."""
    async with role(broker, loops=3) as devices, device(broker, name) as phone:
        sent = [await devices.add(name) for _ in range(5)]
        missing = {each.id for each in sent}
        while missing:
            command, _ = await received(phone)
            missing.discard(command.id)
            await answer(phone, name, id=command.id)
        for each in sent:
            await devices.until(each, "acknowledged")


async def test_at_a_broker_unit(tmp_path: Path, name: str) -> None:
    """A device at a leaf receives a command from the core with QoS 1, and its answer comes back."""
    async with open_core(tmp_path) as core, open_unit(tmp_path, core, "b1") as unit:
        await unit.until_status(200)
        client = await core.client()
        async with delivering(client, core.configs[0].mqtt_port) as devices:
            sent = await devices.add(name)
            async with device(unit.port, name) as phone:
                command, qos = await received(phone)
                assert (command.id, qos) == (sent.id, 1)
                await answer(phone, name, id=command.id)
                await devices.until(sent, "acknowledged")
        await client.close()


async def test_withdrawn(broker: Broker, name: str) -> None:
    """A withdrawn command is erased and not sent any more; an unknown one cannot be withdrawn."""
    async with role(broker) as devices:
        sent = await devices.add(name, "message", text="never mind")
        await devices.until(sent, "sent")
        assert await devices.commands.withdraw(name, sent.id)
        assert not await devices.commands.withdraw(name, sent.id)
        assert not await devices.commands.withdraw(name, "*")
        assert await devices.commands.of(name) == []
        async with device(broker, name) as phone:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5):
                    await anext(phone.messages)


async def test_limits(broker: Broker, name: str) -> None:
    """The open commands of a device are limited; wildcards in ids match nothing."""
    client = await internal_client(broker)
    store = CommandStore(KvBucket(Connection(client), COMMAND_BUCKET))
    for _ in range(commands.MAX_OPEN):
        await store.add(SITE, "person", name, "report", now_s=time.time())
    with pytest.raises(DeviceError, match="open commands already"):
        await store.add(SITE, "person", name, "report", now_s=time.time())
    assert await store.of("*") == []
    assert await store.get(name, "*") is None
    assert await store.erase_all(name) == commands.MAX_OPEN
    assert await store.of(name) == []
    await client.close()


@pytest.mark.parametrize(
    ("command", "fields", "problem"),
    [
        ("interval", {}, "interval_s is required"),
        ("interval", {"interval_s": 0.5}, "must be within 1 and 86400"),
        ("interval", {"interval_s": float("nan")}, "must be within 1 and 86400"),
        ("report", {"text": "x"}, "text is not allowed"),
        ("pause", {"until": 999.0}, "next 7 days"),
        ("pause", {"until": 1000.0 + 8 * 86_400}, "next 7 days"),
        ("message", {"text": "x" * 257}, "1 to 256"),
        ("message", {"text": ""}, "1 to 256"),
        ("message", {"text": "\x1b[2J"}, "1 to 256"),
        ("report", {"expires": 1000.0 + 8 * 86_400}, "7 days"),
        ("report", {"expires": 1000.0}, "7 days"),
        ("report", {"device": "a.b"}, "is not a valid id"),
    ],
)
def test_invalid_commands(command: Any, fields: dict[str, Any], problem: str) -> None:
    """Each command requires exactly its own value, within its limits."""
    made: dict[str, Any] = {
        "device": "d",
        "kind": "person",
        "site": SITE,
        "created": 1000.0,
        "expires": 1060.0,
    }
    with pytest.raises(DeviceError, match=problem):
        commands.validate_command(DeviceCommand(id="0" * 16, command=command, **(made | fields)))


def test_answers_are_decoded() -> None:
    """An answer without `ok` is positive; an oversized one is ignored."""
    assert decode_ack(b'{"id": "0123456789abcdef"}') == CommandAck("0123456789abcdef", ok=True)
    assert decode_ack(b'\xef\xbb\xbf{"id": "0123456789abcdef"}\0') == CommandAck("0123456789abcdef", ok=True)
    assert decode_ack(b" " * 5000) is None
