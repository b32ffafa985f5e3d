"""A balancer for tests: a real HAProxy, servers behind it, and devices with raw MQTT.

async with Bench(tmp_path) as bench:        # a core table that the test writes, agents' health
    unit = await bench.unit("b1", broker.config.mqtt_port, broker.config.ws_port)
    async with bench.balancer() as role:    # headcount.proxy.balancer.Role; call `await role.step()`
        device = await bench.device()
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from headcount.errors import LogError, ProxyError, ProxyVersionError
from headcount.messages.units import BrokerUnit
from headcount.messaging.units import UnitTable
from headcount.proxy.address_bans import AddressBans
from headcount.proxy.balancer import Balancer, BalancerOptions, opened
from headcount.proxy.haproxy_program import HaproxyProgram, find_program
from headcount.proxy.proxy_config import ProxyConfig, ProxyLimits
from headcount.proxy.runtime_api import HaproxyRuntime
from headcount.runtime.ports import free_ports
from headcount.tls.tls_files import TlsFiles
from waiting import in_thread, until


def haproxy() -> HaproxyProgram:
    """The HAProxy that headcount would use; skips the test without one."""
    try:
        program = in_thread(find_program())
    except ProxyVersionError as error:
        pytest.skip(str(error))
    print(f"HAProxy {program.version} at {program.path}")
    return program


class Agent:
    """Answers `GET /healthz` for a broker or API with a `status` that the test sets."""

    def __init__(self) -> None:
        """Answer 200 initially."""
        self.status = 200
        self.requests: list[bytes] = []
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        with suppress(OSError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(request)
            writer.write(b"HTTP/1.1 %d x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok" % self.status)
            await writer.drain()
        writer.close()


class Bench:
    """Units, their agents and a core, all controlled by the test."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        """Use free ports; `changes` apply to the `ProxyConfig`."""
        mqtt, self.ws_port, http, health = free_ports(4)
        ports = {"mqtt_port": mqtt, "ws_port": self.ws_port, "http_port": http, "health_port": health}
        self.config = ProxyConfig(**(ports | changes))
        self.folder = folder / "proxy"
        self.apis: tuple[str, ...] = ()
        self.tls: TlsFiles | None = None
        self.core_away = False
        self.bans = AddressBans()
        self.now_s = 1000.0
        self.spoke_s: dict[str, float] = {}
        self.units: dict[str, BrokerUnit] = {}
        self.agents: dict[str, Agent] = {}
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.aclose()

    async def agent(self) -> Agent:
        """An HTTP server with a status that the test sets."""
        agent = Agent()
        server = await asyncio.start_server(agent.answer, "127.0.0.1", 0)
        self._opened.push_async_callback(server.wait_closed)
        self._opened.callback(server.close)
        agent.port = server.sockets[0].getsockname()[1]
        return agent

    async def unit(self, name: str, mqtt_port: int, ws_port: int = 1) -> Agent:
        """Add a unit that is up; returns its agent."""
        agent = self.agents[name] = await self.agent()
        self.units[name] = BrokerUnit(
            name, "0", "2", "127.0.0.1", mqtt_port, ws_port, agent.port, "up", 0, 0.0, 0.0, 0.0
        )
        return agent

    def drain(self, name: str) -> None:
        """Make a unit report that it drains."""
        self.units[name].state = "draining"

    async def device(self, keepalive_s: int = 60) -> Device:
        """A device at the balancer; raises OSError or EOFError if it is rejected."""
        device = await Device.open(self.config.mqtt_port, keepalive_s)
        self._opened.callback(device.close)
        return device

    async def try_device(self) -> Device | None:
        """A device, or None if it is rejected."""
        try:
            return await self.device()
        except (OSError, EOFError):
            return None

    async def table(self) -> UnitTable:
        """The table of units for the balancer."""
        if self.core_away:
            raise LogError("the core is away")
        return UnitTable(
            self.now_s,
            {name: (unit, self.spoke_s.get(name, self.now_s)) for name, unit in self.units.items()},
        )

    def with_tls(self, files: TlsFiles) -> None:
        """Listen for TLS, with this certificate."""
        self.config = replace(self.config, tls=True, client_certificates=files.clients is not None)
        self.tls = files

    def settings(self) -> BalancerOptions:
        """The options of the balancer."""
        return BalancerOptions(
            self.config, self.folder, self.table, apis=self.apis, tls=self.tls, bans=self.bans
        )

    async def pid(self) -> int:
        """The process id of the HAProxy in the folder; 0 while there is none."""
        try:
            return await HaproxyRuntime(self.folder).pid()
        except ProxyError:
            return 0

    @asynccontextmanager
    async def balancer(self) -> AsyncIterator[Balancer]:
        """A balancer with a running HAProxy, after one step."""
        async with opened(self.settings()) as role:
            await role.step()
            yield role


async def states(role: Balancer, backend: str = "mqtt") -> dict[str, str]:
    """Unit → the state of its server in HAProxy; UP with weight 0 is DRAIN."""
    standing = (await role.haproxy.runtime.statuses()).get(backend, {})
    return {
        name.split("-")[0]: "DRAIN" if status.status == "UP" and not status.weight else status.status
        for name, status in standing.items()
    }


async def stepping_until(
    role: Balancer, condition: Callable[[dict[str, str]], bool], backend: str = "mqtt"
) -> None:
    """Step until the servers have these states (unit → status)."""
    found: dict[str, str] = {}

    async def reached() -> bool:
        nonlocal found
        await role.step()
        with suppress(Exception):
            found = await states(role, backend)
            return condition(found)
        return False

    await until(reached, f"the states of the backend {backend}", every_s=0.05)


CONNECTED, PONG = b"\x20\x02\x00\x00", b"\xd0\x00"
_ids = itertools.count()


def connect_packet(client_id: str, keepalive_s: int = 60) -> bytes:
    """An MQTT 3.1.1 CONNECT with a clean session."""
    name = client_id.encode()
    body = b"\x00\x04MQTT\x04\x02" + keepalive_s.to_bytes(2) + len(name).to_bytes(2) + name
    return bytes([0x10, len(body)]) + body


class Device:
    """A connection after its CONNACK."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use `open`."""
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, keepalive_s: int = 60) -> Self:
        """Connect; raises OSError or EOFError if it is rejected."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(connect_packet(f"d{next(_ids)}", keepalive_s))
        answer = b""
        try:
            answer = await reader.readexactly(4)
        finally:
            if answer != CONNECTED:
                writer.close()
        if answer != CONNECTED:
            raise ConnectionRefusedError(answer)
        return cls(reader, writer)

    async def alive(self) -> bool:
        """Check that a ping is answered."""
        try:
            self.writer.write(b"\xc0\x00")
            return await self.reader.readexactly(2) == PONG
        except (OSError, EOFError):
            return False

    def close(self) -> None:
        """Disconnect without a DISCONNECT packet."""
        self.writer.close()


def scaled(**changes: Any) -> ProxyLimits:
    """Limits with quick health checks."""
    return ProxyLimits(**({"check_every_s": 0.1} | changes))
