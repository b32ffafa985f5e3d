"""The rights of MQTT clients at the broker, and the properties that the log relies on.

One broker for the whole file; each test has a site of its own.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import string
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiomqtt
import msgspec
import pytest
from nats.aio.client import Client

from headcount.broker import nats_probe
from headcount.broker.core import Broker
from headcount.messages.topics import FIX_TOPIC, INTERNAL, KINDS, STATUS_TOPIC, partition_of
from headcount.messaging.retained_topics import purge_retained
from nats_fixture import PASSWORD, internal_client, running_broker
from waiting import until

PARTITIONS = 16
_sites = (f"s{number}" for number in range(1000))

needs_mosquitto = pytest.mark.skipif(
    shutil.which("mosquitto_pub") is None, reason="mosquitto's clients are not installed"
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The broker of this file."""
    with running_broker(tmp_path_factory.mktemp("broker"), partitions=PARTITIONS) as running:
        yield running


@pytest.fixture
def site() -> str:
    """A site that no other test uses."""
    return next(_sites)


def device(broker: Broker, **options: Any) -> aiomqtt.Client:
    """An MQTT client like a phone, without an account."""
    return aiomqtt.Client("127.0.0.1", broker.config.mqtt_port, timeout=60, **options)


def publisher(broker: Broker) -> aiomqtt.Client:
    """The MQTT client that publishes our own retained messages."""
    return device(broker, username="headcount", password=PASSWORD)


@asynccontextmanager
async def internal(broker: Broker) -> AsyncIterator[Client]:
    """A NATS client with all rights."""
    client = await internal_client(broker)
    try:
        yield client
    finally:
        await client.close()


async def subjects_in_log(client: Client, site: str) -> dict[str, int]:
    """Subject → how many messages the FIX streams hold of a site."""
    found: dict[str, int] = {}
    for partition in range(PARTITIONS):
        question = msgspec.json.encode({"subjects_filter": f"fix.{partition}.{site}.>"})
        answer = await client.request(f"$JS.API.STREAM.INFO.FIX_{partition}", question)
        found |= msgspec.json.decode(answer.data)["state"].get("subjects") or {}
    return found


async def until_in_log(client: Client, site: str, number: int) -> dict[str, int]:
    """The same, as soon as there are `number` of messages: PUBACK comes before the log has them."""

    async def enough() -> dict[str, int] | None:
        found = await subjects_in_log(client, site)
        return found if sum(found.values()) >= number else None

    found: dict[str, int] = await until(enough, f"{number} messages in the log", every_s=0.01)
    return found


async def receive(client: aiomqtt.Client, number: int) -> list[aiomqtt.Message]:
    """The next messages."""
    messages = client.messages
    return [await anext(messages) for _ in range(number)]


async def granted(client: aiomqtt.Client, topic: str, qos: int) -> int:
    """The SUBACK's answer: the quality of service that is granted, or 0x80."""
    [code] = await client.subscribe(topic, qos=qos)
    return code if isinstance(code, int) else code.value


def random_id(rng: random.Random) -> str:
    """Any id that a device may have."""
    letters = string.ascii_letters + string.digits + "_-"
    return "".join(rng.choices(letters, k=rng.randint(1, 64)))


# --- the way into the log ---------------------------------------------------------------------


async def test_the_mapping_is_partition_of(broker: Broker, site: str) -> None:
    """Each device's fixes and status lie in the partition that `partition_of` computes."""
    rng = random.Random(200)
    ids = {random_id(rng) for _ in range(200)}
    async with device(broker) as client, internal(broker) as log:
        for name in ids:
            kind = rng.choice(KINDS)
            names = {"site": site, "kind": kind, "device": name}
            await client.publish(FIX_TOPIC.format(**names), b"x", qos=1)
            await client.publish(STATUS_TOPIC.format(**names), b"online", qos=1)
        found = await until_in_log(log, site, 2 * len(ids))
    assert set(found.values()) == {1}
    for subject in found:
        _, partition, where, _, name, *status = subject.split(".")
        assert int(partition) == partition_of(where, name, PARTITIONS)
        assert status in ([], ["status"])
    assert {subject.split(".")[4] for subject in found} == ids


