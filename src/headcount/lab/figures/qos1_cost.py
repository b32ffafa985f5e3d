"""Cost and durability of PUBACKs: throughput and losses of variants that store acknowledged fixes.

Variants, each a set of streams on the same broker:
- plain    FIX_<p> stores fixes as they are delivered; at a PUBACK only $MQTT_msgs has stored its own copy
- acked    FIX_<p> also stores what the server stores before each PUBACK (as headcount does)
- sourced  plain, and FIX_<p> copies from $MQTT_msgs over a durable consumer
- safe     plain, and one stream SAFE copies all fixes from $MQTT_msgs, for comparison after a crash

For each: messages/s at QoS 0 and QoS 1, CPU seconds of the server per million messages, copies in FIX_<p> per
message, and the number of acknowledged fixes lost after kills (-9) at random times during QoS 0 traffic.
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
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from headcount.broker.core import Broker
from headcount.errors import LogError
from headcount.lab.figures.bench_broker import PARTITIONS, bench_broker, endpoint_of
from headcount.messages.topics import FOREIGN_SUBJECTS
from headcount.messaging.connection import Connection, connected_once
from headcount.runtime.proc import cpu_s_of

VARIANTS = ("plain", "acked", "sourced", "safe")
#: Unacknowledged QoS 1 messages per connection.
WINDOW = 1_000
BLOCK = 500
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
    """Send as fast as the broker accepts; return the number of sent and acknowledged messages."""
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
        sock.sendall(b"\xc0\x00")  # PINGREQ: its response confirms everything before it
        sock.recv(2)
    return sent, acked


async def jetstream(connection: Connection, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send a request to JetStream's API."""
    payload = b"" if body is None else msgspec.json.encode(body)
    answer: dict[str, Any] = msgspec.json.decode(
        await connection.request(f"$JS.API.{call}", payload, timeout_s=10)
    )
    if "error" in answer:
        raise RuntimeError(f"{call}: {answer['error']}")
    return answer


async def change(connection: Connection, name: str, **fields: Any) -> None:
    """Change a stream's configuration."""
    config = (await jetstream(connection, f"STREAM.INFO.{name}"))["config"]
    await jetstream(connection, f"STREAM.UPDATE.{name}", config | fields)


async def durable(connection: Connection, name: str, subject: str) -> dict[str, Any]:
    """Create a durable consumer of $MQTT_msgs for a source."""
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
    await jetstream(connection, f"CONSUMER.DURABLE.CREATE.$MQTT_msgs.{name}", body)
    return {"name": "$MQTT_msgs", "consumer": {"name": name, "deliver_subject": deliver}}


async def configure(connection: Connection, variant: str) -> None:
    """Configure the streams of a variant."""
    if variant == "acked":
        return
    for p in range(PARTITIONS):
        await change(connection, f"FIX_{p}", subjects=[f"fix.{p}.>"])
    await change(connection, "FOREIGN", subjects=list(FOREIGN_SUBJECTS))
    await change(connection, "$MQTT_msgs", subjects=["$MQTT.msgs.>"])
    if variant == "sourced":
        for p in range(PARTITIONS):
            source = await durable(connection, f"FIX_{p}", f"$MQTT.msgs.fix.{p}.>")
            await change(connection, f"FIX_{p}", sources=[source])
    elif variant == "safe":
        source = await durable(connection, "SAFE", "$MQTT.msgs.fix.>")
        safe = {"name": "SAFE", "sources": [source], "storage": "file", "max_bytes": 256 << 20}
        await jetstream(connection, "STREAM.CREATE.SAFE", safe)


async def stored(connection: Connection, device: str, name: str = "FIX_*") -> dict[str, int]:
    """Subject → number of messages of a device in the log."""
    found: dict[str, int] = {}
    streams = [f"FIX_{p}" for p in range(PARTITIONS)] if name == "FIX_*" else [name]
    for stream in streams:
        answer = await jetstream(connection, f"STREAM.INFO.{stream}", {"subjects_filter": ">"})
        found |= {s: n for s, n in (answer["state"].get("subjects") or {}).items() if f".{device}" in s}
    return found


