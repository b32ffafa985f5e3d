"""The connections of a server, as it lists them (CONNZ), and how one is closed (KICK)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from headcount.errors import LogUnavailableError
from headcount.messaging.connection import Connection as NatsConnection

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
    connection: NatsConnection, user: str | None = None
) -> AsyncIterator[tuple[str, list[ClientConnection]]]:
    """The server's id with some of its connections, again and again until all were there.

    Args:
        connection: as the system's user.
        user: only those that came in under this name.

    Raises:
        any of probe.NO_ANSWER.
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


async def close(connection: NatsConnection, server: str, cid: int) -> None:
    """Have a server close one of its connections.

    Raises:
        any of probe.NO_ANSWER.
    """
    # without an address for its answer the server doesn't look at a request
    await connection.publish(
        f"$SYS.REQ.SERVER.{server}.KICK", msgspec.json.encode({"cid": cid}), reply="kicked"
    )