@needs_mosquitto
async def test_mosquitto_gets_into_the_log(broker: Broker, site: str) -> None:
    """`mosquitto_pub` with nothing but host, port and topic puts a fix into the log."""
    topic = f"headcount/{site}/person/phone-1/fix"
    for qos in ("0", "1", "2"):
        command = ["mosquitto_pub", "-p", str(broker.config.mqtt_port), "-t", topic, "-m", "x", "-q", qos]
        subprocess.run(command, check=True)

    async def check() -> None:
        async with internal(broker) as log:
            found = await until_in_log(log, site, 3)
            expected = partition_of(site, "phone-1", PARTITIONS)
            assert found == {f"fix.{expected}.{site}.person.phone-1": 3}

    await check()


async def test_naming_a_partition_does_not_help(broker: Broker, site: str) -> None:
    """A sender who publishes on `fix/…` with a partition of his choice gets the right one all the same."""
    async with device(broker) as client, internal(broker) as log:
        for partition in ("0", "7", "15", "99", "x"):
            await client.publish(f"fix/{partition}/{site}/person/d", b"x", qos=1)
            await client.publish(f"fix/{partition}/{site}/person/d/status", b"x", qos=1)
        found = await until_in_log(log, site, 10)
        right = partition_of(site, "d", PARTITIONS)
        assert found == {f"fix.{right}.{site}.person.d": 5, f"fix.{right}.{site}.person.d.status": 5}


async def test_the_last_will_gets_into_the_log(broker: Broker, site: str) -> None:
    """When a device's connection breaks, its last will is stored as its status."""
    async with internal(broker) as log:
        with socket.create_connection(("127.0.0.1", broker.config.mqtt_port)) as phone:
            phone.sendall(connect_packet(site, will=(f"headcount/{site}/vehicle/car/status", b"offline")))
            assert phone.recv(4) == b"\x20\x02\x00\x00"
        found = await until_in_log(log, site, 1)
        assert [subject.split(".", 2)[2] for subject in found] == [f"{site}.vehicle.car.status"]


async def test_sequence_and_time_come_with_each_message(broker: Broker, site: str) -> None:
    """The reply subject of a delivered message carries its stream sequence and the time of its receipt."""
    async with device(broker) as client, internal(broker) as log:
        before = time.time_ns()
        for number in range(3):
            await client.publish(f"headcount/{site}/person/d/fix", str(number), qos=1)
        await until_in_log(log, site, 3)
        partition = partition_of(site, "d", PARTITIONS)
        subject = f"fix.{partition}.{site}.person.d"
        reader = await log.jetstream().subscribe(subject, stream=f"FIX_{partition}")
        replies = [(await reader.next_msg(5)).reply.split(".") for _ in range(3)]
        after = time.time_ns()
    assert [reply[:3] for reply in replies] == [["$JS", "ACK", f"FIX_{partition}"]] * 3
    sequences = [int(reply[5]) for reply in replies]
    times = [int(reply[7]) for reply in replies]
    assert sequences == sorted(set(sequences))
    assert times == sorted(times)
    # The server's clock is this machine's clock here; a second covers its being set meanwhile.
    assert before - 10**9 < times[0] < times[-1] < after + 10**9
    assert replies[-1][8] == "0"


@pytest.mark.parametrize(
    ("topic", "subject"),
    [
        ("headcount/{}/person/a.b/fix", "person.a//b"),
        ("headcount/{}/person/../fix", "person.////"),
        ("headcount/{}//x/fix", "/.x"),
        ("headcount/{}/person//fix", "person./"),
        ("headcount/{}/robot/x/fix", "robot.x"),
        ("headcount/{}/person/é/fix", "person.é"),
        ("headcount/{}/person/" + "x" * 5000 + "/fix", "person." + "x" * 5000),
        ("headcount/{}/person/$JS/fix", "person.$JS"),
        ("headcount/{}/person/*/fix", "person.*"),
        ("headcount/{}/*/*/fix", "*.*"),
    ],
)
async def test_hostile_names_stay_one_level(broker: Broker, site: str, topic: str, subject: str) -> None:
    """Dots, empty levels, unknown kinds and giants are one token each, in the log's right place."""
    async with device(broker) as client, internal(broker) as log:
        await client.publish(topic.format(site), b"x", qos=1)
        found = await until_in_log(log, site, 1)
        assert [name.split(".", 3)[3] for name in found] == [subject]


