"""What a PUBACK is worth, and what it costs: throughput and losses of ways to keep acknowledged fixes.

The ways, each a set of streams on the same broker:
- plain    FIX_<p> hears the fixes as they are delivered; a PUBACK says that $MQTT_msgs has its own copy
- acked    FIX_<p> also takes what the server stores before each PUBACK (what headcount does)
- sourced  plain, and FIX_<p> copies from $MQTT_msgs over a durable consumer
- safe     plain, and one stream SAFE copies all fixes from $MQTT_msgs, to be compared after a crash

For each: messages/s at QoS 0 and QoS 1, processor seconds of the server a million messages, what stands
in FIX_<p> for each message sent, and how many acknowledged fixes are gone after kills (-9) at random
moments while others send at QoS 0.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import contextlib
import os
import random
import signal
import socket
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import nats
import nats.errors
import psutil
from nats.aio.client import Client

from headcount.broker.core import Broker
from headcount.broker.nats_config import INTERNAL, BrokerConfig
from headcount.messages.topics import FOREIGN_SUBJECTS

PASSWORD = "only for this benchmark"  # noqa: S105
WAYS = ("plain", "acked", "sourced", "safe")
#: Messages that a connection has under way at QoS 1.
WINDOW = 1_000
BLOCK = 500
PARTITIONS = 4
SITE = "bench"


def packets(device: str, block: int, qos: int) -> bytes:
    """BLOCK MQTT 3.1.1 PUBLISH packets with fixes of one device; packet identifiers differ between blocks."""
    topic = f"headcount/{SITE}/person/{device}/fix".encode()
    head = struct.pack(">H", len(topic)) + topic
    parts = []
    for number in range(block * BLOCK + 1, (block + 1) * BLOCK + 1):
        body = b'{"_type":"location","tst":1800000000.%03d,"lat":52.673642,"lon":-8.568123,"acc":5}' % (
            number % 1000
        )
        ident = struct.pack(">H", number) if qos else b""
        size = len(head) + len(ident) + len(body)
        parts.append(
            (b"\x32" if qos else b"\x30") + bytes([size % 128 | 128, size // 128]) + head + ident + body
        )
    return b"".join(parts)


def send(port: int, device: str, messages: int, qos: int, until_s: float) -> tuple[int, int]:
    """Send as fast as the broker takes it, until it breaks; how many were sent, and acknowledged."""
    sent = acked = got = 0
    blocks = [packets(device, block, qos) for block in (0, 1, 2)]
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        ident = device.encode()
        body = b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack(">H", len(ident)) + ident
        sock.sendall(bytes([0x10, len(body)]) + body)
        sock.recv(4)
        while sent < messages and time.time() < until_s:
            sock.sendall(blocks[sent // BLOCK % 3])
            sent += BLOCK
            while qos and sent - acked > (WINDOW - BLOCK if sent < messages else 0):
                if not (more := len(sock.recv(65536))):
                    raise ConnectionResetError
                got += more
                acked = got // 4
        sock.sendall(b"\xc0\x00")  # PINGREQ: when it is answered, everything before it has been read
        sock.recv(2)
    return sent, acked


async def ask(client: Client, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request of JetStream's API."""
    payload = b"" if body is None else msgspec.json.encode(body)
    answer: dict[str, Any] = msgspec.json.decode(
        (await client.request(f"$JS.API.{call}", payload, timeout=10)).data
    )
    if "error" in answer:
        raise RuntimeError(f"{call}: {answer['error']}")
    return answer


async def change(client: Client, name: str, **fields: Any) -> None:
    """Change a stream's configuration."""
    config = (await ask(client, f"STREAM.INFO.{name}"))["config"]
    await ask(client, f"STREAM.UPDATE.{name}", config | fields)


async def durable(client: Client, name: str, subject: str) -> dict[str, Any]:
    """A durable consumer of $MQTT_msgs that a source can use."""
    deliver = f"_deliver.{name}"
    config = {
        "durable_name": name,
        "name": name,
        "deliver_subject": deliver,
        "filter_subject": subject,
        "ack_policy": "flow_control",
        "max_ack_pending": 20_000,
        "flow_control": True,
        "idle_heartbeat": 1_000_000_000,
    }
    body = {"stream_name": "$MQTT_msgs", "config": config}
    await ask(client, f"CONSUMER.DURABLE.CREATE.$MQTT_msgs.{name}", body)
    return {"name": "$MQTT_msgs", "consumer": {"name": name, "deliver_subject": deliver}}


async def arrange(client: Client, way: str) -> None:
    """Make the streams stand as a way needs them."""
    if way == "acked":
        return
    for p in range(PARTITIONS):
        await change(client, f"FIX_{p}", subjects=[f"fix.{p}.>"])
    await change(client, "FOREIGN", subjects=list(FOREIGN_SUBJECTS))
    await change(client, "$MQTT_msgs", subjects=["$MQTT.msgs.>"])
    if way == "sourced":
        for p in range(PARTITIONS):
            source = await durable(client, f"FIX_{p}", f"$MQTT.msgs.fix.{p}.>")
            await change(client, f"FIX_{p}", sources=[source])
    elif way == "safe":
        source = await durable(client, "SAFE", "$MQTT.msgs.fix.>")
        safe = {"name": "SAFE", "sources": [source], "storage": "file", "max_bytes": 256 << 20}
        await ask(client, "STREAM.CREATE.SAFE", safe)


