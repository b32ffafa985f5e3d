"""An auth service with a real NATS server, registry and MQTT clients: who is admitted, and who is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiomqtt
import msgspec
import pytest
from nats.aio.client import Client

from cluster_fixture import open_core, open_unit
from headcount.access.access_cache import AccessCache
from headcount.access.tokens import TokenStore
from headcount.broker import nats_config, presence
from headcount.broker.auth_service import AuthService, AuthServiceSettings
from headcount.broker.core import Broker
from headcount.broker.device_rate_limiter import MqttRateLimits
from headcount.broker.presence import GoneUnits
from headcount.devices.authentication import RefusalReason
from headcount.devices.bans import BanList
from headcount.devices.registry import Registry
from headcount.messages.fixes import encode_fix
from headcount.messages.records import Device, LastSeen
from headcount.messages.units import BrokerUnit
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.site_store import SiteStore, StoredSite
from headcount.messaging.streams import BAN_BUCKET, DEVICE_BUCKET, SEEN_BUCKET
from headcount.messaging.units import Units
from nats_fixture import PASSWORD, internal_client, open_broker, running_broker
from waiting import BUSY_S, until

LOOPBACK = "127.0.0.1"
#: It is meant to be 2 s; where much else runs it may be more.
MAX_CUT_S = 60.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The broker of this file; it admits no client without an auth service."""
    with running_broker(tmp_path_factory.mktemp("gate"), anonymous=False) as running:
        yield running


@dataclass
class Yard:
    """An auth service, its broker, its registry and its clients."""

    broker: Broker
    core: Client
    gate: AuthService
    registry: Registry
    bans: BanList

    @property
    def port(self) -> int:
        """Where devices knock."""
        return self.broker.config.mqtt_port

    async def person(self, site: str = "ul") -> tuple[Device, str]:
        """A new device, once the auth service knows it, and its secret."""
        device, secret = await self.registry.add(site, "person")
        await until(lambda: device.id in self.gate.authenticator._accounts)
        return device, secret

    def client(self, user: str, password: str, client_id: str | None = None) -> aiomqtt.Client:
        """A client with these credentials."""
        return aiomqtt.Client(
            LOOPBACK,
            self.port,
            username=user,
            password=password,
            identifier=client_id or user,
            timeout=BUSY_S,
        )

    def refused(self, reason: RefusalReason) -> int:
        """How many weren't let in for this."""
        return self.gate.figures.refused[reason]

    async def logged(self) -> dict[str, int]:
        """Subject → number of messages in the log of fixes."""
        found: dict[str, int] = {}
        for partition in range(self.broker.config.partitions):
            info = await self.core.jetstream().stream_info(f"FIX_{partition}", subjects_filter="fix.>")
            found |= info.state.subjects or {}
        return {subject.partition(".")[2].partition(".")[2]: n for subject, n in found.items()}


@contextlib.asynccontextmanager
async def yard(
    broker: Broker, limits: MqttRateLimits | None = None, *, open_gate: bool = True
) -> AsyncIterator[Yard]:
    """A running auth service, or (`open_gate`) one that isn't started."""
    core = await internal_client(broker)
    address = ((LOOPBACK, broker.config.nats_port),)
    gate = AuthService(
        AuthServiceSettings("test", address, PASSWORD, direct=True, limits=limits or MqttRateLimits())
    )
    found = Yard(
        broker,
        core,
        gate,
        Registry(KvBucket(Connection(core), DEVICE_BUCKET), PASSWORD),
        BanList(KvBucket(Connection(core), BAN_BUCKET)),
    )
    try:
        async with contextlib.AsyncExitStack() as going:
            if open_gate:
                await going.enter_async_context(gate.opened(Connection(core)))
                # the first look is what later ones are compared with
                await until(lambda: gate.problem is None and gate._sent_before is not None)
            yield found
    finally:
        await core.close()


