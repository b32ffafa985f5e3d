"""How many devices come in a second: through the gate, with its memory of passwords cold and warm, and without it.

A real server, the gate in a process of its own, and clients that each send CONNECT and wait for CONNACK, so
many at once. For each: connects/s with everything on this machine, processor time of the gate for one, and
what a core that did nothing else but the gate would let in: its 1 / processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import struct
import tempfile
import time
from collections.abc import AsyncIterator
from multiprocessing.process import BaseProcess
from pathlib import Path

from headcount.broker.auth_service import GateSettings, run
from headcount.broker.core import Broker
from headcount.broker.device_rate_limiter import MqttRateLimits
from headcount.broker.nats_config import INTERNAL, BrokerConfig
from headcount.devices.registry import Registry
from headcount.lab.figures.qos1_cost import PARTITIONS, PASSWORD
from headcount.messaging.connection import Endpoint, connected
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET
from headcount.runtime.ports import free_ports
from headcount.runtime.proc import cpu_s_of

Login = tuple[str, str]


def keep_gate(nats_port: int) -> None:
    """A gate for the server on this port, until the process is ended."""

    async def keep() -> None:
        endpoint = Endpoint((("127.0.0.1", nats_port),), INTERNAL, PASSWORD)
        limits = MqttRateLimits(connects_per_minute=1_000_000)
        settings = GateSettings("bench", endpoint.addresses, PASSWORD, direct=True, limits=limits)
        async with connected(endpoint, "bench gate") as core:
            await run(settings, core, asyncio.Event())

    asyncio.run(keep())


@contextlib.asynccontextmanager
async def server(folder: Path, *, anonymous: bool) -> AsyncIterator[Broker]:
    """A server on free ports."""
    mqtt, ws, port = free_ports(3)
    config = BrokerConfig(
        data=folder,
        password=PASSWORD,
        mqtt_port=mqtt,
        ws_port=ws,
        nats_port=port,
        partitions=PARTITIONS,
        anonymous=anonymous,
    )
    async with Broker(config, check_every_s=60) as broker:
        yield broker


async def register(broker: Broker, number: int) -> list[Login]:
    """So many devices: their ids and secrets."""
    endpoint = Endpoint((("127.0.0.1", broker.config.nats_port),), INTERNAL, PASSWORD)
    async with connected(endpoint, "bench registry") as client:
        registry = Registry(KvBucket(client, DEVICE_BUCKET), PASSWORD)
        made = [await registry.add("s", "person") for _ in range(number)]
    return [(device.id, secret) for device, secret in made]


async def come_in(port: int, logins: list[Login], at_once: int) -> float:
    """Seconds until all have been let in; each leaves at once."""
    gate = asyncio.Semaphore(at_once)

    async def one(login: Login | None, number: int) -> None:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(connect_packet(login, number))
            answer = await reader.readexactly(4)
            assert answer == b"\x20\x02\x00\x00", f"refused: {answer.hex()}"
            writer.write(b"\xe0\x00")
            writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one(login if login[1] else None, n) for n, login in enumerate(logins)))
    return time.perf_counter() - began


def connect_packet(login: Login | None, number: int) -> bytes:
    """CONNECT of MQTT 3.1.1, a clean session."""
    fields = [f"bench-{number}"] if login is None else [login[0], *login]
    body = b"\x00\x04MQTT\x04" + (b"\x02" if login is None else b"\xc2") + b"\x00\x3c"
    body += b"".join(struct.pack(">H", len(text)) + text.encode() for text in fields)
    return b"\x10" + bytes([len(body)]) + body


async def ready(broker: Broker, login: Login) -> None:
    """Return when the gate lets the first one in."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(AssertionError, OSError, asyncio.IncompleteReadError):
                await come_in(broker.config.mqtt_port, [login], 1)
                return
            await asyncio.sleep(0.1)


async def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--at-once", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with server(Path(folder, "open"), anonymous=True) as broker:
            nobody = [("", "")] * options.devices
            await come_in(broker.config.mqtt_port, nobody[:100], options.at_once)
            took = await come_in(broker.config.mqtt_port, nobody, options.at_once)
            without = options.devices / took
            print(f"without the gate  {without:7,.0f} connects/s", flush=True)
        async with server(Path(folder, "gated"), anonymous=False) as broker:
            logins = await register(broker, options.devices + 1)
            process: BaseProcess = multiprocessing.get_context("spawn").Process(
                target=keep_gate, args=(broker.config.nats_port,), daemon=True
            )
            process.start()
            try:
                await ready(broker, logins.pop())
                for name in ("cold", "warm"):
                    used = -cpu_s_of(process.pid or 0)
                    took = await come_in(broker.config.mqtt_port, logins, options.at_once)
                    used += cpu_s_of(process.pid or 0)
                    rate = options.devices / took
                    print(
                        f"gate, {name:4}        {rate:7,.0f} connects/s, {rate / without:.2f} of that; "
                        f"{used / options.devices * 1e3:.2f} ms of the gate each: "
                        f"{options.devices / used:,.0f}/s on a core of its own",
                        flush=True,
                    )
            finally:
                process.terminate()
                process.join()


if __name__ == "__main__":
    asyncio.run(main())
