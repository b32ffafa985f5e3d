"""A cluster for a test: a core of one or three real nodes, broker units, workers; all in this process.

async with open_core(tmp_path, nodes=3) as core:
    async with open_unit(tmp_path, core, "b1") as unit:     # a leaf with its agent
        async with counting(core):                          # a worker
            ...
            await core.kill(0)                              # as a machine that loses power
            await core.restart(0)
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import struct
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import numpy as np
from nats.aio.client import Client
from nats.aio.msg import Msg

from headcount.broker import agent
from headcount.broker.core import Broker
from headcount.broker.nats_config import BrokerConfig
from headcount.counting.site import Site
from headcount.counting.totals import Totals
from headcount.messages.counts import decode_counts
from headcount.messages.fixes import encode_fix
from headcount.messages.topics import FIX_TOPIC, INTERNAL, TICK_SUBJECT
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.log_reader import open_reader
from headcount.messaging.mqtt_address import MqttAddress
from headcount.runtime.ports import free_ports
from headcount.worker.loops import WorkerSettings, run
from nats_fixture import PASSWORD
from small_site import small_site
from waiting import until

PARTITIONS = 4
LOOPBACK = "127.0.0.1"


@dataclass
class Core:
    """The nodes of a core; `brokers[i]` is None while it is dead."""

    configs: list[BrokerConfig]
    brokers: list[Broker | None]

    @property
    def endpoint(self) -> Endpoint:
        """Where our roles find it."""
        addresses = tuple((LOOPBACK, config.nats_port) for config in self.configs)
        return Endpoint(addresses, INTERNAL, PASSWORD)

    @property
    def leaf_addresses(self) -> tuple[tuple[str, int], ...]:
        """Where brokers find it."""
        return tuple((LOOPBACK, config.leaf_port or 0) for config in self.configs)

    @property
    def broker(self) -> Broker:
        """The only node."""
        broker = self.brokers[0]
        assert broker is not None
        return broker

    async def client(self) -> Client:
        """A NATS client with all rights that finds another node when its own dies; close it yourself."""
        return await nats.connect(
            self.endpoint.urls,
            user=INTERNAL,
            password=PASSWORD,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,
            error_cb=_ignore,
        )

    async def kill(self, node: int) -> None:
        """Kill a node's server, and don't start it again."""
        broker = self.brokers[node]
        assert broker is not None
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        self.brokers[node] = None
        await broker.__aexit__(None, None, None)

    async def restart(self, node: int) -> None:
        """Start a node that was killed; it is back with the others when this returns."""
        broker = Broker(self.configs[node])
        await broker.__aenter__()
        self.brokers[node] = broker


async def _ignore(_: Exception) -> None:
    """Nodes are killed on purpose."""


@contextlib.asynccontextmanager
async def open_core(folder: Path, nodes: int = 1, **changes: Any) -> AsyncIterator[Core]:
    """A core that lets in no devices; `changes` go into each node's `BrokerConfig`."""
    cluster = free_ports(nodes)
    configs = []
    for node in range(nodes):
        mqtt, ws, port, leaf = free_ports(4)
        options: dict[str, Any] = {
            "data": folder / f"core-{node}",
            "password": PASSWORD,
            "mqtt_port": mqtt,
            "ws_port": ws,
            "nats_port": port,
            "leaf_port": leaf,
            "partitions": PARTITIONS,
            "devices": False,
            "anonymous": True,
        }
        if nodes > 1:
            options |= {
                "cluster_port": cluster[node],
                "peers": tuple((LOOPBACK, port) for port in cluster),
                "replicas": nodes,
                "server_name": f"core-{node}",
            }
        configs.append(BrokerConfig(**(options | changes)))
    core = Core(configs, [None] * nodes)
    try:
        await asyncio.gather(*map(core.restart, range(nodes)))
        yield core
    finally:
        for broker in core.brokers:
            if broker is not None:
                await broker.__aexit__(None, None, None)


