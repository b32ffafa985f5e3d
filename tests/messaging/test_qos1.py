"""A fix whose PUBACK a device has received is in the log, whatever dies the next instant."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import random
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import nats.errors
import numpy as np
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from headcount.broker.core import Broker
from headcount.devices.pseudonyms import PSEUDONYM_BYTES
from headcount.errors import LogError
from headcount.lab.chaos.small_disk import fill, release, small_disk
from headcount.messages.counts import decode_counts
from headcount.messages.fixes import encode_fix
from headcount.messages.history import HistoryBatch
from headcount.messages.topics import FIX_TOPIC, HISTORY_STREAM, INTERNAL, TICK_SUBJECT
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.jetstream import request
from headcount.messaging.log_reader import open_reader
from headcount.settings.deployment import Settings
from nats_fixture import config_for, internal_client, open_broker
from small_site import small_site
from waiting import until

PARTITIONS = 4
WINDOW = 300


def packet(topic: str, body: bytes, ident: int) -> bytes:
    """An MQTT 3.1.1 PUBLISH, of QoS 1 where there is an identifier."""
    content = struct.pack(">H", len(topic)) + topic.encode()
    content += (struct.pack(">H", ident) if ident else b"") + body
    size = b""
    left = len(content)
    while left or not size:
        size += bytes([left % 128 | (128 if left >= 128 else 0)])
        left //= 128
    return (b"\x32" if ident else b"\x30") + size + content


def connected(port: int, name: str) -> socket.socket:
    """A socket on which the broker has accepted an MQTT client."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack(">H", len(name)) + name.encode()
    sock.sendall(bytes([0x10, len(body)]) + body)
    if sock.recv(4) != b"\x20\x02\x00\x00":
        sock.close()
        raise ConnectionRefusedError
    return sock


def send(port: int, name: str, qos: int, say: Callable[[int], tuple[str, bytes]], until_s: float) -> int:
    """Send `say(0)`, `say(1)`, … as fast as they are taken until the broker dies; how many were acknowledged.

    Acknowledgements come in the order of the messages, so those are the first ones.
    """
    sent = answered = 0
    with contextlib.suppress(OSError), connected(port, name) as sock:
        while time.time() < until_s:
            block = range(sent, sent + 100)
            sock.sendall(b"".join(packet(*say(i), qos and i % 65_000 + 1) for i in block))
            sent += 100
            while qos and sent - answered // 4 > WINDOW:
                if not (got := len(sock.recv(65_536))):
                    return answered // 4
                answered += got
    return answered // 4


def numbered(device: str) -> Callable[[int], tuple[str, bytes]]:
    """Fixes of a device that carry their number as accuracy."""
    topic = FIX_TOPIC.format(site="ul", kind="person", device=device)
    return lambda number: (topic, b'{"tst":1800000000,"lat":52.67,"lon":-8.57,"acc":%d}' % number)


def endpoint(broker: Broker) -> Endpoint:
    """Where the log of a broker is."""
    return Endpoint((("127.0.0.1", broker.config.nats_port),), INTERNAL, broker.config.password)


async def fixes(broker: Broker, client: Client) -> dict[str, list[int]]:
    """Device → the numbers of its fixes in the log, as a counting worker reads them."""
    found: dict[str, list[int]] = {}
    async with open_reader(endpoint(broker), Connection(client)) as reader:
        for partition in range(PARTITIONS):
            await client.jetstream().publish(TICK_SUBJECT.format(partition=partition), b"")
            state = (await request(Connection(client), f"STREAM.INFO.FIX_{partition}"))["state"]
            await reader.follow(partition, 0)
            seq = 0
            while seq < state["last_seq"]:
                for delivery in await reader.read():
                    seq = delivery.seq[-1]
                    for subject, payload in zip(delivery.subjects, delivery.payloads, strict=True):
                        assert subject.startswith(b"fix.%d." % partition)
                        if not subject.endswith(b".tick"):
                            device = subject.rsplit(b".")[-1].decode()
                            found.setdefault(device, []).append(json.loads(payload)["acc"])
            await reader.leave(partition)
    return found


async def back(broker: Broker, restarts: int) -> Client:
    """A client of the broker after `restarts` restarts."""
    await until(lambda: broker.restarts >= restarts, f"{restarts} restarts")

    async def connected() -> Client | None:
        with contextlib.suppress(OSError, LogError, nats.errors.Error, TimeoutError):
            client = await internal_client(broker, allow_reconnect=False)
            try:
                await request(Connection(client), f"STREAM.INFO.FIX_{PARTITIONS - 1}")
            except BaseException:
                await client.close()
                raise
            return client
        return None

    found: Client = await until(connected, "the broker's log", every_s=0.1)
    return found