class Phone:
    """A minimal MQTT client: many of them are cheap, and each notices when it is cut off."""

    def __init__(
        self,
        port: int,
        user: str = "",
        password: str = "",
        client_id: str | None = None,
        address: str = LOOPBACK,
    ) -> None:
        """Set the credentials (without `user`: none) and the local address that the client connects from."""
        self._port, self._address = port, address
        self._names = (user if client_id is None else client_id, *((user, password) if user else ()))
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def enter(self) -> bool:
        """Sign in; whether it was let in."""
        self._reader, self._writer = await asyncio.open_connection(
            LOOPBACK, self._port, local_addr=(self._address, 0)
        )
        fields = b"".join(struct.pack(">H", len(name)) + name.encode() for name in self._names)
        flags = 0xC2 if len(self._names) > 1 else 0x02  # user and password; a clean session
        body = b"\x00\x04MQTT\x04" + bytes([flags]) + b"\x00\x00" + fields
        assert len(body) < 128
        self._writer.write(bytes([0x10, len(body)]) + body)
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = await self._reader.read(4)
        if answer == b"\x20\x02\x00\x00":
            return True
        self._writer.close()
        return False

    async def send(self, topic: str, payload: bytes, times: int = 1) -> None:
        """Publish with QoS 0."""
        assert self._writer is not None
        content = struct.pack(">H", len(topic)) + topic.encode() + payload
        low, high = len(content) % 128 | 128, len(content) // 128
        self._writer.write((bytes([0x30, low, high]) + content) * times)
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def cut(self) -> None:
        """Return when it has been cut off."""
        assert self._reader is not None
        assert self._writer is not None
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(4096):
                pass
        self._writer.close()

    def leave(self) -> None:
        """Hang up."""
        assert self._writer is not None
        self._writer.close()


async def enters(
    port: int, user: str = "", password: str = "", client_id: str | None = None, address: str = LOOPBACK
) -> bool:
    """Whether a client is admitted; it disconnects immediately."""
    phone = Phone(port, user, password, client_id, address)
    admitted = await phone.enter()
    phone.leave()
    return admitted


def fix() -> bytes:
    """A fix of now."""
    return encode_fix(time.time(), 48.4225, 9.9575, acc=5.0)


def topic(device: Device, name: str = "fix") -> str:
    """One of a device's topics."""
    return f"headcount/{device.site}/{device.kind}/{device.id}/{name}"


async def arrives(here: Yard, phone: Phone, device: Device) -> None:
    """Send a fix of a device, and return when it is in the log."""
    subject = f"{device.site}.person.{device.id}"
    before = (await here.logged()).get(subject, 0)
    await phone.send(topic(device), fix())

    async def is_logged() -> bool:
        return (await here.logged()).get(subject, 0) > before

    await until(is_logged, f"a fix on {subject} is in the log")


# --- what each may ------------------------------------------------------------------------------------------
async def test_own_topics_only(broker: Broker) -> None:
    """A device's own fixes are logged; its messages on other topics are delivered to no subscriber."""
    async with yard(broker) as here:
        (mine, secret), (other, _) = await here.person(), await here.person()
        heard: list[str] = []

        async def on_message(message: object) -> None:
            heard.append(str(getattr(message, "subject", "")))

        await here.core.subscribe("headcount.>", cb=on_message)
        await here.core.flush()
        async with here.client(mine.id, secret, f"{mine.id}-1") as device:
            for name in (
                topic(other),
                topic(other, "status"),
                topic(other, "ack"),
                topic(mine, "cmd"),
                topic(mine).replace("person", "vehicle"),
                topic(mine).replace("/ul/", "/other/"),
                f"fix/0/ul/person/{other.id}",
                "headcount/ul/counts/forum",
                "car-iotp",
                "$SYS/REQ/USER/AUTH",
                "$MQTT/sess/x",
            ):
                await device.publish(name, fix(), qos=0)
            await device.publish(topic(mine, "ack"), b"{}", qos=0)
            await device.publish(topic(mine, "status"), b"online", qos=1)
            await device.publish(topic(mine), fix(), qos=1)
        logged = await here.logged()
        assert logged.pop(f"ul.person.{mine.id}") == 1
        assert logged.pop(f"ul.person.{mine.id}.status") == 1
        assert not [subject for subject in logged if mine.id in subject or other.id in subject]
        await here.core.flush()
        assert [subject for subject in heard if "counts" in subject or subject.endswith("cmd")] == []
        assert f"headcount.ul.person.{mine.id}.ack" in heard
        assert not [subject for subject in heard if other.id in subject]