@dataclass
class Unit:
    """A broker unit; `stop.set()` is its SIGTERM."""

    settings: agent.AgentSettings
    task: asyncio.Task[None]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    devices: list[Device] = field(default_factory=list)

    async def device(self, name: str) -> Device:
        """A connected device; it hangs up with the unit."""
        device = Device(name)
        self.devices.append(device)
        await device.connect(self.port)
        return device

    @property
    def port(self) -> int:
        """Where devices connect."""
        return self.settings.config.mqtt_port

    @property
    def pid(self) -> int:
        """Of its server."""
        return int((self.settings.config.data / "broker.pid").read_text())

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of its own HTTP; (0, "") while it doesn't answer."""
        return await asyncio.to_thread(_get, f"http://{LOOPBACK}:{self.settings.health_port}{path}")

    async def health(self) -> tuple[int, dict[str, Any]]:
        """The state that the balancer polls."""
        status, body = await self.get("/healthz")
        return status, json.loads(body or "{}")

    async def until_status(self, status: int) -> None:
        """Wait for a status of /healthz."""

        async def is_status() -> bool:
            return (await self.get("/healthz"))[0] == status

        await until(is_status, f"/healthz answers {status}")

    async def until_connections(self, number: int) -> None:
        """Wait until it counts this many devices; while its own probe comes or goes it may be one off."""

        async def is_number() -> bool:
            return (await self.health())[1].get("connections") == number

        await until(is_number, f"{number} connections")

    async def metric(self, name: str) -> float:
        """A number of /metrics."""
        _, text = await self.get("/metrics")
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - our own address
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


@contextlib.asynccontextmanager
async def open_unit(
    folder: Path, core: Core, name: str, drain_s: float = 1.0, health_port: int | None = None
) -> AsyncIterator[Unit]:
    """A broker unit, which may still be starting; at the end it has ended, drained or not."""
    mqtt, ws, port, health = free_ports(4)
    config = BrokerConfig(
        data=folder / name,
        password=PASSWORD,
        mqtt_port=mqtt,
        ws_port=ws,
        nats_port=port,
        partitions=PARTITIONS,
        hub=core.leaf_addresses,
        replicas=len(core.configs),
        server_name=name,
        anonymous=True,
    )
    settings = agent.AgentSettings(name, config, core.endpoint, LOOPBACK, health_port or health, drain_s)
    stop = asyncio.Event()
    unit = Unit(settings, asyncio.create_task(agent.run(settings, stop)), stop)
    try:
        yield unit
    finally:
        for device in unit.devices:
            device.close()
        if not unit.task.done():
            unit.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await unit.task


class Counting:
    """A worker, and a subscriber to its counts."""

    def __init__(self, site: Site) -> None:
        """Start without any counts."""
        self.site = site
        self.newest: dict[str, int] = {}
        self.at_s = 0.0  # of the newest total
        self._totals = Totals(PARTITIONS)

    async def receive(self, message: Msg) -> None:
        """Sum partitions' counts."""
        for counts in decode_counts(message.data):
            values = np.frombuffer(counts.values, dtype="<i4").reshape(-1, 2, 4)
            for total in self._totals.add(counts.partition, counts.epoch, counts.at, values):
                people = total.values[:, 0, 0].tolist()
                self.newest = dict(zip([zone.id for zone in self.site.zones], people, strict=True))
                self.at_s = total.at


@contextlib.asynccontextmanager
async def counting(core: Core) -> AsyncIterator[Counting]:
    """A worker that counts the small site, until the end of the block."""
    heard = Counting(small_site())
    mqtt = [MqttAddress(LOOPBACK, config.mqtt_port, INTERNAL, PASSWORD) for config in core.configs]
    settings = WorkerSettings(heard.site, core.endpoint, mqtt, PARTITIONS)
    stop = asyncio.Event()
    client = await core.client()
    await client.subscribe("count.*.*", cb=heard.receive)
    task = asyncio.create_task(run(settings, stop))
    try:
        yield heard
    finally:
        stop.set()
        await task
        await client.close()


