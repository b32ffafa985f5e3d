"""Throughput and latency from the broker to counts.

1. Fill the log with fixes of many devices.
2. Read them with the log reader alone; then decode and count them too (one process, one core).
3. Publish at a steady rate over MQTT, and measure the time from publish to count.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from headcount.broker.nats_config import BrokerConfig
from headcount.counting.site_versions import Sites, only
from headcount.devices.pseudonyms import Pseudonyms
from headcount.lab.figures.bench_broker import PASSWORD, bench_broker, endpoint_of
from headcount.lab.figures.bench_fixes import LAT0, LON0, campus
from headcount.messages.counts import decode_counts
from headcount.messages.topics import COUNT_SUBJECTS, INTERNAL
from headcount.messaging.connection import Connection, Endpoint, Message, connected
from headcount.messaging.jetstream import stream_info
from headcount.messaging.log_reader import open_reader
from headcount.messaging.mqtt_address import MqttAddress
from headcount.worker.counter import Counter
from headcount.worker.loops import WorkerSettings, run
from headcount.worker.partition import Partition
from headcount.worker.site_counter import BATCH_ROWS

ZONES = 100


@contextlib.asynccontextmanager
async def broker(partitions: int) -> AsyncIterator[tuple[BrokerConfig, Connection]]:
    """A broker in a temporary folder, and a connection with all rights."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            bench_broker(Path(folder), partitions=partitions) as server,
            connected(endpoint_of(server.config), "pipeline benchmark") as connection,
        ):
            yield server.config, connection


async def fill(
    config: BrokerConfig,
    connection: Connection,
    site: str,
    fixes: int,
    devices: int,
    rng: np.random.Generator,
) -> int:
    """Publish fixes of walking people over MQTT at QoS 0; return the number of stored ones."""
    lat = LAT0 + rng.uniform(-0.006, 0.006, devices)
    lon = LON0 + rng.uniform(-0.01, 0.01, devices)
    _, writer = await _mqtt(config, b"fill01")
    for start in range(0, fixes, 5_000):
        moved = rng.integers(0, devices, 5_000)
        lat[moved] += rng.normal(0, 3e-5, 5_000)
        lon[moved] += rng.normal(0, 5e-5, 5_000)
        now = time.time()
        batch = []
        for row, device in enumerate(moved.tolist()):
            body = b'{"_type":"location","tst":%.3f,"lat":%.6f,"lon":%.6f,"acc":%d}' % (
                now + row * 1e-6,
                lat[device],
                lon[device],
                5 + device % 10,
            )
            batch.append(_packet(b"headcount/%s/person/d%d/fix" % (site.encode(), device), body))
        writer.write(b"".join(batch))
        await writer.drain()
        if start % 200_000 == 0:
            print(f"\rfilling the log: {start:,} of {fixes:,}", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    stored = -1
    while stored != (stored := await _stored(connection, config.partitions)):  # noqa: ASYNC110 - the server doesn't notify
        await asyncio.sleep(1)
    writer.close()
    return stored


async def _stored(connection: Connection, partitions: int) -> int:
    infos = [await stream_info(connection, f"FIX_{number}", timeout_s=20) for number in range(partitions)]
    return sum(info.state.messages for info in infos)


async def _mqtt(config: BrokerConfig, name: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An MQTT 3.1.1 connection; `name` has six characters."""
    reader, writer = await asyncio.open_connection("127.0.0.1", config.mqtt_port)
    writer.write(b"\x10\x12\x00\x04MQTT\x04\x02\x00\x3c\x00\x06" + name)
    await reader.readexactly(4)
    return reader, writer


class StageTimer:
    """Wall time and CPU time of this process since the start; CPU time is more reliable on a busy machine."""

    def __init__(self) -> None:
        """Start."""
        self._began = time.perf_counter(), time.process_time()

    def rates(self, done: int) -> tuple[float, float]:
        """Results per second and per CPU second."""
        wall, cpu = self._began
        return done / (time.perf_counter() - wall), done / (time.process_time() - cpu)


async def read_only(
    endpoint: Endpoint, connection: Connection, partitions: int, fixes: int
) -> tuple[float, float]:
    """Messages per second and CPU second of the log reader alone."""
    async with open_reader(endpoint, connection) as reader:
        for partition in range(partitions):
            await reader.follow(partition, 0)
        timer, read = StageTimer(), 0
        while read < fixes:
            for delivery in await reader.read():
                read += len(delivery.payloads)
        return timer.rates(read)


async def nats_py(connection: Connection, fixes: int, seconds: float) -> float:
    """Messages per second of a subscriber with nats-py to one partition's stream."""
    seen = 0
    done = asyncio.Event()

    async def receive(_: Message) -> None:
        nonlocal seen
        seen += 1
        if seen >= fixes:
            done.set()

    subscription = await connection.client.jetstream().subscribe(
        "fix.0.>", stream="FIX_0", ordered_consumer=True, cb=receive
    )
    began = time.perf_counter()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), seconds)
    rate = seen / (time.perf_counter() - began)
    await subscription.unsubscribe()
    return rate


