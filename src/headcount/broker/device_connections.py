"""The devices that are connected to a server, and how they are disconnected: slowly, since each reconnects immediately.

An established MQTT connection never moves by itself. One that is closed comes back through the
balancer, which gives it to the broker with the fewest connections. The connections to close are drawn
at random, so that the remaining ones are as mixed as before.
"""

from __future__ import annotations

import asyncio
import random

from headcount.broker import connections, nats_probe
from headcount.broker.nats_config import SYSTEM, BrokerConfig
from headcount.broker.nats_probe import PROBE_CLIENT
from headcount.messaging.connection import Connection


async def kick(config: BrokerConfig, most: int | None, within_s: float) -> int:
    """Close connections of devices, evenly spread over a time; never our own.

    Args:
        config: of the server.
        most: how many, drawn by lot; None = all.
        within_s: the time.

    Returns:
        How many were closed.

    Raises:
        any of nats_probe.NO_ANSWER.
    """
    async with nats_probe.connected(config, SYSTEM) as connection:
        server, cids = await _devices(connection)
        random.shuffle(cids)
        del cids[len(cids) if most is None else most :]
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number, cid in enumerate(cids):
            await asyncio.sleep(max(0.0, began_s + number * within_s / len(cids) - loop.time()))
            await connections.close(connection, server, cid)
        await connection.flush()
        return len(cids)


async def _devices(connection: Connection) -> tuple[str, list[int]]:
    """The server's id, and the number of each connection of a device."""
    cids: list[int] = []
    server = ""
    async for name, page in connections.pages(connection):
        server = name
        cids += [one.cid for one in page if one.mqtt_client and not one.mqtt_client.startswith(PROBE_CLIENT)]
    return server, cids