@pytest.mark.parametrize(
    "topic",
    [
        "/headcount/{}/person/x/fix",
        "headcount/{}/person/x/fix/",
        "headcount/{}/person/x/y/fix",
        "headcount/{}/x/fix",
        "headcount/{}/person/x/FIX",
        "Headcount/{}/person/x/fix",
        "headcount/{}/person/>/fix",
        "headcount/{}/>",
    ],
)
async def test_similar_topics_are_nothing(broker: Broker, site: str, topic: str) -> None:
    """A topic that only looks like a fix's goes nowhere, and the client may go on."""
    async with device(broker) as client, internal(broker) as log:
        await client.publish(topic.format(site), b"x", qos=1)
        await client.publish(f"headcount/{site}/person/fence/fix", b"x", qos=1)
        found = await until_in_log(log, site, 1)
        assert [subject.split(".")[-1] for subject in found] == ["fence"]


async def test_a_message_that_is_too_large_for_the_log(broker: Broker, site: str) -> None:
    """Above 64 KiB a fix is not stored; who waits for its acknowledgement is cut off, others are not."""
    topic = f"headcount/{site}/person/d/fix"
    async with device(broker) as client, internal(broker) as log:
        for size in (65_536, 1_000_000):
            await client.publish(topic, b"x" * size, qos=0)
        with socket.create_connection(("127.0.0.1", broker.config.mqtt_port)) as other:
            other.sendall(connect_packet(site))
            assert other.recv(4) == b"\x20\x02\x00\x00"
            name = topic.encode()
            body = len(name).to_bytes(2, "big") + name + b"\x00\x01" + b"x" * 65_536
            assert await asyncio.to_thread(cut_off, other, b"\x32" + varint(len(body)) + body)
        await client.publish(topic, b"x" * 10, qos=1)
        found = await until_in_log(log, site, 1)
        assert list(found.values()) == [1]


async def test_ten_megabytes(broker: Broker, site: str) -> None:
    """A message above the server's limit costs its sender the connection, and affects no other client."""
    topic = f"headcount/{site}/person/d/fix"
    async with device(broker) as other, internal(broker) as log:
        pid = broker.pid
        with socket.create_connection(("127.0.0.1", broker.config.mqtt_port)) as client:
            client.sendall(connect_packet(site))
            assert client.recv(4) == b"\x20\x02\x00\x00"
            name = topic.encode()
            body = len(name).to_bytes(2, "big") + name + b"x" * 10_000_000
            assert await asyncio.to_thread(cut_off, client, b"\x30" + varint(len(body)) + body)
        await other.publish(topic, b"x", qos=1)
        assert list((await until_in_log(log, site, 1)).values()) == [1]
        assert broker.pid == pid
        assert broker.restarts == 0


def connect_packet(client_id: str, will: tuple[str, bytes] | None = None) -> bytes:
    """MQTT 3.1.1 CONNECT, clean session, a minute's keep-alive, the will with QoS 1."""

    def field(content: bytes) -> bytes:
        return len(content).to_bytes(2, "big") + content

    flags, fields = 0x02, field(client_id.encode())
    if will is not None:
        flags |= 0x04 | 0x08
        fields += field(will[0].encode()) + field(will[1])
    body = field(b"MQTT") + bytes([4, flags]) + b"\x00\x3c" + fields
    return b"\x10" + varint(len(body)) + body


def varint(number: int) -> bytes:
    """MQTT's variable length: seven bits a byte, lowest first."""
    digits = bytearray()
    while True:
        number, digit = divmod(number, 128)
        digits.append(digit | (128 if number else 0))
        if not number:
            return bytes(digits)


def cut_off(client: socket.socket, packet: bytes) -> bool:
    """True when the server ends the connection because of the packet."""
    try:
        client.sendall(packet)
        return client.recv(1) == b""
    except ConnectionError:
        return True


async def test_rubbish_costs_only_its_sender(broker: Broker, site: str) -> None:
    """Bytes that are not MQTT end their connection; the others go on."""
    async with device(broker) as other, internal(broker) as log:
        for rubbish in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x00" * 64,
            b"\xff" * 64,
            b"\x10\xff\xff\xff\xff\xff",
        ):
            with socket.create_connection(("127.0.0.1", broker.config.mqtt_port)) as client:
                assert await asyncio.to_thread(cut_off, client, rubbish)
        await other.publish(f"headcount/{site}/person/d/fix", b"x", qos=1)
        await until_in_log(log, site, 1)


