"""Clients that connect and do nothing, or act slowly, do not keep others out."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from api_fixture import Api, open_api, site_with
from headcount.api.api_settings import ApiSettings
from headcount.api.server import run
from headcount.messaging.connection import Endpoint
from headcount.runtime import connection_limits
from headcount.runtime.connection_limits import ConnectionLimits
from headcount.runtime.ports import free_ports
from headcount.tls.certificates import ensure_server_certificate
from headcount.tls.tls_files import TlsFiles
from waiting import until

ADDRESSES = [f"127.0.0.{n}" for n in range(2, 8)]
#: Each idle connection of a test is an open file of it, and one of the server, which is in the same process.
IDLE = 1200


@contextlib.contextmanager
def open_files(limit: int) -> Iterator[None]:
    """Limit the open files of this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.asynccontextmanager
async def connections(api: Api, count: int, start: bytes = b"") -> AsyncIterator[list[socket.socket]]:
    """Connections from several addresses that send `start` and then nothing."""
    port = int(api.base.rpartition(":")[2])
    opened: list[socket.socket] = []
    loop = asyncio.get_running_loop()
    try:
        for n in range(count):
            client = socket.socket()
            opened.append(client)
            client.setblocking(False)
            client.bind((ADDRESSES[n % len(ADDRESSES)], 0))
            await loop.sock_connect(client, ("127.0.0.1", port))
            with contextlib.suppress(OSError):  # closed already
                await loop.sock_sendall(client, start)
        yield opened
    finally:
        for client in opened:
            client.close()


def is_closed(client: socket.socket) -> bool:
    """Whether the server has closed a connection."""
    try:
        return client.recv(1 << 16) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize(
    "start",
    [b"", b"GET / HT", b"POST /v1/devices HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"],
    ids=["nothing", "half a head", "no body"],
)
async def test_idle_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, start: bytes
) -> None:
    """With more idle connections than the server allows, an honest client is served, and a line is logged."""
    monkeypatch.setattr(connection_limits, "MAX_CONNECTIONS", 300)
    gc.collect()  # objects of earlier tests log when they are freed
    caplog.clear()
    async with open_api(tmp_path) as api, connections(api, IDLE, start) as idle:
        await asyncio.wait_for(api.json("/v1/sites"), 10)
        await until(lambda: sum(map(is_closed, idle)) >= IDLE - 300)
        for _ in range(20):
            await api.json("/v1/sites")
    assert 0 < sum(r.name == connection_limits.__name__ for r in caplog.records) <= 2
    assert not any(r.exc_info for r in caplog.records)


async def test_no_open_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a free file, connections are closed, one line is logged, and the next client is served."""
    async with open_api(tmp_path) as api:
        await api.json("/v1/sites")
        used = max(int(each.name) for each in Path("/proc/self/fd").iterdir()) + 1
        port = int(api.base.rpartition(":")[2])
        with open_files(used + 40), contextlib.ExitStack() as held:
            clients = []
            with contextlib.suppress(OSError):
                while True:
                    client = held.enter_context(socket.socket())
                    client.setblocking(False)
                    client.connect_ex(("127.0.0.1", port))
                    clients.append(client)
            await until(lambda: any(map(is_closed, clients)))
        await api.json("/v1/sites")
    lines = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert ["open files" in r.getMessage() for r in lines] == [True]
    assert not any(r.exc_info for r in lines)


@pytest.mark.parametrize(
    ("limit", "start", "more"),
    [
        ("HEAD_S", b"", b""),
        ("HEAD_S", b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"X-Slow: 1\r\n"),
        ("BODY_S", b"POST /v1/provision HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n", b" "),
    ],
    ids=["first byte", "head", "body"],
)
async def test_slow_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, start: bytes, more: bytes
) -> None:
    """A client that sends nothing, or a head or body in tiny pieces, is disconnected after the limit."""
    monkeypatch.setattr(connection_limits, limit, 1.0)
    async with open_api(tmp_path) as api, connections(api, 1, start) as (client,):
        begun_s = time.monotonic()

        async def sends_until_closed() -> bool:
            with contextlib.suppress(OSError):
                client.send(more)
            return is_closed(client)

        await until(sends_until_closed, every_s=0.1)
        assert time.monotonic() - begun_s > 0.5
        await api.json("/v1/sites")


async def test_handshakes_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With TLS, a client that does not begin its handshake is disconnected after the limit."""
    monkeypatch.setattr(connection_limits, "HEAD_S", 1.0)
    files = TlsFiles(*ensure_server_certificate(tmp_path, ["localhost"]))
    core = Endpoint((("127.0.0.1", free_ports(1)[0]),), "", "")
    settings = ApiSettings(site_with(1), core, tmp_path, 2, web=tmp_path)
    stop, ports = asyncio.Event(), asyncio.Queue[int]()
    serving = asyncio.create_task(
        run(settings, host="127.0.0.1", port=0, stop=stop, on_ready=ports.put_nowait, tls=files)
    )
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", await ports.get())
        assert await reader.read() == b""
        writer.close()
    finally:
        stop.set()
        await serving


async def test_a_stream_outlasts_the_limit_of_a_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is the first request of a connection stays open longer than a client may take for a head."""
    monkeypatch.setattr(connection_limits, "HEAD_S", 1.0)
    request = b"GET /v1/sites/ul/stream HTTP/1.1\r\nHost: x\r\n\r\n"
    async with open_api(tmp_path) as api, connections(api, 2, request) as (client, _):
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            received = b""
            while received.count(b"event: ping") < 1:  # the first after 5 s
                part = await loop.sock_recv(client, 1 << 16)
                assert part, received
                received += part


async def test_client_that_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that requests much and reads nothing is disconnected after the limit."""
    monkeypatch.setattr(connection_limits, "READ_S", 1.0)
    async with open_api(tmp_path) as api:
        async with connections(api, 1) as (client,):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

            async def is_reset() -> bool:
                try:
                    client.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
                except BlockingIOError:
                    return False
                except OSError:
                    return True
                return False

            await until(is_reset, every_s=0.2)
        await api.json("/v1/sites")


def test_one_address_has_a_share() -> None:
    """One address gets a quarter of the connections; another one is served."""
    limits = ConnectionLimits(lambda peer: None if peer == "balancer" else peer, 8)
    opened = [limits.add(socket.socket(), "a") for _ in range(2)]
    for connection in opened:
        limits.resume(connection)  # busy: they cannot be closed
    with pytest.raises(ConnectionAbortedError):
        limits.add(socket.socket(), "a")
    opened += [limits.add(socket.socket(), peer) for peer in ("b", *["balancer"] * 5)]
    assert len(limits) == 8
    for connection in opened:
        connection.close()
    limits.add(socket.socket(), "a").close()