async def test_commands_of_other_devices_are_not_received(broker: Broker) -> None:
    """A device receives its own commands and the counts, but no other device's commands, even by wildcard."""
    async with yard(broker) as here:
        (mine, secret), (other, _) = await here.person(), await here.person()
        async with here.client(mine.id, secret) as device:
            for name in (
                topic(other, "cmd"),
                topic(other),
                "headcount/+/+/+/cmd",
                f"headcount/+/+/{mine.id}/cmd",
                "headcount/ul/#",
                "headcount/ul/exact/#",
                "headcount/ul/events/#",
                "fix/#",
                "$SYS/#",
                "$MQTT/#",
                "#",
            ):
                with contextlib.suppress(aiomqtt.MqttError):
                    codes = await device.subscribe(name, qos=1)
                    assert [code for code in codes if getattr(code, "value", code) < 128] == [], name
            for name in (topic(mine, "cmd"), "headcount/ul/counts/#", "headcount/ul/site"):
                codes = await device.subscribe(name, qos=1)
                assert [code for code in codes if getattr(code, "value", code) < 128], name
            for subject in (
                f"headcount.ul.person.{other.id}.cmd",
                f"fix.0.ul.person.{other.id}",
                "headcount.ul.exact.forum",
                "headcount.ul.events.forum",
                "headcount.ul.counts.forum",
                f"headcount.ul.person.{mine.id}.cmd",
            ):
                await here.core.publish(subject, b"{}")
            await here.core.flush()
            found = []
            async with asyncio.timeout(120):
                async for message in device.messages:
                    found.append(str(message.topic))
                    if message.topic.matches(topic(mine, "cmd")):
                        break
            assert found == ["headcount/ul/counts/forum", topic(mine, "cmd")]


async def test_client_ids_and_names(broker: Broker) -> None:
    """A wrong client id or password, or none, is refused; no device signs in as a role."""
    async with yard(broker) as here:
        (mine, secret), (other, _) = await here.person(), await here.person()
        assert await enters(here.port, mine.id, secret)
        assert await enters(here.port, mine.id, secret, f"{mine.id}-watch")
        assert not await enters(here.port, mine.id, secret, other.id)
        assert not await enters(here.port, mine.id, secret, "free")
        assert here.refused("client-id") == 2
        assert not await enters(here.port, mine.id, secret[:-1])
        assert not await enters(here.port, other.id, secret)
        assert here.refused("password") == 2
        assert not await enters(here.port, "headcount", secret)
        assert not await enters(here.port, "system", secret)
        assert not await enters(here.port, "device", secret)
        assert not await enters(here.port)


async def test_programs(broker: Broker) -> None:
    """A program signs in by token, receives exact counts, cannot publish, and is cut off with its token."""
    async with yard(broker) as here:
        kept = AccessCache(Connection(here.core))
        tokens = TokenStore(kept)
        token, text = await tokens.add("a test", "viewer")
        mine, _ = await here.person()
        assert not await enters(here.port, "token", text, mine.id)
        assert not await enters(here.port, "token", text[:-1], token.id)
        phone = Phone(here.port, "token", text, token.id)
        assert await phone.enter()
        async with here.client("token", text, f"{token.id}-2") as program:
            await program.publish(topic(mine), fix(), qos=0)
            await program.subscribe("headcount/ul/exact/#", qos=1)
            await here.core.publish("headcount.ul.exact.forum", b"3")
            async with asyncio.timeout(120):
                assert (await anext(program.messages)).payload == b"3"
        assert f"ul.person.{mine.id}" not in await here.logged()
        began_s = time.monotonic()
        await tokens.revoke(token.id)
        await phone.cut()
        took_s = time.monotonic() - began_s
        print(f"a program whose token was revoked was cut off after {took_s:.3f} s")
        assert took_s < MAX_CUT_S
        assert not await enters(here.port, "token", text, token.id)


