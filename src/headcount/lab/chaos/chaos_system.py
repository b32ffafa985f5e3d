"""The system under proof: broker, counting workers and history, each a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from headcount.broker.nats_config import INTERNAL
from headcount.errors import HeadcountError, LogError
from headcount.messaging.connection import Connection, Endpoint, connected, connected_once
from headcount.messaging.jetstream import stream_info
from headcount.roles.secret import secret_of
from headcount.runtime.ports import free_ports
from headcount.runtime.processes import start_process
from headcount.runtime.retry import Backoff
from headcount.runtime.supervisor import Supervised
from headcount.settings.deployment import Settings

STOP_S = 15.0
RETRY_S = 0.5
READY_S = 60.0


class RestartedRole:
    """A process that is started again when it ends by itself, as `headcount up` does it."""

    def __init__(self, name: str, role: str, folder: Path, environment: Mapping[str, str]) -> None:
        """Run `headcount run <role>` as `name`; its output is in `<folder>/<name>.log`."""
        self.name = name
        self.log = folder / f"{name}.log"
        self.ended: list[int] = []  # exit codes of processes that were neither stopped nor killed
        command = [sys.executable, "-m", "headcount", "run", role]
        self._supervised = Supervised(
            name,
            partial(start_process, name, command, environment=environment, output=self.log),
            stop_s=(STOP_S,),
            backoff=Backoff(RETRY_S, RETRY_S),
            on_exit=self._note,
        )

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._supervised.pid

    def _note(self, code: int) -> None:
        if code != -signal.SIGKILL:
            self.ended.append(code)

    async def start(self) -> None:
        """Start it, and again whenever it ends before `stop`."""
        await self._supervised.__aenter__()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._supervised.process is not None:
            self._supervised.process.send(number)

    async def stop(self) -> None:
        """End it for good; it is killed when it takes longer than STOP_S."""
        await self._supervised.stop()

    async def kill(self) -> None:
        """Kill it for good."""
        await self._supervised.stop(())


class ChaosSystem:
    """Broker, history and workers on free ports, as an async context manager."""

    def __init__(self, folder: Path, data: Path, site: Path, partitions: int, workers: int) -> None:
        """Run in `folder` with the data in `data`, at first with so many workers, numbered from 1."""
        mqtt, ws, http, nats_port, monitor, leaf = free_ports(6)
        self.folder, self.data = folder, data
        self.settings = Settings(
            site=site,
            data=data,
            mqtt_port=mqtt,
            ws_port=ws,
            http_port=http,
            nats_port=nats_port,
            monitor_port=monitor,
            leaf_port=leaf,
            partitions=partitions,
            open=True,
            log_level="INFO",
        )
        self._environment = self.settings.environment()
        self.broker = RestartedRole("broker", "core", folder, self._environment)
        self.history = RestartedRole("history", "history", folder, self._environment)
        self.workers: dict[int, RestartedRole] = {}
        self._first = workers

    async def __aenter__(self) -> Self:
        try:
            secret_of(self.settings)
            await self.broker.start()
            await self.ready()
            await self.history.start()
            for number in range(1, self._first + 1):
                await self.join(number)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        for role in (*self.workers.values(), self.history, self.broker):
            role.send(signal.SIGCONT)
            await role.stop()

    async def ready(self) -> None:
        """Wait until the broker has its streams.

        Raises:
            HeadcountError: it doesn't come up.
        """
        problem: Exception = TimeoutError("no answer yet")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while True:
                    try:
                        async with connected_once(self._core, "headcount prove") as connection:
                            await stream_info(connection, "KV_LEASE", timeout_s=2.0)
                            return
                    except LogError as error:
                        problem = error
                        await asyncio.sleep(0.1)
        raise HeadcountError(f"the broker doesn't come up: {problem!r}; its log is {self.broker.log}")

    def connect(self) -> AbstractAsyncContextManager[Connection]:
        """A connection with all rights that comes back after every break."""
        return connected(self._core, "headcount prove", retry_s=0.1)

    @property
    def _core(self) -> Endpoint:
        return Endpoint((("127.0.0.1", self.settings.nats_port),), INTERNAL, secret_of(self.settings))

    async def join(self, number: int) -> None:
        """Start a worker."""
        self.workers[number] = RestartedRole(f"count-{number}", "count", self.folder, self._environment)
        await self.workers[number].start()

    def kill_broker(self) -> bool:
        """Kill the NATS server itself, not the role that watches it; whether there was one."""
        try:
            os.kill(int((self.data / "broker.pid").read_text()), signal.SIGKILL)
        except (OSError, ValueError):
            return False
        return True

    def roles(self) -> list[RestartedRole]:
        """Every role that has ever run."""
        return [self.broker, self.history, *self.workers.values()]


async def _ignore(_: Exception) -> None:
    """The broker is killed on purpose."""