# --- rights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize(
    "topic",
    [
        "#",
        "+/#",
        "fix/#",
        "fix/+/+/+/+",
        "headcount/#",
        "headcount/+/+/+/fix",
        "headcount/+/person/+/status",
        "headcount/s/#",
        "count/#",
        "event/#",
        "history/#",
        "owntracks/#",
        "car-iotp",
        "$SYS/#",
        "$JS/#",
        "$MQTT/#",
        "$MQTT/sub/#",
        "$KV/#",
        "_INBOX/#",
        "headcount/+/+/+/+",
        ">",
        "headcount/>",
        "fix/>",
        "headcount/*/*/*/fix",
        "headcount/*/person/>",
    ],
)
async def test_a_device_receives_no_positions(broker: Broker, topic: str, qos: int) -> None:
    """Every subscription that could bring another device's fix is refused in the SUBACK."""
    async with device(broker) as client:
        assert await granted(client, topic, qos) == 0x80


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize(
    "topic",
    [
        "headcount/+/counts/#",
        "headcount/ul/counts/library",
        "headcount/ul/events/+",
        "headcount/+/events/#",
        "headcount/ul/site",
        "headcount/ul/person/me/cmd",
    ],
)
async def test_a_device_receives_its_own_messages(broker: Broker, topic: str, qos: int) -> None:
    """Counts, events, the site and commands can be subscribed with each quality of service."""
    async with device(broker) as client:
        assert await granted(client, topic, qos) == qos


async def test_a_device_can_not_write_what_we_compute(broker: Broker, site: str) -> None:
    """A forbidden publish is acknowledged and dropped: counts, events, ticks, snapshots stay ours."""
    forbidden = [
        f"headcount/{site}/counts/library",
        f"headcount/{site}/events/library",
        f"headcount/{site}/site",
        f"headcount/{site}/person/other/cmd",
        f"event/{site}/library",
        "fix/0/tick",
        "fix/tick",
        f"fix/0/{site}/person",
        "count/0",
        "history/0",
        "$KV/SNAPSHOT/0",
        "$JS/API/STREAM/PURGE/FIX_0",
        "$MQTT/msgs/x",
        "$SYS/REQ/x",
    ]
    async with device(broker) as client, internal(broker) as log:
        everything = await log.subscribe(">")
        await log.flush()
        for topic in forbidden:
            await client.publish(topic, b"evil", qos=1, retain=True)
        await client.publish(f"headcount/{site}/person/fence/fix", b"evil", qos=1)
        evil = []
        async for message in everything.messages:
            if message.data == b"evil":
                evil.append(message.subject)
            if message.subject.endswith(".fence"):
                break
        assert [subject.split(".", 2)[2] for subject in evil] == [f"{site}.person.fence"]


@pytest.mark.parametrize(
    "topic", ["headcount/{}/counts/library", "event/{}/library", "fix/0/tick", "count/0"]
)
async def test_a_last_will_has_no_more_rights(broker: Broker, site: str, topic: str) -> None:
    """A last will on a topic that the device may not publish to is neither delivered nor retained."""
    async with internal(broker) as log:
        everything = await log.subscribe(">")
        await log.flush()
        for number, (subject, text) in enumerate(
            [(topic.format(site), b"evil"), (f"headcount/{site}/person/fence/status", b"fence")]
        ):
            with socket.create_connection(("127.0.0.1", broker.config.mqtt_port)) as phone:
                phone.sendall(connect_packet(f"{site}-{number}", will=(subject, text)))
                assert phone.recv(4) == b"\x20\x02\x00\x00"
            if text == b"evil":
                await until_closed(log, f"{site}-{number}")
        async for message in everything.messages:
            assert message.data != b"evil"
            if message.data == b"fence":
                break


async def until_closed(client: Client, client_id: str) -> None:
    """Wait until the server has noticed that an MQTT client is gone."""
    question = msgspec.json.encode({"mqtt_client": client_id, "auth": True})

    async def is_closed() -> bool:
        answer = await client.request("$SYS.REQ.SERVER.PING.CONNZ", question)
        return not msgspec.json.decode(answer.data)["data"]["connections"]

    await until(is_closed, f"{client_id} is gone", every_s=0.01)