# --- what changes ---------------------------------------------------------------------------------------
async def disabled(registry: Registry, id_: str) -> None:
    """The device is lost."""
    await registry.change(id_, status="disabled")


async def rotated(registry: Registry, id_: str) -> None:
    """Its secret is known to others."""
    await registry.rotate(id_)


async def removed(registry: Registry, id_: str) -> None:
    """Remove the device."""
    await registry.remove(id_)


async def paused(registry: Registry, id_: str) -> None:
    """Pause the counting of the device."""
    await registry.pause(id_)


@pytest.mark.parametrize("change", [disabled, rotated, removed, paused])
async def test_who_is_changed_is_cut_off(
    broker: Broker, change: Callable[[Registry, str], Awaitable[None]]
) -> None:
    """Disabled, rotated or removed a device is cut off and refused; paused it may come back, and isn't counted."""
    async with yard(broker) as here:
        (mine, secret), (other, others) = await here.person(), await here.person()
        phone, bystander = Phone(here.port, mine.id, secret), Phone(here.port, other.id, others)
        assert await phone.enter()
        assert await bystander.enter()
        await arrives(here, phone, mine)
        began_s = time.monotonic()
        await change(here.registry, mine.id)
        await phone.cut()
        took_s = time.monotonic() - began_s
        print(f"a device that was {change.__name__} was cut off after {took_s:.3f} s")
        assert took_s < MAX_CUT_S
        await until(lambda: here.gate.figures.cut == 1)
        await arrives(here, bystander, other)
        counted = (await here.logged())[f"ul.person.{mine.id}"]
        if change is paused:
            async with here.client(mine.id, secret) as back:
                await back.publish(topic(mine), fix(), qos=0)
                await back.publish(topic(mine, "ack"), b"{}", qos=1)
            assert (await here.logged())[f"ul.person.{mine.id}"] == counted
            await here.registry.enable(mine.id)
            await until(lambda: here.gate.authenticator._accounts[mine.id].status == "active")
        else:
            assert not await enters(here.port, mine.id, secret)
        if change is disabled:
            await here.registry.enable(mine.id)
            await until(lambda: here.gate.authenticator._accounts[mine.id].status == "active")
            assert await enters(here.port, mine.id, secret)
        bystander.leave()


async def test_devices_of_a_removed_site(tmp_path: Path) -> None:
    """When a site is removed its devices are cut off and refused; those of other sites stay."""
    async with open_broker(tmp_path, anonymous=False) as broker, yard(broker) as here:
        store = SiteStore(Connection(here.core))
        for site, is_seed in (("ul", True), ("harbour", False)):
            assert await store.add(StoredSite("a test", "", {}, 1, is_seed=is_seed, site=site, number=1))
        (mine, secret), (other, others) = await here.person(), await here.person("harbour")
        phone, bystander = Phone(here.port, mine.id, secret), Phone(here.port, other.id, others)
        assert await phone.enter()
        assert await bystander.enter()
        assert await store.add(StoredSite("a test", "", None, 1, site="ul", number=2))
        await phone.cut()
        assert not await enters(here.port, mine.id, secret)
        assert here.gate.figures.refused["site"] == 1
        await arrives(here, bystander, other)
        assert here.gate.figures.cut == 1
        bystander.leave()


