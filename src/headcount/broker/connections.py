"""The connections of a server, as it lists them (CONNZ); closing them (KICK), those of devices gradually."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import msgspec

from headcount.broker import nats_probe
from headcount.broker.nats_config import SYSTEM, BrokerConfig
from headcount.broker.nats_probe import PROBE_CLIENT
from headcount.errors import LogUnavailableError
from headcount.messaging.connection import Connection

#: Connections in one answer of the server.
PAGE = 1024
_ANSWER_S = 5.0


class ClientConnection(msgspec.Struct):
    """One of the server's connections; the fields that are used."""

    cid: int
    ip: str = ""
    authorized_user: str = ""
    mqtt_client: str | None = None
    in_msgs: int = 0
    in_bytes: int = 0


class _Connections(msgspec.Struct):
    total: int
    connections: list[ClientConnection] = []


class _ServerInfo(msgspec.Struct):
    id: str


class _ConnzResponse(msgspec.Struct):
    server: _ServerInfo
    data: _Connections


_DECODER = msgspec.json.Decoder(_ConnzResponse)


async def pages(
    connection: Connection, user: str | None = None
) -> AsyncIterator[tuple[str, list[ClientConnection]]]:
    """The server's id with some of its connections, again and again until all were there.

    Args:
        connection: as the system's user.
        user: only those that came in under this name.

    Raises:
        any of nats_probe.NO_ANSWER.
    """
    seen = 0
    ask: dict[str, object] = {"limit": PAGE, "auth": True}
    if user is not None:
        ask["user"] = user
    while True:
        # a leaf shares no system account: only the server itself answers
        question = msgspec.json.encode(ask | {"offset": seen})
        data = await connection.request("$SYS.REQ.SERVER.PING.CONNZ", question, timeout_s=_ANSWER_S)
        try:
            answer = _DECODER.decode(data)
        except msgspec.DecodeError as error:
            raise LogUnavailableError("the NATS server lists its connections in an unknown format") from error
        page = answer.data.connections
        yield answer.server.id, page
        seen += len(page)
        if not page or seen >= answer.data.total or len(page) < PAGE:
            return


async def close(connection: Connection, server: str, cid: int) -> None:
    """Have a server close one of its connections.

    Raises:
        any of nats_probe.NO_ANSWER.
    """
    # without an address for its answer the server doesn't look at a request
    await connection.publish(
        f"$SYS.REQ.SERVER.{server}.KICK", msgspec.json.encode({"cid": cid}), reply="kicked"
    )


async def kick(config: BrokerConfig, most: int | None, within_s: float) -> int:
    """Close connections of devices, evenly spread over a time since each reconnects immediately; never our own.

    An established MQTT connection never moves by itself. One that is closed comes back through the
    balancer, which gives it to the broker with the fewest connections. The connections to close are drawn
    at random, so that the remaining ones are as mixed as before.

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
            await close(connection, server, cid)
        await connection.flush()
        return len(cids)


async def _devices(connection: Connection) -> tuple[str, list[int]]:
    """The server's id, and the number of each connection of a device."""
    cids: list[int] = []
    server = ""
    async for name, page in pages(connection):
        server = name
        cids += [one.cid for one in page if one.mqtt_client and not one.mqtt_client.startswith(PROBE_CLIENT)]
    return server, cids
