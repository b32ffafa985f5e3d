"""Connections per second with the auth service, with a cold and a warm password cache, and without it.

A real server, the auth service in its own process, and concurrent clients that send CONNECT and wait for CONNACK.
For each: connects/s with everything on this machine, CPU time of the auth service per connection, and the rate
that the auth service would reach on a core of its own, the inverse of that time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import struct
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from headcount.broker.auth_service import AuthServiceSettings, run
from headcount.broker.core import Broker
from headcount.broker.device_rate_limiter import MqttRateLimits
from headcount.devices.registry import Registry
from headcount.lab.figures.bench_broker import PASSWORD, bench_broker, endpoint_of
from headcount.messaging.connection import Endpoint, connected
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET
from headcount.runtime.proc import cpu_s_of

Login = tuple[str, str]


def run_auth_service(endpoint: Endpoint) -> None:
    """Run an auth service until the process is ended."""

    async def serve() -> None:
        limits = MqttRateLimits(connects_per_minute=1_000_000)
        settings = AuthServiceSettings("bench", endpoint.addresses, PASSWORD, direct=True, limits=limits)
        async with connected(endpoint, "benchmark auth service") as core:
            await run(settings, core, asyncio.Event())

    asyncio.run(serve())


async def register(broker: Broker, number: int) -> list[Login]:
    """Register devices; return their ids and secrets."""
    async with connected(endpoint_of(broker.config), "benchmark registry") as client:
        registry = Registry(KvBucket(client, DEVICE_BUCKET), PASSWORD)
        registered = [await registry.add("s", "person") for _ in range(number)]
    return [(device.id, secret) for device, secret in registered]


async def connect_all(port: int, logins: list[Login], concurrency: int) -> float:
    """Seconds until all are accepted; each disconnects immediately."""
    slots = asyncio.Semaphore(concurrency)

    async def one(login: Login | None, number: int) -> None:
        async with slots:
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
    """Wait until the first device is accepted."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(AssertionError, OSError, asyncio.IncompleteReadError):
                await connect_all(broker.config.mqtt_port, [login], 1)
                return
            await asyncio.sleep(0.1)


async def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--concurrency", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with bench_broker(Path(folder, "open"), anonymous=True) as broker:
            anonymous = [("", "")] * options.devices
            await connect_all(broker.config.mqtt_port, anonymous[:100], options.concurrency)
            took = await connect_all(broker.config.mqtt_port, anonymous, options.concurrency)
            without = options.devices / took
            print(f"without the auth service  {without:7,.0f} connects/s", flush=True)
        async with bench_broker(Path(folder, "authenticated"), anonymous=False) as broker:
            logins = await register(broker, options.devices + 1)
            process: BaseProcess = multiprocessing.get_context("spawn").Process(
                target=run_auth_service, args=(endpoint_of(broker.config),), daemon=True
            )
            process.start()
            try:
                await ready(broker, logins.pop())
                for name in ("cold", "warm"):
                    used = -cpu_s_of(process.pid or 0)
                    took = await connect_all(broker.config.mqtt_port, logins, options.concurrency)
                    used += cpu_s_of(process.pid or 0)
                    rate = options.devices / took
                    print(
                        f"cache {name:4}                {rate:7,.0f} connects/s, {rate / without:.2f} of that; "
                        f"{used / options.devices * 1e3:.2f} ms CPU of the auth service each: "
                        f"{options.devices / used:,.0f}/s on a core of its own",
                        flush=True,
                    )
            finally:
                process.terminate()
                process.join()


if __name__ == "__main__":
    asyncio.run(main())