async def counting(
    endpoint: Endpoint, connection: Connection, partitions: int, fixes: int, seed: int
) -> tuple[float, float]:
    """Fixes per second and CPU second from the log to counts and history rows.

    Measured over the second half: in the first, every device is new.
    """
    site = campus(ZONES, seed)
    counter = Counter(Sites([only(site)]), Pseudonyms({}), partitions)
    parts = [counter.partition(number, 1) for number in range(partitions)]
    async with open_reader(endpoint, connection) as reader:
        for partition in parts:
            await reader.follow(partition.number, 0)
        timer, read, warm, published = StageTimer(), 0, 0, time.perf_counter()
        while read < fixes:
            for delivery in await reader.read():
                read += len(delivery.payloads)
                part = parts[delivery.partition]
                part.take(delivery)
                if part.waiting_rows >= BATCH_ROWS:
                    publish = time.perf_counter() - published > 0.5
                    published = time.perf_counter() if publish else published
                    counter.work([part], publish=publish)
                    part.history()
            if not warm and read >= fixes // 2:
                _finish(counter, parts)
                timer, warm = StageTimer(), read
        _finish(counter, parts)
        return timer.rates(read - warm)


def _finish(counter: Counter, parts: list[Partition]) -> None:
    """Count rows that wait for a full batch, so that each fix read is measured exactly once."""
    for part in parts:
        counter.work([part], publish=False)
        part.history()


def _packet(topic: bytes, body: bytes) -> bytes:
    """An MQTT 3.1.1 PUBLISH of QoS 0."""
    length = 2 + len(topic) + len(body)
    size = bytes([length]) if length < 128 else bytes([length % 128 | 128, length // 128])
    return b"\x30" + size + struct.pack(">H", len(topic)) + topic + body


async def latency(
    config: BrokerConfig, connection: Connection, rate: int, seconds: int, seed: int
) -> tuple[float, float, float]:
    """Publish → count latency in seconds, p50 and p99, and the achieved rate, in the running system.

    Each device enters the site once, so the total is the number of counted fixes.
    """
    site = campus(ZONES, seed)
    settings = WorkerSettings(
        site,
        endpoint_of(config),
        [MqttAddress("127.0.0.1", config.mqtt_port, INTERNAL, PASSWORD)],
        config.partitions,
    )
    stop = asyncio.Event()
    worker = asyncio.create_task(run(settings, stop))
    received: list[tuple[float, int, int]] = []  # time, partition, devices on site

    async def receive_counts(message: Message) -> None:
        for counts in decode_counts(message.data):
            values = np.frombuffer(counts.values, "<i4").reshape(-1, 2, 4)
            received.append((time.time(), counts.partition, int(values[0, 0, 0])))

    await connection.subscribe(COUNT_SUBJECTS, receive_counts)
    await asyncio.sleep(2)
    _, writer = await _mqtt(config, b"bench1")
    sent: list[float] = []
    began, number = time.time(), 0
    while (now := time.time()) < began + seconds:
        due = int((now - began) * rate)
        batch = []
        for device in range(number, due):
            body = b'{"tst":%.3f,"lat":%.6f,"lon":%.6f,"acc":8}' % (now, LAT0, LON0)
            batch.append(_packet(b"headcount/campus/person/d%d/fix" % device, body))
            sent.append(now)
        number = due
        writer.write(b"".join(batch))
        await writer.drain()
        await asyncio.sleep(0.002)
    await asyncio.sleep(1.5)
    writer.close()
    stop.set()
    await worker
    newest: dict[int, int] = {}
    delays: list[float] = []
    counted = 0
    for when, partition, count in received:
        counted += count - newest.get(partition, 0)
        newest[partition] = count
        # fixes are counted in the order in which they were sent
        while len(delays) < min(counted, len(sent)):
            delays.append(when - sent[len(delays)])
    if len(delays) < len(sent):
        raise SystemExit(f"only {len(delays)} of {len(sent)} fixes were counted")
    return float(np.percentile(delays, 50)), float(np.percentile(delays, 99)), len(sent) / seconds


async def measure(options: argparse.Namespace) -> None:
    """Measure throughput and latency, each with a new broker."""
    rng = np.random.default_rng(options.seed)
    async with broker(options.partitions) as (config, connection):
        endpoint = endpoint_of(config)
        site = campus(ZONES, options.seed)
        options.fixes = await fill(config, connection, site.id, options.fixes, options.devices, rng)
        ratios = []
        for _ in range(options.repeat):
            alone = await read_only(endpoint, connection, options.partitions, options.fixes)
            counted = await counting(endpoint, connection, options.partitions, options.fixes, options.seed)
            ratios.append([counting_ / reader for counting_, reader in zip(counted, alone, strict=True)])
            for what, reads, counts, ratio in zip(("", "CPU "), alone, counted, ratios[-1], strict=True):
                print(f"reads {reads:>9,.0f}/{what}s   counts {counts:>9,.0f}/{what}s   ratio {ratio:.2f}")
        wall, cpu = np.median(ratios, axis=0)
        print(f"median ratio {wall:.2f}, of CPU time {cpu:.2f}")
        ordinary = await nats_py(connection, options.fixes // options.partitions, 5.0)
        print(f"a subscriber with nats-py to one partition reads {ordinary:,.0f}/s")
    async with broker(options.partitions) as (config, connection):
        p50, p99, rate = await latency(config, connection, options.rate, options.seconds, options.seed)
        print(f"publish → count at {rate:,.0f} fixes/s: p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fixes", type=int, default=2_000_000)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(
        f"pipeline: {options.fixes:,} fixes of {options.devices:,} devices, {ZONES} zones, seed {options.seed}"
    )
    print(json.dumps(vars(options)))
    gc.set_threshold(200_000, 20, 100)  # as the role `count` has it
    asyncio.run(measure(options))


if __name__ == "__main__":
    main()