async def test_no_position_stays_retained(broker: Broker, site: str) -> None:
    """Retained messages of devices are removed and delivered to no subscriber; our counts stay."""
    async with device(broker) as phone, publisher(broker) as ours:
        for topic in (f"headcount/{site}/person/d/fix", f"owntracks/{site}/phone", "car-iotp"):
            await phone.publish(topic, b"here I am", qos=1, retain=True)
        await ours.publish(f"headcount/{site}/counts/site", b"5", qos=1, retain=True)
        ask = partial(nats_probe.request, broker.config, INTERNAL)
        while not await purge_retained(ask):
            pass
        assert await purge_retained(ask) == 0
        await ours.subscribe([(f"fix/+/{site}/#", 0), (f"owntracks/{site}/#", 0), ("car-iotp", 0)])
        await ours.subscribe(f"headcount/{site}/counts/#")
        [message] = await receive(ours, 1)
        assert message.payload == b"5"


async def test_a_device_can_not_touch_retained_counts(broker: Broker, site: str) -> None:
    """Neither replacing nor clearing a retained count works; late subscribers get ours."""
    topic = f"headcount/{site}/counts/library"
    async with publisher(broker) as ours, device(broker) as evil, device(broker) as listener:
        await ours.publish(topic, b"ours", qos=1, retain=True)
        await evil.publish(topic, b"evil", qos=1, retain=True)
        await evil.publish(topic, b"", qos=1, retain=True)
        await listener.subscribe(topic, qos=1)
        [message] = await receive(listener, 1)
        assert (message.payload, message.retain) == (b"ours", True)


@pytest.mark.parametrize(
    ("user", "password"),
    [("headcount", "wrong"), ("headcount", None), ("device", None), ("system", "wrong"), ("phone", "x")],
)
async def test_a_wrong_name_is_refused(broker: Broker, user: str, password: str | None) -> None:
    """A client that gives a user name must know the password; our roles don't work without one."""

    async def check() -> None:
        async with device(broker, username=user, password=password):
            pass

    with pytest.raises(aiomqtt.MqttError):
        await check()