async def test_an_auth_service_that_restarts(tmp_path: Path) -> None:
    """Without an auth service all clients are refused; a started one cuts off unauthorised connections."""
    quick = nats_config.Limits(connect_timeout_s=2)
    async with open_broker(tmp_path, anonymous=False, limits=quick) as broker:
        async with yard(broker) as here:
            (mine, secret), (lost, others) = await here.person(), await here.person()
            phone, stays = Phone(here.port, lost.id, others), Phone(here.port, mine.id, secret)
            assert await phone.enter()
            assert await stays.enter()
        async with yard(broker, open_gate=False) as here:
            assert not await enters(here.port, mine.id, secret, f"{mine.id}-2")
            await here.registry.change(lost.id, status="disabled")
        async with yard(broker) as here:
            await phone.cut()
            assert await enters(here.port, mine.id, secret, f"{mine.id}-2")
            await arrives(here, stays, mine)
            stays.leave()


async def test_where_everything_is_open(tmp_path: Path) -> None:
    """With `anonymous` who names no account gets in, and who does must prove it."""
    async with open_broker(tmp_path, anonymous=True) as broker, yard(broker) as here:
        mine, secret = await here.person()
        assert await enters(here.port, client_id="anybody")
        assert await enters(here.port, mine.id, secret)
        assert not await enters(here.port, mine.id, secret[:-1])
        stays = Phone(here.port, client_id="stays")
        assert await stays.enter()
        await arrives(here, stays, mine)
        stays.leave()


async def test_beside_a_leaf(tmp_path: Path) -> None:
    """The auth service of a broker unit admits and cuts off devices by the core's registry, too."""
    async with open_core(tmp_path) as core, open_unit(tmp_path, core, "b1") as unit:
        client = await core.client()
        await unit.until_status(200)
        registry = Registry(KvBucket(Connection(client), DEVICE_BUCKET), PASSWORD)
        mine, secret = await registry.add("s", "person")
        await until(lambda: enters(unit.port, mine.id, secret), "the device is replicated")
        assert not await enters(unit.port, mine.id, secret[:-1])
        phone = Phone(unit.port, mine.id, secret)
        assert await phone.enter()
        began_s = time.monotonic()
        await registry.change(mine.id, status="disabled")
        await phone.cut()
        took_s = time.monotonic() - began_s
        print(f"a device that was disabled was cut off from a leaf after {took_s:.3f} s")
        assert took_s < MAX_CUT_S
        assert not await enters(unit.port, mine.id, secret)
        await client.close()


# --- too much -------------------------------------------------------------------------------------------
async def banned(here: Yard, id_: str) -> None:
    """Return when the auth service knows that a device is banned."""
    await until(lambda: here.gate.authenticator.is_banned(id_, LOOPBACK, time.time()))
    assert [one.device for one in await here.bans.all()] == [id_]


async def comes_back(here: Yard, id_: str, secret: str) -> None:
    """Return when a ban is over."""
    assert not await enters(here.port, id_, secret)
    assert here.refused("banned") > 0
    await until(lambda: not here.gate.authenticator.is_banned(id_, LOOPBACK, time.time()))
    assert await enters(here.port, id_, secret)


async def test_who_flaps_is_kept_out(broker: Broker) -> None:
    """A device that connects more often than the limit is banned, and is admitted after the ban."""
    async with yard(broker, MqttRateLimits(connects_per_minute=5, ban_s=3.0)) as here:
        (mine, secret), (other, others) = await here.person(), await here.person()
        for _ in range(6):
            assert await enters(here.port, mine.id, secret)
        await banned(here, mine.id)
        assert await enters(here.port, other.id, others)
        await comes_back(here, mine.id, secret)
        assert here.gate.figures.bans == {"device": 1}


async def test_who_floods_is_cut_off_and_kept_out(broker: Broker) -> None:
    """A device that floods is cut off and banned, and admitted as soon as the ban is lifted."""
    async with yard(broker, MqttRateLimits(burst_messages=50.0, ban_s=60.0)) as here:
        (mine, secret), (other, others) = await here.person(), await here.person()
        phone, bystander = Phone(here.port, mine.id, secret), Phone(here.port, other.id, others)
        assert await phone.enter()
        assert await bystander.enter()
        began_s = time.monotonic()
        await phone.send(topic(mine), fix(), 200)
        await bystander.send(topic(other), fix(), 10)
        await phone.cut()
        print(f"a flood was cut off after {time.monotonic() - began_s:.2f} s")
        await banned(here, mine.id)
        assert not await enters(here.port, mine.id, secret)
        assert await here.bans.lift(mine.id)
        await comes_back_now(here, mine.id, secret)
        bystander.leave()
        assert (here.gate.figures.bans, here.gate.figures.cut) == ({"device": 1}, 1)


