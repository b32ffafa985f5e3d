"""Cost of leaf nodes: throughput of devices on one or two leaves, and directly on the core.

Variants:
- direct   devices on a core of one node, no leaf
- leaf     devices on one leaf of it
- leaves   devices on two leaves of it
- three    devices on two leaves of a core of three nodes

For each: messages/s at QoS 0 and at QoS 1 (with PUBACKs) over 4 connections, the share of messages in the log,
and CPU seconds of all servers per million messages.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from headcount.broker.core import Broker
from headcount.broker.leaf import Leaf
from headcount.broker.nats_config import BrokerConfig
from headcount.broker.nats_process import NatsServer
from headcount.lab.figures.bench_broker import bench_config, endpoint_of
from headcount.lab.figures.qos1_cost import jetstream, send, stored
from headcount.messaging.connection import connected_once
from headcount.runtime.ports import free_ports
from headcount.runtime.proc import cpu_s_of

VARIANTS = {"direct": (1, 0), "leaf": (1, 1), "leaves": (1, 2), "three": (3, 2)}


def config(folder: Path, name: str) -> BrokerConfig:
    """A server on free ports with its own folder."""
    return replace(bench_config(folder / name), server_name=name)


@contextlib.asynccontextmanager
async def servers_of(nodes: int, leaves: int) -> AsyncIterator[tuple[Broker, list[NatsServer]]]:
    """Start servers; the first is the core's, those for devices are last."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cluster, leaf_ports = free_ports(nodes), free_ports(nodes)
        core = [config(folder, f"core-{node}") for node in range(nodes)]
        if leaves:
            core = [
                replace(one, leaf_port=port, devices=False)
                for one, port in zip(core, leaf_ports, strict=True)
            ]
        if nodes > 1:
            peers = tuple(("127.0.0.1", port) for port in cluster)
            core = [
                replace(one, cluster_port=port, peers=peers, replicas=nodes)
                for one, port in zip(core, cluster, strict=True)
            ]
        hub = tuple(("127.0.0.1", port) for port in leaf_ports)
        servers: list[NatsServer] = [Broker(one, check_every_s=60) for one in core]
        first = servers[0]
        assert isinstance(first, Broker)
        try:
            await asyncio.gather(*(server.__aenter__() for server in servers))
            for number in range(leaves):
                leaf = replace(config(folder, f"leaf-{number}"), hub=hub, replicas=nodes)
                servers.append(Leaf(leaf, check_every_s=60))
                await servers[-1].__aenter__()
            yield first, servers
        finally:
            for server in reversed(servers):
                await server.__aexit__(None, None, None)


async def speed(variant: str, qos: int, messages: int, pool: concurrent.futures.Executor) -> str:
    """Measure a variant; return a line of text."""
    nodes, leaves = VARIANTS[variant]
    async with (
        servers_of(nodes, leaves) as (core, servers),
        connected_once(endpoint_of(core.config), "benchmark") as connection,
    ):
        targets = servers[-leaves:] if leaves else servers
        loop, began = asyncio.get_running_loop(), time.perf_counter()
        used = -sum(cpu_s_of(server.pid or 0) for server in servers)
        jobs = [
            loop.run_in_executor(
                pool,
                send,
                targets[c % len(targets)].config.mqtt_port,
                f"d{c}",
                messages // 4,
                qos,
                time.time() + 60,
            )
            for c in range(4)
        ]
        sent = sum(s for s, _ in await asyncio.gather(*jobs))
        took = time.perf_counter() - began
        await asyncio.sleep(1)
        used += sum(cpu_s_of(server.pid or 0) for server in servers)
        held = 0
        for c in range(4):
            found = await stored(connection, f"d{c}")
            held += sum(n for subject, n in found.items() if not qos or subject.startswith("$MQTT"))
        await jetstream(connection, "INFO")
    return (
        f"{variant:7} QoS {qos}: {sent / took:9,.0f} messages/s, {held / sent:.3f} of them in the log, "
        f"{used / sent * 1e6:5.1f} CPU s per million"
    )


async def main() -> None:
    """Measure the chosen variants."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variants", nargs="*", help=f"which: {', '.join(VARIANTS)}; default all")
    parser.add_argument("--messages", type=int, default=200_000)
    options = parser.parse_args()
    with concurrent.futures.ProcessPoolExecutor(4) as pool:
        for variant in options.variants or VARIANTS:
            for qos in (0, 1):
                print(await speed(variant, qos, options.messages, pool), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