def kill(broker: Broker) -> None:
    """Kill the NATS server."""
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGKILL)


async def test_what_was_acknowledged_is_in_the_log_after_a_kill(tmp_path: Path) -> None:
    """After kills at random moments under load every acknowledged fix is there, once and in order."""
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)

    async def check(pool: concurrent.futures.Executor) -> None:
        loop = asyncio.get_running_loop()
        async with open_broker(tmp_path, partitions=PARTITIONS) as broker:
            port, acknowledged = broker.config.mqtt_port, {}
            for life in range(2):
                # Others flood the same partitions without waiting for anything: queues are long.
                names = [f"q{life}-{c}" for c in range(3)] + [f"f{life}-{c}" for c in range(2)]
                jobs = {
                    name: loop.run_in_executor(
                        pool, send, port, name, name[0] == "q", numbered(name), time.time() + 20
                    )
                    for name in names
                }
                await asyncio.sleep(rng.uniform(0.3, 1.0))  # a kill at a random moment
                kill(broker)
                for name, job in jobs.items():
                    acked = await job
                    if name[0] == "q":
                        acknowledged[name] = acked
                client = await back(broker, life + 1)
                found = await fixes(broker, client)
                await client.close()
                for name, acked in acknowledged.items():
                    numbers = found.get(name, [])
                    assert numbers == list(range(len(numbers))), name
                    assert len(numbers) >= acked, name
            print(acknowledged)
            assert sum(acknowledged.values()) > 0

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        await check(pool)


async def test_it_is_counted_and_stored_though_broker_and_worker_are_killed(tmp_path: Path) -> None:
    """Devices whose only fix was acknowledged are all present, and once in the history, after both died."""
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    site = small_site()
    lat, lon = site.lat0_deg, site.lon0_deg

    def newcomer(number: int) -> tuple[str, bytes]:
        topic = FIX_TOPIC.format(site=site.id, kind="person", device=f"d{number}")
        return topic, encode_fix(round(time.time(), 3), lat, lon, acc=5)

    async def check(pool: concurrent.futures.Executor) -> None:
        async with open_broker(tmp_path, partitions=PARTITIONS) as broker:
            settings = settings_of(broker, tmp_path / "site.geojson")
            settings.site.write_text(json.dumps(site.geojson))
            async with worker(settings) as first:
                await asyncio.sleep(rng.uniform(1.0, 2.0))  # moments at random
                port, until_s = broker.config.mqtt_port, time.time() + 20
                sending = asyncio.get_running_loop().run_in_executor(
                    pool, send, port, "gate", 1, newcomer, until_s
                )
                await asyncio.sleep(rng.uniform(0.2, 0.6))
                kill(broker)
                first.kill()
                acknowledged = await sending
            client = await back(broker, 1)
            newest: dict[int, int] = {}

            async def on_message(message: Msg) -> None:
                for counts in decode_counts(message.data):
                    values = np.frombuffer(counts.values, "<i4").reshape(-1, 2, 4)
                    newest[counts.partition] = int(values[0, 0, 0])

            await client.subscribe("count.*.*", cb=on_message)
            there = sum(map(len, (await fixes(broker, client)).values()))
            print(acknowledged, "acknowledged,", there, "in the log")
            assert there >= acknowledged > 0
            async with worker(settings):
                await until(lambda: sum(newest.values()) >= there, "all are counted")
                assert sum(newest.values()) == there

                async def are_stored() -> bool:
                    return len(await history_rows(client)) >= there

                await until(are_stored, "all are in the history", every_s=0.2)
                rows = await history_rows(client)
            assert len({(p, seq) for p, seq, _ in rows}) == len({device for _, _, device in rows}) == there
            await client.close()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        await check(pool)


def settings_of(broker: Broker, site: Path) -> Settings:
    """The settings with which a role finds a broker of these tests."""
    config = broker.config
    (config.data / "secret").write_text(config.password)
    return Settings(
        site,
        config.data,
        mqtt_port=config.mqtt_port,
        ws_port=config.ws_port,
        nats_port=config.nats_port,
        partitions=config.partitions,
        open=True,
    )


