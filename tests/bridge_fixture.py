"""A bridge in the test's process, messages for it, and what it stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from headcount.bridge import runner
from headcount.bridge.source import Source, open_source, source_options
from headcount.broker.core import Broker
from headcount.decoders.formats import SHIPPED
from headcount.messages.topics import FIX_STREAM, FOREIGN_STREAM
from headcount.settings.bridge import BridgeSettings
from nats_fixture import endpoint_of, internal_client
from waiting import until


@asynccontextmanager
async def bridge(broker: Broker, url: str, *, wait: bool = True, **settings: Any) -> AsyncIterator[Source]:
    """Run a bridge during the block, with `wait` once it is connected; its source."""
    stop = asyncio.Event()
    options = source_options(BridgeSettings(from_=url, **settings), "test", SHIPPED)
    source = open_source(options)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(
            runner.run(endpoint_of(broker), options.name, source, stop, formats=SHIPPED, accounts=False)
        )
        try:
            if wait:
                await until(lambda: not source.problem, "the bridge is connected")
            yield source
        finally:
            stop.set()


def fix(number: int, t_s: float) -> bytes:
    """A fix whose battery level is its number."""
    return json.dumps({"lat": 52.6735, "lon": -8.5731, "acc": 8, "t": t_s, "batt": number}).encode()


def numbers(payloads: list[bytes]) -> list[int]:
    """The numbers of fixes."""
    return [json.loads(payload)["batt"] for payload in payloads]


async def logged(broker: Broker) -> dict[str, list[bytes]]:
    """All messages of the log and of FOREIGN, by subject without the partition, in order."""
    client = await internal_client(broker)
    found: dict[str, list[bytes]] = {}
    try:
        names = [*(FIX_STREAM.format(partition=p) for p in range(broker.config.partitions)), FOREIGN_STREAM]
        for name in names:
            state = (await client.jetstream().stream_info(name)).state
            for sequence in range(max(state.first_seq, 1), state.last_seq + 1):
                message = await client.jetstream().get_msg(name, sequence)
                subject = message.subject or ""
                if not subject.endswith(".tick"):
                    key = subject if name == FOREIGN_STREAM else subject.split(".", 2)[2]
                    found.setdefault(key, []).append(message.data or b"")
    finally:
        await client.close()
    return found


class StallingProxy:
    """A TCP proxy whose network can be cut: connections stay open, and nothing passes."""

    def __init__(self, port: int) -> None:
        """Forward to this port of the machine."""
        self.port = 0
        self._to = port
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Let nothing pass any more."""
        self._open.clear()

    def join(self) -> None:
        """Let everything pass again, what was sent meanwhile first."""
        self._open.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.close()
            return
        for source, target in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(self._forward(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(1 << 16):
                await self._open.wait()
                target.write(data)
                await target.drain()
        target.close()