async def log_of(core: Core) -> dict[str, list[int]]:
    """Device → the numbers (`batt`) of its fixes in the log, as a worker reads them."""
    client = await core.client()
    found: dict[str, list[int]] = {}
    async with open_reader(core.endpoint, Connection(client)) as reader:
        for partition in range(PARTITIONS):
            await client.jetstream().publish(TICK_SUBJECT.format(partition=partition), b"")
            last = (await client.jetstream().stream_info(f"FIX_{partition}")).state.last_seq
            await reader.follow(partition, 0)
            seq = 0
            while seq < last:
                for delivery in await reader.read():
                    seq = delivery.seq[-1]
                    for subject, payload in zip(delivery.subjects, delivery.payloads, strict=True):
                        tokens = subject.decode().split(".")
                        if len(tokens) == 5:
                            found.setdefault(tokens[4], []).append(int(json.loads(payload)["batt"]))
            await reader.leave(partition)
    await client.close()
    return found


# --- devices -------------------------------------------------------------------------------------
class Device:
    """A device that uses raw MQTT, and stands in the building b1."""

    def __init__(self, name: str) -> None:
        """Connect with `connect`."""
        self.name = name
        self.topic = FIX_TOPIC.format(site="s", kind="person", device=name).encode()
        self.acknowledged: list[int] = []
        self.longest_s = 0.0  # without an acknowledgement, while it sent
        self._number = 0
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self, port: int, within_s: float = 60.0) -> None:
        """Connect; raises OSError, TimeoutError or IncompleteReadError when no broker admits it."""
        async with asyncio.timeout(within_s):
            self._reader, self._writer = await asyncio.open_connection(LOOPBACK, port)
            name = self.name.encode()
            body = b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack(">H", len(name)) + name
            self._writer.write(bytes([0x10, len(body)]) + body)
            assert await self._reader.readexactly(4) == b"\x20\x02\x00\x00"

    def close(self) -> None:
        """Hang up, as a phone that is switched off."""
        if self._writer is not None:
            self._writer.close()

    async def closed(self) -> None:
        """Wait until the broker has hung up."""
        assert self._reader is not None
        with contextlib.suppress(OSError):
            while await self._reader.read(65_536):
                pass

    async def publish(self, qos: int = 1, within_s: float = 60.0) -> None:
        """Send the next fix, which carries its number as `batt`; with QoS 1 wait for its PUBACK."""
        assert self._writer is not None
        assert self._reader is not None
        self._number += 1
        payload = encode_fix(time.time(), 50.0025, 0.0025, acc=5.0, batt=float(self._number))
        ident = struct.pack(">H", self._number % 65_000 + 1)
        content = struct.pack(">H", len(self.topic)) + self.topic + (ident if qos else b"") + payload
        assert len(content) < 16_384
        low, high = len(content) % 128, len(content) // 128
        size = bytes([low | 128, high]) if high else bytes([low])
        self._writer.write((b"\x32" if qos else b"\x30") + size + content)
        if qos:
            async with asyncio.timeout(within_s):
                assert await self._reader.readexactly(4) == b"\x40\x02" + ident
            self.acknowledged.append(self._number)

    async def keep_sending(self, ports: list[int], stop: asyncio.Event) -> None:
        """Send fixes with QoS 1, one after the other, over whichever port lets us in, until `stop`."""
        last_s = time.monotonic()
        for port in itertools.cycle(ports):
            try:
                await self.connect(port, 15.0)
                while not stop.is_set():
                    await self.publish(within_s=15.0)
                    self.longest_s = max(self.longest_s, time.monotonic() - last_s)
                    last_s = time.monotonic()
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.05)  # a pause between attempts
            finally:
                self.close()
            if stop.is_set():
                return
