"""The system under test: core, counting workers and history writers, each in its own process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal

from headcount.counting.site_file import parse_site
from headcount.errors import HeadcountError, LogError, SiteVersionError
from headcount.lab.chaos.fault_schedule import HISTORY_WRITERS
from headcount.lab.running_system import RunningSystem
from headcount.messages.topics import INTERNAL
from headcount.messaging.connection import Connection, Endpoint, connected, connected_once
from headcount.messaging.jetstream import stream_info
from headcount.roles.secret import secret_of
from headcount.runtime.ports import free_ports
from headcount.runtime.processes import start_process
from headcount.runtime.retry import Backoff
from headcount.runtime.supervisor import Supervised
from headcount.services.actors import COMMAND_LINE
from headcount.services.container import Services
from headcount.settings.deployment import Settings

STOP_S = 15.0
RETRY_S = 0.5
READY_S = 60.0


class RestartedRole:
    """A process that is restarted when it exits unexpectedly, as by `headcount up`."""

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
        """Start it; restart it whenever it exits before `stop`."""
        await self._supervised.__aenter__()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._supervised.process is not None:
            self._supervised.process.send(number)

    async def stop(self) -> None:
        """Stop it for good; kill it after STOP_S."""
        await self._supervised.stop()

    async def kill(self) -> None:
        """Kill it for good."""
        await self._supervised.stop(())


class ChaosSystem(RunningSystem):
    """Broker, history writers and workers on free ports, as an async context manager."""

    def __init__(
        self,
        folder: Path,
        data: Path,
        site: Path,
        partitions: int,
        workers: int,
        versions: Sequence[dict[str, Any]] = (),
        second: dict[str, Any] | None = None,
    ) -> None:
        """Run in `folder` with the data in `data` and `workers` workers, numbered from 1.

        `versions` are those to which the site is changed, one after the other; `second` is the site that is added.
        """
        self._versions = list(versions)
        self._second = second
        mqtt, ws, http, nats_port, leaf = free_ports(5)
        self.folder, self.data = folder, data
        self.settings = Settings(
            site=site,
            data=data,
            mqtt_port=mqtt,
            ws_port=ws,
            http_port=http,
            nats_port=nats_port,
            leaf_port=leaf,
            partitions=partitions,
            open=True,
            log_level="INFO",
        )
        self._environment = self.settings.environment()
        self.core = RestartedRole("core", "core", folder, self._environment)
        self.histories = {
            number: RestartedRole(f"history-{number}", "history", folder, self._environment)
            for number in range(1, HISTORY_WRITERS + 1)
        }
        self.workers: dict[int, RestartedRole] = {}
        self._first = workers

    async def start(self) -> None:
        """Start the core and, when it is ready, the history and the workers."""
        secret_of(self.settings)
        await self.core.start()
        await self.ready()
        for history in self.histories.values():
            await history.start()
        for number in range(1, self._first + 1):
            await self.join(number)

    async def stop(self) -> None:
        """Stop all roles, suspended ones too."""
        for role in (*self.workers.values(), *self.histories.values(), self.core):
            role.send(signal.SIGCONT)
            await role.stop()

    async def ready(self) -> None:
        """Wait until the broker has its streams.

        Raises:
            HeadcountError: it does not start.
        """
        problem: Exception = TimeoutError("no response yet")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while True:
                    try:
                        async with connected_once(self._endpoint, "headcount chaos test") as connection:
                            await stream_info(connection, "KV_LEASE", timeout_s=2.0)
                            return
                    except LogError as error:
                        problem = error
                        await asyncio.sleep(0.1)
        raise HeadcountError(f"the core did not start: {problem!r}; its log is {self.core.log}")

    def connect(self) -> AbstractAsyncContextManager[Connection]:
        """A connection with all rights that reconnects after every failure."""
        return connected(self._endpoint, "headcount chaos test", retry_s=0.1)

    @property
    def _endpoint(self) -> Endpoint:
        return Endpoint((("127.0.0.1", self.settings.nats_port),), INTERNAL, secret_of(self.settings))

    async def join(self, number: int) -> None:
        """Start a worker."""
        self.workers[number] = RestartedRole(f"count-{number}", "count", self.folder, self._environment)
        await self.workers[number].start()

    async def change_sites(self, change: Literal["site change", "site added", "site removed"]) -> str:
        """Change the first site, or add or remove the second one; return why it could not be done, "" if it was."""
        if change == "site change":
            return await self._change_site()
        return await (self._add_site() if change == "site added" else self._remove_site())

    async def _change_site(self) -> str:
        site = parse_site(self._versions[0], "chaos test")
        try:
            async with connected_once(self._endpoint, "headcount chaos test") as connection:
                services = Services(connection, secret_of(self.settings))
                await services.sites.update(COMMAND_LINE, site)
        except LogError as error:
            return f"the core did not answer: {error}"
        del self._versions[0]
        return ""

    async def _add_site(self) -> str:
        site = parse_site(self._second or {}, "chaos test")

        async def add(services: Services) -> None:
            with contextlib.suppress(SiteVersionError):  # it was stored, but the answer was lost
                await services.sites.add(COMMAND_LINE, site)

        return await self._until_answered(add)

    async def _remove_site(self) -> str:
        site = parse_site(self._second or {}, "chaos test")

        async def remove(services: Services) -> None:
            with contextlib.suppress(SiteVersionError):  # see above
                await services.sites.remove(COMMAND_LINE, site.id)

        return await self._until_answered(remove)

    async def _until_answered(self, change: Callable[[Services], Awaitable[None]]) -> str:
        """Change something, as soon as the core answers."""
        problem = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while True:
                    try:
                        async with connected_once(self._endpoint, "headcount chaos test") as connection:
                            await change(Services(connection, secret_of(self.settings)))
                            return ""
                    except LogError as error:
                        problem = f"the core did not answer: {error}"
                        await asyncio.sleep(0.5)
        return problem

    def kill_broker(self) -> bool:
        """Kill the NATS server, not the role that supervises it; return whether it was running."""
        try:
            os.kill(int((self.data / "broker.pid").read_text()), signal.SIGKILL)
        except (OSError, ValueError):
            return False
        return True

    def roles(self) -> list[RestartedRole]:
        """All roles, including stopped ones."""
        return [self.core, *self.histories.values(), *self.workers.values()]
