"""A balancer for a test: real HAProxy, what stands behind it, and devices that speak raw MQTT.

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
from headcount.proxy.balancer import ProxyParts, Role, opened
from headcount.proxy.haproxy_config import ProxyConfig, ProxyLimits
from headcount.proxy.haproxy_program import Program, find_program
from headcount.proxy.runtime_api import Runtime
from headcount.runtime.ports import free_ports
from headcount.tls.tls_files import TlsFiles
from waiting import in_thread


def haproxy() -> Program:
    """The HAProxy that the product itself would take; skips the test when there is none."""
    try:
        program = in_thread(find_program())
    except ProxyVersionError as error:
        pytest.skip(str(error))
    print(f"HAProxy {program.version} at {program.path}")
    return program


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something outside of this process; the time limit of the test is the limit."""
    while not condition():  # noqa: ASYNC110 - nobody sets an event for us
        await asyncio.sleep(0.02)


class Agent:
    """What answers `GET /healthz` beside a broker, and as an API; `status` is for the test to set."""

    def __init__(self) -> None:
        """Answer 200 at first."""
        self.status = 200
        self.requests: list[bytes] = []
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request on a connection of its own."""
        with suppress(OSError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(request)
            writer.write(b"HTTP/1.1 %d x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok" % self.status)
            await writer.drain()
        writer.close()


class Bench:
    """Units, their agents and a core that may be away, all in the test's hands."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        """Balance on free ports; `changes` go into the `ProxyConfig`."""
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
        """An HTTP server whose answer the test chooses."""
        agent = Agent()
        server = await asyncio.start_server(agent.answer, "127.0.0.1", 0)
        self._opened.push_async_callback(server.wait_closed)
        self._opened.callback(server.close)
        agent.port = server.sockets[0].getsockname()[1]
        return agent

    async def unit(self, name: str, mqtt_port: int, ws_port: int = 1) -> Agent:
        """A unit that says it is up; its agent."""
        agent = self.agents[name] = await self.agent()
        self.units[name] = BrokerUnit(
            name, "0", "2", "127.0.0.1", mqtt_port, ws_port, agent.port, "up", 0, 0.0, 0.0, 0.0
        )
        return agent

    def drain(self, name: str) -> None:
        """Have a unit say that it drains."""
        self.units[name].state = "draining"

    async def device(self, keepalive_s: int = 60) -> Device:
        """A device behind the balancer, gone at the end; OSError or EOFError when it isn't let in."""
        device = await Device.open(self.config.mqtt_port, keepalive_s)
        self._opened.callback(device.close)
        return device

    async def try_device(self) -> Device | None:
        """A device, or None when it isn't let in."""
        try:
            return await self.device()
        except (OSError, EOFError):
            return None

    async def table(self) -> UnitTable:
        """The table of units, as the role asks for it."""
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

    def settings(self) -> ProxyParts:
        """What the role is started with."""
        return ProxyParts(self.config, self.folder, self.table, apis=self.apis, tls=self.tls, bans=self.bans)

    async def pid(self) -> int:
        """The HAProxy that answers in the folder; 0 while there is none."""
        try:
            return await Runtime(self.folder).pid()
        except ProxyError:
            return 0

    @asynccontextmanager
    async def balancer(self) -> AsyncIterator[Role]:
        """The role with a running HAProxy, brought in line once."""
        async with opened(self.settings()) as role:
            await role.step()
            yield role


async def states(role: Role, backend: str = "mqtt") -> dict[str, str]:
    """Unit → what HAProxy says of its server; UP without a share of new connections is DRAIN."""
    standing = (await role.haproxy.runtime.standing()).get(backend, {})
    return {
        name.split("-")[0]: "DRAIN" if status.status == "UP" and not status.weight else status.status
        for name, status in standing.items()
    }


async def stepping_until(
    role: Role, condition: Callable[[dict[str, str]], bool], backend: str = "mqtt"
) -> None:
    """Step until the servers' states (unit → status) are as wanted."""
    while True:
        await role.step()
        with suppress(Exception):
            if condition(await states(role, backend)):
                return
        await asyncio.sleep(0.05)


CONNECTED, PONG = b"\x20\x02\x00\x00", b"\xd0\x00"
_ids = itertools.count()


def connect_packet(client_id: str, keepalive_s: int = 60) -> bytes:
    """An MQTT 3.1.1 CONNECT with a clean session."""
    name = client_id.encode()
    body = b"\x00\x04MQTT\x04\x02" + keepalive_s.to_bytes(2) + len(name).to_bytes(2) + name
    return bytes([0x10, len(body)]) + body


class Device:
    """A connection that has had its CONNACK."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use `open`."""
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, keepalive_s: int = 60) -> Self:
        """Connect; raises OSError or EOFError when it isn't let in."""
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
        """A ping is answered."""
        try:
            self.writer.write(b"\xc0\x00")
            return await self.reader.readexactly(2) == PONG
        except (OSError, EOFError):
            return False

    def close(self) -> None:
        """Leave without a word."""
        self.writer.close()


def scaled(**changes: Any) -> ProxyLimits:
    """Limits with health checks quick enough for a test."""
    return ProxyLimits(**({"check_every_s": 0.1} | changes))