async def stored(client: Client, device: str, name: str = "FIX_*") -> dict[str, int]:
    """Subject → how many messages of a device the log holds."""
    found: dict[str, int] = {}
    streams = [f"FIX_{p}" for p in range(PARTITIONS)] if name == "FIX_*" else [name]
    for stream in streams:
        answer = await ask(client, f"STREAM.INFO.{stream}", {"subjects_filter": ">"})
        found |= {s: n for s, n in (answer["state"].get("subjects") or {}).items() if f".{device}" in s}
    return found


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nobody listens now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.asynccontextmanager
async def broker() -> Any:
    """A broker on free ports in a temporary folder."""
    mqtt, ws, port = free_ports(3)
    with tempfile.TemporaryDirectory() as folder:
        config = BrokerConfig(
            anonymous=True,
            data=Path(folder),
            password=PASSWORD,
            mqtt_port=mqtt,
            ws_port=ws,
            nats_port=port,
            partitions=PARTITIONS,
        )
        async with Broker(config, check_every_s=60) as server:
            yield server


async def connect(server: Broker) -> Client:
    """A client with all rights."""

    async def ignore(_error: Exception) -> None:
        """Whoever asked gets the error as an exception."""

    options = {"user": INTERNAL, "password": PASSWORD, "allow_reconnect": False, "error_cb": ignore}
    return await nats.connect(server.url, **options)


def processor_s(pid: int) -> float:
    """Processor seconds that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def speed(way: str, qos: int, messages: int, pool: concurrent.futures.Executor) -> str:
    """Messages a second from 4 connections, until the log has them."""
    async with broker() as server:
        client = await connect(server)
        await arrange(client, way)
        pid, loop = server.pid, asyncio.get_running_loop()
        assert pid is not None
        used = processor_s(pid)
        began = time.perf_counter()
        jobs = [
            loop.run_in_executor(
                pool, send, server.config.mqtt_port, f"d{c}", messages // 4, qos, time.time() + 60
            )
            for c in range(4)
        ]
        sent = sum(s for s, _ in await asyncio.gather(*jobs))
        took = time.perf_counter() - began
        await asyncio.sleep(1)
        used = processor_s(pid) - used
        held = 0
        for c in range(4):
            held += sum((await stored(client, f"d{c}")).values())
        size = sum([(await ask(client, f"STREAM.INFO.FIX_{p}"))["state"]["bytes"] for p in range(PARTITIONS)])
        await client.close()
    return (
        f"{way:8} QoS {qos}: {sent / took:9,.0f} messages/s, {used / sent * 1e6:5.1f} s a million, "
        f"{held / sent:.2f} stored of each, {size / sent:.0f} bytes"
    )


async def losses(
    way: str, rounds: int, flood: bool, rng: random.Random, pool: concurrent.futures.Executor
) -> str:
    """How many acknowledged fixes are gone after kills."""
    acknowledged = lost = bad = 0
    for _ in range(rounds):
        async with broker() as server:
            client = await connect(server)
            await arrange(client, way)
            pid, loop = server.pid, asyncio.get_running_loop()
            assert pid is not None
            port, end = server.config.mqtt_port, time.time() + 20
            sure = [loop.run_in_executor(pool, send, port, f"d{c}", 10**9, 1, end) for c in range(3)]
            if flood:
                sure.append(loop.run_in_executor(pool, send, port, "f0", 10**9, 0, end))
            await asyncio.sleep(rng.uniform(0.7, 2.0))
            await client.close()
            os.kill(pid, signal.SIGKILL)
            counts = [acked for _, acked in await asyncio.gather(*sure)][:3]
            while True:
                try:
                    await asyncio.sleep(0.7)
                    client = await connect(server)
                    per = [await stored(client, f"d{c}") for c in range(3)]
                except (OSError, RuntimeError, TimeoutError, nats.errors.Error):  # it is starting
                    await asyncio.sleep(0.2)
                else:
                    break
            await client.close()
            acknowledged += sum(counts)
            gone = 0
            for found, acked in zip(per, counts, strict=True):
                copies = [n for s, n in found.items() if s.startswith("$MQTT") == (way == "acked")]
                gone += max(0, acked - sum(copies))
            lost += gone
            bad += gone > 0
    what = "QoS 1 beside a flood of QoS 0" if flood else "QoS 1 alone"
    return (
        f"{way:8} {what}, {rounds} kills: {acknowledged:,} acknowledged, {lost:,} of them lost, "
        f"in {bad} of the kills"
    )


async def measure(options: argparse.Namespace) -> None:
    """Everything asked for."""
    print(f"seed {options.seed}")
    rng = random.Random(options.seed)
    with concurrent.futures.ProcessPoolExecutor(4) as pool:
        for way in options.ways:
            for qos in (0, 1) if options.messages else ():
                print(await speed(way, qos, options.messages // (1, 4)[qos], pool), flush=True)
            if options.kills and way in {"plain", "acked"}:
                for flood in (False, True):
                    print(await losses(way, options.kills, flood, rng, pool), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ways", nargs="*", default=WAYS, help=f"which: {', '.join(WAYS)}; default all")
    parser.add_argument("--messages", type=int, default=1_000_000, help="of QoS 0; of QoS 1 a quarter")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
