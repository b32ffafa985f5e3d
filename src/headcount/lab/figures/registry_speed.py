"""The registry with many devices: `python -m headcount.lab.figures.registry_speed [100000]`.

Imports devices, fills the cache, and lists pages with it and without.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from headcount.devices.csv_table import export_devices, import_devices, parse_devices
from headcount.devices.device_filter import DeviceFilter
from headcount.devices.registry import Registry
from headcount.devices.registry_cache import RegistryCache
from headcount.lab.figures.bench_broker import PASSWORD, bench_broker, endpoint_of
from headcount.messaging.connection import connected
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET


def resident_mib() -> float:
    """The maximum memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def measure(folder: Path, devices: int) -> None:
    """Print the figures."""
    async with (
        bench_broker(folder, anonymous=False) as broker,
        connected(endpoint_of(broker.config), "registry benchmark") as connection,
    ):
        bucket = KvBucket(connection, DEVICE_BUCKET)
        registry = Registry(bucket, PASSWORD)
        lines = [f"person,Person {n},group{n % 50},iotp/{n}" for n in range(devices)]
        text = "\n".join(["kind,label,groups,aliases", *lines])
        start_s = time.perf_counter()
        rows = parse_devices(text, "ul")
        print(f"table of {devices} read and checked in {time.perf_counter() - start_s:.1f} s")
        start_s = time.perf_counter()
        await import_devices(registry, "ul", rows)
        took_s = time.perf_counter() - start_s
        print(f"registered in {took_s:.1f} s, {devices / took_s:.0f} per second")
        single = []
        for _ in range(200):
            start_s = time.perf_counter()
            await registry.add("ul", "vehicle")
            single.append(time.perf_counter() - start_s)
        print(f"one more: {1000 * statistics.median(single):.1f} ms")
        before_mib = resident_mib()
        start_s = time.perf_counter()
        cache = RegistryCache()
        running = asyncio.create_task(cache.run(connection))
        await cache.ready.wait()
        took_s = time.perf_counter() - start_s
        print(
            f"cache of {len(cache)} filled in {took_s:.1f} s, {resident_mib() - before_mib:.0f} MiB of memory"
        )
        for name, wanted in (
            ("a page of 100", DeviceFilter("ul")),
            ("a page of 500 of one group", DeviceFilter("ul", group="group7", limit=500)),
            ("a label that no device has", DeviceFilter("ul", text="unknown")),
        ):
            times = []
            for _ in range(20):
                start_s = time.perf_counter()
                cache.list(wanted)
                times.append(time.perf_counter() - start_s)
            print(f"{name}: {1000 * statistics.median(times):.2f} ms")
        start_s = time.perf_counter()
        await registry.list(DeviceFilter("ul"))
        print(f"a page without the cache: {time.perf_counter() - start_s:.1f} s")
        start_s = time.perf_counter()
        size = sum(map(len, export_devices(cache.all(), {})))
        print(f"export, {size / 2**20:.1f} MiB: {time.perf_counter() - start_s:.1f} s")
        print(f"on disk: {(await bucket.info()).state.bytes / 2**20:.0f} MiB")
        running.cancel()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(measure(Path(temporary), int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
