"""Cost of the balancer: connections per second and round-trip time, with it and without.

One broker, HAProxy with the product's configuration, and the clients run on this machine. The clients use raw
MQTT 3.1.1; the round trip is a PINGREQ and its PINGRESP. It needs a checkout, whose test fixtures it uses.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[4] / "tests"))

from nats_fixture import open_broker
from proxy_fixture import Bench, Device, scaled

#: Connections that are opened concurrently.
CONCURRENCY = 64


async def connects_per_s(port: int, connections: int) -> tuple[float, list[Device]]:
    """Open connections; return the rate, and the connections."""
    left = iter(range(connections))
    devices: list[Device] = []

    async def some() -> None:
        devices.extend([await Device.open(port) for _ in left])

    began = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(CONCURRENCY)))
    return connections / (time.perf_counter() - began), devices


async def ping_ms(device: Device, rounds: int) -> tuple[float, float]:
    """Median and 99th percentile of a round trip in milliseconds."""
    times: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        assert await device.alive()
        times.append(1000 * (time.perf_counter() - began))
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100]


async def measure(connections: int, rounds: int) -> None:
    """Measure directly and through the balancer, alternating, three times."""
    with tempfile.TemporaryDirectory() as folder:
        limits = scaled(unlimited=("127.0.0.0/8",), check_every_s=0.5)
        async with (
            Bench(Path(folder), limits=limits) as bench,
            open_broker(Path(folder) / "broker") as broker,
            bench.balancer() as role,
        ):
            await bench.unit("b1", broker.config.mqtt_port)
            await role.step()
            haproxy = psutil.Process(role.haproxy.pid)
            print(f"HAProxy {role.haproxy.version}, nats-server {broker.version}, {connections} connections")
            for _ in range(3):
                for name, port in (("direct", broker.config.mqtt_port), ("balancer", bench.config.mqtt_port)):
                    before, held = haproxy.cpu_times(), haproxy.memory_info().rss
                    rate, devices = await connects_per_s(port, connections)
                    cpu = haproxy.cpu_times()
                    used_s = cpu.user + cpu.system - before.user - before.system
                    kib = (haproxy.memory_info().rss - held) / 1024 / connections
                    median, worst = await ping_ms(devices[0], rounds)
                    print(
                        f"{name:>9}: {rate:6.0f} connects/s   ping {median:.3f} ms, p99 {worst:.3f} ms   "
                        f"HAProxy: {1e6 * used_s / connections:.0f} us per connect, {kib:.1f} KiB per connection"
                    )
                    for device in devices:
                        device.close()
                    await asyncio.sleep(1)


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3000)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.connections, arguments.rounds))


if __name__ == "__main__":
    main()