async def comes_back_now(here: Yard, id_: str, secret: str) -> None:
    """Return when the device is admitted after the auth service has received the end of its ban."""
    await until(lambda: not here.gate.authenticator.is_banned(id_, LOOPBACK, time.time()))
    assert await enters(here.port, id_, secret)


async def test_an_address_that_guesses(broker: Broker) -> None:
    """An address with too many refused attempts is banned for clients without valid credentials.

    Clients with valid credentials stay connected and are admitted: a campus may have one address for all.
    """
    somewhere = "127.0.0.2"
    async with yard(broker, MqttRateLimits(refused_per_minute=5, ban_s=3.0)) as here:
        mine, secret = await here.person()
        inside = Phone(here.port, mine.id, secret, f"{mine.id}-2", somewhere)
        assert await inside.enter()
        for _ in range(6):
            assert not await enters(here.port, mine.id, "a guess")
        for _ in range(6):
            assert not await enters(here.port, mine.id, "a guess", address=somewhere)
        await until(lambda: here.gate.figures.bans == {"address": 1})
        assert [one.address for one in await here.bans.all()] == [somewhere]
        before = here.gate.figures.refused["banned"]
        assert not await enters(here.port, "a2b3c4d5e6f7a2b3c4d5", secret, address=somewhere)
        assert here.gate.figures.refused["banned"] == before + 1
        assert await enters(here.port, mine.id, secret, address=somewhere)
        assert here.gate.figures.cut == 0
        inside.leave()


@contextlib.asynccontextmanager
async def presence_of(here: Yard) -> AsyncIterator[Callable[[Device], Awaitable[LastSeen | None]]]:
    """Reads what the bucket SEEN has about a device."""
    bucket = KvBucket(Connection(here.core), SEEN_BUCKET)

    async def seen(device: Device) -> LastSeen | None:
        entry = await bucket.get(device.id)
        return None if entry is None else msgspec.json.decode(entry.value, type=LastSeen)

    yield seen


async def test_presence_of_devices_is_published(broker: Broker) -> None:
    """The bucket SEEN shows that a device has connected, and then that it has disconnected."""
    async with yard(broker) as here, presence_of(here) as seen:
        mine, secret = await here.person()

        async def is_reported(*, connected: bool) -> bool:
            found = await seen(mine)
            return found is not None and (found.connected, found.unit) == (connected, "test")

        phone, second = Phone(here.port, mine.id, secret), Phone(here.port, mine.id, secret, f"{mine.id}-2")
        assert await phone.enter()
        await until(partial(is_reported, connected=True))
        assert await second.enter()
        phone.leave()
        await phone.cut()
        assert await is_reported(connected=True)
        second.leave()
        await until(partial(is_reported, connected=False))


async def test_presence_under_churn(broker: Broker) -> None:
    """200 devices that connect, publish and leave within a second are absent 5 s later."""
    async with yard(broker) as here, presence_of(here) as seen:
        found = [await here.registry.add("ul", "person") for _ in range(200)]
        stays, secret = await here.person()
        await until(lambda: all(device.id in here.gate.authenticator._accounts for device, _ in found))
        phone = Phone(here.port, stays.id, secret)
        assert await phone.enter()

        async def visit(device: Device, secret: str) -> float:
            visitor = Phone(here.port, device.id, secret)
            assert await visitor.enter()
            await visitor.send(topic(device), fix())
            visitor.leave()
            return time.monotonic()

        async def absent(device: Device, left_s: float) -> float:
            async def is_absent() -> bool:
                last = await seen(device)
                return last is not None and not last.connected

            await until(is_absent, every_s=0.2)
            return time.monotonic() - left_s

        left_s = [await visit(device, secret) for device, secret in found]
        took_s = [await absent(device, at_s) for (device, _), at_s in zip(found, left_s, strict=True)]
        print(f"the last of {len(found)} devices was absent after {max(took_s[-20:]):.1f} s")
        last = await seen(stays)
        assert last is not None
        assert last.connected
        phone.leave()