@pytest.mark.parametrize(
    "login", [{}, {"user": "device"}, {"user": "device", "pass": PASSWORD}, {"user": "headcount", "pass": ""}]
)
@pytest.mark.parametrize("way", ["NATS", "WebSocket"])
def test_nats_clients_need_the_password(broker: Broker, way: str, login: dict[str, str]) -> None:
    """The NATS port, and NATS over the WebSocket port, admit only our own roles."""
    options = {"verbose": False, "pedantic": False, "name": "a stranger " * 10} | login
    hello = b"CONNECT " + msgspec.json.encode(options) + b"\r\nPING\r\n"
    port = broker.config.nats_port if way == "NATS" else broker.config.ws_port
    with socket.create_connection(("127.0.0.1", port), timeout=60) as stranger:
        if way == "WebSocket":
            stranger.sendall(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            assert stranger.recv(65536).startswith(b"HTTP/1.1 101 ")
            # A final text frame of 126 to 65535 bytes; its mask is zero, so the payload stays as it is.
            length = bytes([0x80 | 126]) + len(hello).to_bytes(2, "big")
            hello = b"\x81" + length + b"\0\0\0\0" + hello
        stranger.sendall(hello)
        answer = b""
        while part := stranger.recv(65536):
            answer += part
    assert b"-ERR 'Authorization Violation'" in answer
    assert b"PONG" not in answer


async def test_mqtt_5_is_refused(broker: Broker) -> None:
    """The server supports only MQTT 3.1.1 and reports that: a client must not request version 5."""

    async def check() -> None:
        async with device(broker, protocol=aiomqtt.ProtocolVersion.V5):
            pass

    with pytest.raises(aiomqtt.MqttError):
        await check()


# --- the way out ------------------------------------------------------------------------------


@needs_mosquitto
async def test_mosquitto_sees_retained_counts_at_once(broker: Broker, site: str) -> None:
    """`mosquitto_sub -t 'headcount/+/counts/#'` prints the retained counts without waiting for a change."""

    async def check() -> None:
        async with publisher(broker) as ours:
            for zone in ("library", "site"):
                await ours.publish(f"headcount/{site}/counts/{zone}", f"of {zone}", qos=1, retain=True)

    await check()
    port = str(broker.config.mqtt_port)
    every = ["mosquitto_sub", "-p", port, "-t", "headcount/+/counts/#", "-v", "-W", "1"]
    heard_all = subprocess.run(every, capture_output=True, text=True, check=False).stdout.splitlines()
    assert f"headcount/{site}/counts/library of library" in heard_all
    assert f"headcount/{site}/counts/site of site" in heard_all


async def test_a_persistent_session_misses_no_count(broker: Broker, site: str) -> None:
    """With QoS 1 and a kept session a count that was published meanwhile is delivered on return."""
    topic = f"headcount/{site}/counts/library"
    kept = {"identifier": f"{site}-display", "clean_session": False}
    async with device(broker, **kept) as display:
        await display.subscribe(topic, qos=1)
    async with publisher(broker) as ours:
        await ours.publish(topic, b"meanwhile", qos=1)
    async with device(broker, **kept) as display:
        [message] = await receive(display, 1)
        assert (message.payload, message.qos) == (b"meanwhile", 1)


async def test_events_reach_mqtt_once(broker: Broker, site: str) -> None:
    """An event that is published twice under the same id is stored and delivered once, as QoS 0."""
    async with device(broker) as client, internal(broker) as log:
        await client.subscribe(f"headcount/{site}/events/#", qos=1)
        jetstream = log.jetstream()
        for number in ("1", "1", "2"):
            header = {"Nats-Msg-Id": f"{site}-{number}"}
            await jetstream.publish(f"event.{site}.library", number.encode(), headers=header)
        messages = await receive(client, 2)
        assert [message.payload for message in messages] == [b"1", b"2"]
        assert {message.topic.value for message in messages} == {f"headcount/{site}/events/library"}
        assert {message.qos for message in messages} == {0}


async def test_commands_reach_their_device(broker: Broker, site: str) -> None:
    """A role's message on a device's `cmd` is delivered to the device."""
    async with device(broker) as client, internal(broker) as log:
        await client.subscribe(f"headcount/{site}/person/me/cmd")
        await log.publish(f"headcount.{site}.person.me.cmd", b"report")
        [message] = await receive(client, 1)
        assert message.payload == b"report"


async def test_websocket(broker: Broker, site: str) -> None:
    """A browser with MQTT over WebSocket has a device's rights: it publishes and receives counts only."""
    browser = aiomqtt.Client(
        "127.0.0.1", broker.config.ws_port, transport="websockets", websocket_path="/mqtt", timeout=60
    )
    async with browser, publisher(broker) as ours, internal(broker) as log:
        assert await granted(browser, "headcount/#", 0) == 0x80
        await browser.subscribe(f"headcount/{site}/counts/#", qos=1)
        await ours.publish(f"headcount/{site}/counts/site", b"5", qos=1, retain=True)
        [message] = await receive(browser, 1)
        assert message.payload == b"5"
        await browser.publish(f"headcount/{site}/person/d/fix", b"x", qos=1)
        await until_in_log(log, site, 1)


def test_the_same_client_id_twice(broker: Broker, site: str) -> None:
    """Of two connections with the same id the newer one lives, and the older one is closed."""

    def connect() -> socket.socket:
        client = socket.create_connection(("127.0.0.1", broker.config.mqtt_port), timeout=60)
        client.sendall(connect_packet(site))
        assert client.recv(4) == b"\x20\x02\x00\x00"
        return client

    with connect() as older, connect() as newer:
        assert older.recv(1) == b""
        newer.sendall(b"\xc0\x00")  # PINGREQ
        assert newer.recv(2) == b"\xd0\x00"


async def test_connections_can_be_counted(broker: Broker) -> None:
    """Our own roles learn the number of connected devices from the server, without the system account."""

    async def number(client: Client) -> int:
        question = b'{"user":"device","auth":true,"limit":1}'
        answer = await client.request("$SYS.REQ.SERVER.PING.CONNZ", question)
        return int(msgspec.json.decode(answer.data)["data"]["total"])

    async with internal(broker) as client, device(broker), device(broker):
        assert await number(client) >= 2


async def test_a_question_can_be_cancelled_at_any_moment(broker: Broker) -> None:
    """A cancelled check ends, wherever it was: otherwise stopping would wait for it for ever."""
    rng = random.Random(7)

    async def ask_for_ever() -> None:
        while True:
            await nats_probe.ask_health(broker.config)

    for _ in range(200):
        task = asyncio.create_task(ask_for_ever())
        await asyncio.sleep(rng.uniform(0, 0.01))  # a random moment
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
