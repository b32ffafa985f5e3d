"""Questions to a NATS server: is it up, can it still write."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from typing import Any

import msgspec

from headcount.broker.nats_config import DOMAIN, SYSTEM, BrokerConfig
from headcount.errors import CertificateError, LogUnavailableError
from headcount.messages.topics import INTERNAL
from headcount.messaging.connection import Connection, Endpoint, connected_once
from headcount.settings.formats import joined, local_host

#: Errors in place of an answer: no listener, no answer in time, a refusal.
NO_ANSWER = (OSError, TimeoutError, LogUnavailableError)
_ANSWER_S = 5.0
#: While a core has no leader there is no answer: the request is repeated after this.
_SOON_S = 1.0
#: How the client ids of our own MQTT probes begin.
PROBE_CLIENT = "headcount-probe-"


def url(config: BrokerConfig) -> str:
    """The address of a server's NATS port, from its own machine."""
    return f"nats://{joined((config.local_host, config.nats_port))}"


async def request(
    config: BrokerConfig, user: str, subject: str, payload: bytes = b"", *, within_s: float = _ANSWER_S
) -> bytes:
    """The answer to one request, over a connection of its own. `{id}` in the subject is the server's own id.

    nats-py isn't used: a task that is cancelled inside of it may go on, or leave tasks behind, and
    these questions are asked all the time.

    Raises:
        OSError, TimeoutError: no answer.
    """
    login = {"user": user, "pass": config.password, "verbose": False, "pedantic": False}
    async with asyncio.timeout(within_s):
        reader, writer = await asyncio.open_connection(config.local_host, config.nats_port)
        try:
            info = msgspec.json.decode((await reader.readline()).removeprefix(b"INFO ") or b"{}")
            to = subject.replace("{id}", info.get("server_id", ""))
            # unique: every node of a core and every leaf receives what is published to a subject
            inbox = f"_INBOX.{secrets.token_hex(11)}".encode()
            question = b"PUB %b %b %d\r\n%b\r\n" % (to.encode(), inbox, len(payload), payload)
            writer.write(b"CONNECT %b\r\nSUB %b 1\r\n%b" % (msgspec.json.encode(login), inbox, question))
            while line := await reader.readline():
                if line.startswith(b"MSG "):
                    return await reader.readexactly(int(line.split()[-1]))
                if line.startswith(b"-ERR"):
                    raise ConnectionRefusedError(line.decode(errors="replace").strip())
            raise ConnectionResetError("the NATS server closed the connection")
        except (asyncio.IncompleteReadError, msgspec.DecodeError) as error:
            raise ConnectionResetError("the NATS server closed the connection") from error
        finally:
            writer.close()


async def ask_ready(config: BrokerConfig, *, closed: bool = False) -> None:
    """Return when JetStream answers and, unless `closed`, an MQTT client is let in.

    Raises:
        any of NO_ANSWER: not yet.
    """
    api = f"$JS.{DOMAIN}.API" if config.hub else "$JS.API"
    account = msgspec.json.decode(await request(config, INTERNAL, f"{api}.INFO", within_s=_SOON_S))
    if "error" in account:
        raise ConnectionRefusedError(account["error"].get("description"))
    if not closed:
        await ask_mqtt(config)


async def ask_mqtt(config: BrokerConfig, within_s: float = _ANSWER_S) -> None:
    """Return when an MQTT client has been let in: what a device needs of us, the core's streams included.

    aiomqtt isn't used: it leaves futures behind when a connection breaks while it is made.

    Raises:
        any of NO_ANSWER: it hasn't.
    """
    name = f"{PROBE_CLIENT}{secrets.token_hex(4)}"
    login = (INTERNAL, config.password)
    flags = 0xC2  # a clean session; user and password
    fields = b"".join(
        len(text).to_bytes(2, "big") + text for text in (part.encode() for part in (name, *login))
    )
    connect = b"\x00\x04MQTT\x04" + bytes([flags]) + b"\x00\x3c" + fields
    async with asyncio.timeout(within_s):
        reader, writer = await _open_mqtt(config)
        try:
            writer.write(b"\x10" + _length(len(connect)) + connect)
            answer = await reader.readexactly(4)
            if answer[:1] + answer[3:] != b"\x20\x00":
                raise ConnectionRefusedError(f"MQTT answers {answer.hex()}")
            writer.write(b"\xe0\x00")  # DISCONNECT
            await reader.read()  # the server hangs up: it doesn't count us any more
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the NATS server closed the MQTT connection") from error
        finally:
            writer.close()


async def ask_mqtt_listener(config: BrokerConfig, within_s: float) -> None:
    """Return when the server has read from a new MQTT connection, which needs nothing from the core.

    Raises:
        any of NO_ANSWER: it has not.
    """
    async with asyncio.timeout(within_s):
        reader, writer = await _open_mqtt(config)
        try:
            writer.write(b"\xc0\x00")  # a PINGREQ before CONNECT: the server closes the connection
            await reader.read()
        except ConnectionResetError:
            pass
        finally:
            writer.close()


async def _open_mqtt(config: BrokerConfig) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(local_host(config.mqtt_host), config.mqtt_port, ssl=_context(config))


def _context(config: BrokerConfig) -> ssl.SSLContext | None:
    if config.mqtt_tls is None:
        return None
    from headcount.tls.contexts import pinned_context  # noqa: PLC0415  # only processes that use it pay for it

    try:
        return pinned_context(config.mqtt_tls)
    except CertificateError as error:
        raise ConnectionRefusedError(str(error)) from error


def _length(number: int) -> bytes:
    """A length as MQTT writes it: 7 bits a byte, the lowest first."""
    digits = b""
    while True:
        number, digit = divmod(number, 128)
        digits += bytes([digit | (128 if number else 0)])
        if not number:
            return digits


async def ask_health(config: BrokerConfig) -> str | None:
    """The problem that the server itself reports; None if it is healthy.

    It answers so when a stream could not be written: it refuses that stream's messages from then on,
    until it is started again, and MQTT publishers learn nothing of it.

    Raises:
        any of NO_ANSWER.
    """
    answer = await request(config, SYSTEM, "$SYS.REQ.SERVER.{id}.HEALTHZ", b'{"details":true}')
    health: dict[str, Any] = msgspec.json.decode(answer).get("data", {})
    if health.get("status") == "ok":
        return None
    errors = [str(error.get("error")) for error in health.get("errors") or []]
    return "; ".join(errors) or str(health.get("error") or health.get("status"))


class Load(msgspec.Struct):
    """The load that a server reports; the names are its own."""

    connections: int  # of clients of every protocol, this question's own included
    leafnodes: int = 0  # links to and from leaves
    in_client_msgs: int = 0  # from clients since its start


class _LoadResponse(msgspec.Struct):
    data: Load


async def ask_load(config: BrokerConfig) -> Load:
    """How much a server carries.

    Raises:
        any of NO_ANSWER.
    """
    answer = await request(config, SYSTEM, "$SYS.REQ.SERVER.{id}.VARZ")
    try:
        return msgspec.json.decode(answer, type=_LoadResponse).data
    except msgspec.DecodeError as error:
        raise ConnectionRefusedError(f"the NATS server answers {answer[:200]!r}") from error


def connected(
    config: BrokerConfig, user: str = INTERNAL
) -> contextlib.AbstractAsyncContextManager[Connection]:
    """A connection with all rights, in the account or (SYSTEM) over the server, that isn't re-established.

    Raises (on entering):
        any of NO_ANSWER.
    """
    endpoint = Endpoint(((config.local_host, config.nats_port),), user, config.password)
    return connected_once(endpoint, "headcount probe")