async def test_presence_after_a_restart(broker: Broker) -> None:
    """A device that leaves while no auth service runs is absent when the next one has started."""
    async with yard(broker) as here, presence_of(here) as seen:
        mine, secret = await here.person()
        phone = Phone(here.port, mine.id, secret)
        assert await phone.enter()

        async def is_connected() -> bool:
            last = await seen(mine)
            return last is not None and last.connected

        await until(is_connected)
    async with yard(broker, open_gate=False) as here:
        phone.leave()
    async with yard(broker) as here, presence_of(here) as seen:

        async def is_absent() -> bool:
            return not await is_connected()

        await until(is_absent)


async def test_a_device_that_moved_to_another_unit_stays_connected(broker: Broker) -> None:
    """The disconnect from one unit does not replace the connect to another one."""
    async with yard(broker) as here, presence_of(here) as seen:
        mine, secret = await here.person()
        phone = Phone(here.port, mine.id, secret)
        assert await phone.enter()
        await until(partial(seen, mine))
        elsewhere = LastSeen(time.time(), connected=True, unit="another")
        bucket = KvBucket(Connection(here.core), SEEN_BUCKET)
        await bucket.put(mine.id, msgspec.json.encode(elsewhere))
        phone.leave()
        await until(lambda: not here.gate.presence.devices)
        await until(lambda: not here.gate.presence._changed)
        assert await seen(mine) == elsewhere


async def test_devices_of_a_killed_unit(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The devices of a broker unit without heartbeats are absent; those of others stay connected."""
    monkeypatch.setattr(presence, "GONE_S", 1.0)
    monkeypatch.setattr(presence, "GONE_POLL_S", 0.1)
    async with yard(broker, open_gate=False) as here, presence_of(here) as seen:
        (killed, _), (other, _) = (
            await here.registry.add("ul", "person"),
            await here.registry.add("ul", "person"),
        )
        connection, stop = Connection(here.core), asyncio.Event()
        bucket, units = KvBucket(connection, SEEN_BUCKET), Units(connection)
        for device, name in ((killed, "b1"), (other, "here")):
            last = LastSeen(time.time(), connected=True, unit=name)
            await bucket.put(device.id, msgspec.json.encode(last))
        unit = BrokerUnit("b1", "", "", "", 1, 2, 3, "up", 0, 0.0, 0.0, 0.0)
        running = asyncio.create_task(GoneUnits(connection, "here").run(stop))
        for _ in range(10):
            await units.heartbeat(unit)
            await asyncio.sleep(0.1)
        last_seen = await seen(killed)
        assert last_seen is not None

        async def is_absent() -> bool:
            found = await seen(killed)
            return found is not None and not found.connected

        await until(is_absent)
        found = await seen(other)
        assert found is not None
        assert found.connected
        stop.set()
        await running


async def test_many_at_once(broker: Broker) -> None:
    """300 devices that come at the same moment all get in."""
    async with yard(broker) as here:
        found = [await here.registry.add("ul", "person") for _ in range(300)]
        await until(lambda: all(device.id in here.gate.authenticator._accounts for device, _ in found))
        phones = [Phone(here.port, device.id, secret) for device, secret in found]
        began_s = time.monotonic()
        admitted = await asyncio.gather(*(phone.enter() for phone in phones))
        print(f"300 devices were let in within {time.monotonic() - began_s:.2f} s")
        for phone in phones:
            phone.leave()
        assert all(admitted), (here.gate.figures, admitted.count(False))
        assert here.gate.figures.admitted == 300
        assert not here.gate.figures.refused