@contextlib.asynccontextmanager
async def broker() -> AsyncIterator[Broker]:
    """A broker in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        async with bench_broker(Path(folder)) as server:
            yield server


async def speed(variant: str, qos: int, messages: int, pool: concurrent.futures.Executor) -> str:
    """Measure messages per second over 4 connections."""
    async with broker() as server, connected_once(endpoint_of(server.config), "benchmark") as connection:
        await configure(connection, variant)
        pid, loop = server.pid, asyncio.get_running_loop()
        assert pid is not None
        used = cpu_s_of(pid)
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
        used = cpu_s_of(pid) - used
        held = 0
        for c in range(4):
            held += sum((await stored(connection, f"d{c}")).values())
        size = sum(
            [
                (await jetstream(connection, f"STREAM.INFO.FIX_{p}"))["state"]["bytes"]
                for p in range(PARTITIONS)
            ]
        )
    return (
        f"{variant:8} QoS {qos}: {sent / took:9,.0f} messages/s, {used / sent * 1e6:5.1f} CPU s per million, "
        f"{held / sent:.2f} copies each, {size / sent:.0f} bytes"
    )


async def losses(
    variant: str, rounds: int, flood: bool, rng: random.Random, pool: concurrent.futures.Executor
) -> str:
    """Measure the acknowledged fixes that are lost after kills."""
    acknowledged = lost = bad = 0
    for _ in range(rounds):
        async with broker() as server:
            async with connected_once(endpoint_of(server.config), "benchmark") as connection:
                await configure(connection, variant)
            pid, loop = server.pid, asyncio.get_running_loop()
            assert pid is not None
            port, end = server.config.mqtt_port, time.time() + 20
            senders = [loop.run_in_executor(pool, send, port, f"d{c}", 10**9, 1, end) for c in range(3)]
            if flood:
                senders.append(loop.run_in_executor(pool, send, port, "f0", 10**9, 0, end))
            await asyncio.sleep(rng.uniform(0.7, 2.0))
            os.kill(pid, signal.SIGKILL)
            counts = [acked for _, acked in await asyncio.gather(*senders)][:3]
            while True:
                try:
                    await asyncio.sleep(0.7)
                    async with connected_once(endpoint_of(server.config), "benchmark") as connection:
                        per = [await stored(connection, f"d{c}") for c in range(3)]
                except (RuntimeError, LogError):  # the server is starting
                    await asyncio.sleep(0.2)
                else:
                    break
            acknowledged += sum(counts)
            missing = 0
            for found, acked in zip(per, counts, strict=True):
                copies = [n for s, n in found.items() if s.startswith("$MQTT") == (variant == "acked")]
                missing += max(0, acked - sum(copies))
            lost += missing
            bad += missing > 0
    what = "QoS 1 during QoS 0 traffic" if flood else "QoS 1 alone"
    return (
        f"{variant:8} {what}, {rounds} kills: {acknowledged:,} acknowledged, {lost:,} of them lost, "
        f"in {bad} of the kills"
    )


async def measure(options: argparse.Namespace) -> None:
    """Measure the chosen variants."""
    print(f"seed {options.seed}")
    rng = random.Random(options.seed)
    with concurrent.futures.ProcessPoolExecutor(4) as pool:
        for variant in options.variants:
            for qos in (0, 1) if options.messages else ():
                print(await speed(variant, qos, options.messages // (1, 4)[qos], pool), flush=True)
            if options.kills and variant in {"plain", "acked"}:
                for flood in (False, True):
                    print(await losses(variant, options.kills, flood, rng, pool), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "variants", nargs="*", default=VARIANTS, help=f"which: {', '.join(VARIANTS)}; default all"
    )
    parser.add_argument("--messages", type=int, default=1_000_000, help="of QoS 0; of QoS 1 a quarter")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
