"""Clients of HTTP that connect and do nothing, behind a real HAProxy: others are served."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from nats_fixture import open_broker
from proxy_fixture import Bench, scaled

REQUEST = b"POST /v1/devices HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"


async def request(port: int, data: bytes) -> bytes:
    """The status line of the answer; empty if the connection is closed without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await reader.readline()
    except OSError:
        return b""
    finally:
        writer.close()


async def test_idle_connections_of_one_address(tmp_path: Path) -> None:
    """One address with many idle connections, or bodies that do not arrive, keeps out no other and no device."""
    limits = scaled(max_connections=400, first_packet_s=1.0)
    async with (
        Bench(tmp_path, limits=limits) as bench,
        open_broker(tmp_path / "one") as one,
        contextlib.AsyncExitStack() as held,
    ):
        agent = await bench.agent()
        bench.apis = (f"127.0.0.1:{agent.port}",)
        role = await held.enter_async_context(bench.balancer())
        await bench.unit("b1", one.config.mqtt_port)
        await role.step()
        port = bench.config.http_port
        assert port is not None

        async def attack(n: int) -> None:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
                held.callback(writer.close)
                if n % 2:
                    writer.write(REQUEST)

        for n in range(600):
            await attack(n)
            if n % 100 == 50:
                assert b"200" in await request(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert await (await bench.device()).alive()
        assert not any(REQUEST[:9] in each for each in agent.requests)  # only whole requests are passed


async def test_slow_body_is_refused(tmp_path: Path) -> None:
    """A request whose body does not arrive in time gets 408, and one with its body is passed."""
    async with Bench(tmp_path, limits=scaled(first_packet_s=0.5)) as bench:
        agent = await bench.agent()
        bench.apis = (f"127.0.0.1:{agent.port}",)
        async with bench.balancer():
            port = bench.config.http_port
            assert port is not None
            assert b"408" in await request(port, REQUEST)
            assert b"200" in await request(port, REQUEST + b"123456789")
