"""What the balancer costs: connects a second, and time for a message there and back, with it and without.

One broker, HAProxy with the product's own configuration, all on this machine together with the client.
The clients speak raw MQTT 3.1.1; the time is that of a PINGREQ and its PINGRESP, one at a time.
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

#: Connections that are being opened at a time.
AT_ONCE = 64


async def connects_per_s(port: int, connections: int) -> tuple[float, list[Device]]:
    """Open so many connections; how many a second got their CONNACK, and the connections."""
    left = iter(range(connections))
    devices: list[Device] = []

    async def some() -> None:
        devices.extend([await Device.open(port) for _ in left])

    began = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    return connections / (time.perf_counter() - began), devices


async def ping_ms(device: Device, rounds: int) -> tuple[float, float]:
    """Median and 99th percentile of a ping, in milliseconds."""
    took: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        assert await device.alive()
        took.append(1000 * (time.perf_counter() - began))
    took.sort()
    return took[len(took) // 2], took[len(took) * 99 // 100]


async def measure(connections: int, rounds: int) -> None:
    """Direct and through the balancer, in turns, three times."""
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
                        f"HAProxy: {1e6 * used_s / connections:.0f} us a connect, {kib:.1f} KiB more a connection"
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
