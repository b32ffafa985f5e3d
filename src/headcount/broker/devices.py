"""The devices that a server has now, and how they are sent away: slowly, for they all come back at once.

An established MQTT connection never moves by itself. One that is closed comes back through the
balancer, which gives it to whoever has the fewest. Who goes is drawn by lot: what stays behind is
then as mixed as before.
"""

from __future__ import annotations

import asyncio
import random

import msgspec
import nats.errors
from nats.aio.client import Client

from headcount.broker import probe
from headcount.broker.config import SYSTEM, BrokerConfig
from headcount.broker.probe import PROBE_CLIENT

#: Connections that the server tells of in one answer.
PAGE = 1024
_ANSWER_S = 5.0


class _Connection(msgspec.Struct):
    cid: int
    mqtt_client: str | None = None


class _Connections(msgspec.Struct):
    total: int
    connections: list[_Connection] = []


class _Server(msgspec.Struct):
    id: str


class _Answer(msgspec.Struct):
    server: _Server
    data: _Connections


async def kick(config: BrokerConfig, most: int | None, within_s: float) -> int:
    """Close connections of devices, evenly spread over a time; never our own.

    Args:
        config: of the server.
        most: how many, drawn by lot; None = all.
        within_s: the time.

    Returns:
        How many were closed.

    Raises:
        any of probe.NO_ANSWER.
    """
    async with probe.connected(config, SYSTEM) as client:
        server, cids = await _devices(client)
        random.shuffle(cids)
        del cids[len(cids) if most is None else most :]
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number, cid in enumerate(cids):
            await asyncio.sleep(max(0.0, began_s + number * within_s / len(cids) - loop.time()))
            # without an address for its answer the server doesn't look at a request
            await client.publish(
                f"$SYS.REQ.SERVER.{server}.KICK", msgspec.json.encode({"cid": cid}), reply="kicked"
            )
        await client.flush()
        return len(cids)


async def _devices(client: Client) -> tuple[str, list[int]]:
    """The server's id, and the number of each connection of a device."""
    cids: list[int] = []
    seen = 0
    while True:
        ask = msgspec.json.encode({"limit": PAGE, "offset": seen})
        # a leaf shares no system account: nobody but itself answers
        message = await client.request("$SYS.REQ.SERVER.PING.CONNZ", ask, timeout=_ANSWER_S)
        try:
            answer = msgspec.json.decode(message.data, type=_Answer)
        except msgspec.DecodeError as error:
            raise nats.errors.Error(f"the NATS server says {message.data[:200]!r}") from error
        page = answer.data.connections
        cids += [one.cid for one in page if one.mqtt_client and not one.mqtt_client.startswith(PROBE_CLIENT)]
        seen += len(page)
        if not page or seen >= answer.data.total:
            return answer.server.id, cids