@contextlib.asynccontextmanager
async def worker(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    """A counting worker in a process of its own."""
    command = [sys.executable, "-m", "headcount", "run", "count"]
    process = await asyncio.create_subprocess_exec(*command, env=settings.environment())
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def history_rows(client: Client) -> list[tuple[int, int, str]]:
    """Partition, sequence and pseudonym of every row that was handed to the history."""
    rows = []
    state = (await request(Connection(client), f"STREAM.INFO.{HISTORY_STREAM}"))["state"]
    for seq in range(max(state["first_seq"], 1), state["last_seq"] + 1):
        message = await client.jetstream().get_msg(HISTORY_STREAM, seq)
        batch = msgspec.msgpack.decode(message.data or b"", type=HistoryBatch)
        if batch.fixes is not None:
            names = batch.fixes.device
            devices = [names[at : at + PSEUDONYM_BYTES].hex() for at in range(0, len(names), PSEUDONYM_BYTES)]
            for fix, device in zip(np.frombuffer(batch.fixes.seq, "<i8").tolist(), devices, strict=True):
                rows.append((batch.partition, fix, device))
    return rows


async def test_each_message_is_read_once(tmp_path: Path) -> None:
    """Whatever its quality of service, and from a role of ours, a fix comes out of the log once, in order."""
    async with open_broker(tmp_path, partitions=PARTITIONS) as broker:
        client = await internal_client(broker)
        with connected(broker.config.mqtt_port, "phone") as phone:
            for number in range(300):
                topic, body = numbered("d")(number)
                phone.sendall(packet(topic, body, number % 2 and number))
                if number % 2:
                    assert phone.recv(4) == b"\x40\x02" + struct.pack(">H", number)
            phone.sendall(b"\xc0\x00")  # PINGREQ: what was sent has been read when it is answered
            assert phone.recv(2) == b"\xd0\x00"
        await client.jetstream().publish("headcount.ul.person.d.fix", numbered("d")(300)[1])
        assert await fixes(broker, client) == {"d": list(range(301))}
        await client.close()


def refused(port: int, number: int) -> bool:
    """Whether the broker ends a connection instead of acknowledging a fix."""
    with connected(port, f"phone{number}") as phone:
        topic, body = numbered("d")(number)
        phone.sendall(packet(topic, body, 1))
        try:
            return phone.recv(4) == b""
        except ConnectionError:
            return True


async def test_what_the_log_does_not_take_is_not_acknowledged(tmp_path: Path) -> None:
    """While a partition's stream refuses messages their senders are cut off; afterwards they are taken."""
    async with open_broker(tmp_path, partitions=1) as broker:
        client = await internal_client(broker)
        port = broker.config.mqtt_port
        assert not await asyncio.to_thread(refused, port, 0)
        config = (await request(Connection(client), "STREAM.INFO.FIX_0"))["config"]
        await request(Connection(client), "STREAM.UPDATE.FIX_0", config | {"discard": "new", "max_msgs": 2})
        assert await asyncio.to_thread(refused, port, 1)
        await request(Connection(client), "STREAM.UPDATE.FIX_0", config)
        assert not await asyncio.to_thread(refused, port, 2)
        await client.close()


async def test_nothing_is_acknowledged_before_the_log_exists(tmp_path: Path) -> None:
    """A device that tries to get in while a new folder is made gets no PUBACK for what isn't kept."""
    config = config_for(tmp_path, partitions=PARTITIONS)
    end = threading.Event()
    acknowledged: list[int] = []

    def knock() -> None:
        number = 0
        while not end.is_set():
            with contextlib.suppress(OSError):
                if not refused(config.mqtt_port, number):
                    acknowledged.append(number)
                number += 1

    device = asyncio.create_task(asyncio.to_thread(knock))
    try:
        async with Broker(config) as broker:
            await until(lambda: acknowledged, "a message is acknowledged")
            end.set()
            await device
            client = await internal_client(broker)
            found = await fixes(broker, client)
            await client.close()
    finally:
        end.set()
    assert acknowledged
    assert set(acknowledged) <= set(found["d"])


async def test_a_full_disk_is_not_acknowledged(tmp_path: Path) -> None:
    """A message sent while the disk fills up is either stored or not acknowledged."""

    async def check(pool: concurrent.futures.Executor, disk: Path) -> None:
        async with Broker(config_for(disk, partitions=PARTITIONS), check_every_s=0.2) as broker:
            job = asyncio.get_running_loop().run_in_executor(
                pool, send, broker.config.mqtt_port, "phone", 1, numbered("d"), time.time() + 10
            )
            await asyncio.sleep(0.3)  # the disk fills up in the middle
            fill(disk)
            acknowledged = await job
            release(disk)
            client = await back(broker, 1)
            found = await fixes(broker, client)
            await client.close()
            print(acknowledged, len(found["d"]))
            assert acknowledged > 0
            assert set(range(acknowledged)) <= set(found["d"])

    with small_disk(tmp_path / "disk", 200 << 20) as no_disk:
        if no_disk:
            pytest.skip(no_disk)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            await check(pool, tmp_path / "disk")
