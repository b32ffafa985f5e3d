"""`headcount up` as users run it: a process with its roles as children, in its own folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from headcount.errors import HeadcountError
from headcount.lab.load.process_usage import parts
from headcount.lab.running_system import RunningSystem
from headcount.messages.topics import INTERNAL
from headcount.messaging.connection import Connection, Endpoint, connected
from headcount.runtime.ports import free_ports
from headcount.runtime.proc import all_processes
from headcount.runtime.processes import ChildProcess, start_process
from headcount.settings.environment import foreign_environment

READY_S, STOP_S = 90.0, 60.0
_PORTS = ("mqtt", "ws", "http", "nats")


class UpSystem(RunningSystem):
    """`headcount up` on free ports, ready inside of the async context."""

    def __init__(
        self,
        folder: Path,
        site: Path,
        partitions: int,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Run in `folder` with the data in `folder/data`.

        Args:
            folder: exists.
            site: a site file.
            partitions: of the log.
            arguments: additional ones of `up`, such as `--elastic`.
            environment: settings as environment variables.
        """
        self.folder, self.data, self.partitions = folder, folder / "data", partitions
        self.ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.log = folder / "up.log"
        self._environment = foreign_environment() | {"HEADCOUNT_LOG_LEVEL": "INFO"} | dict(environment or {})
        ports = [word for name, port in self.ports.items() for word in (f"--{name}-port", str(port))]
        self._command = [sys.executable, "-m", "headcount", "up", "--open", "--site", str(site)]
        self._command += ["--data", str(self.data), "--partitions", str(partitions), *ports, *arguments]
        self._process: ChildProcess | None = None

    async def start(self) -> None:
        """Start the process, and wait until it is ready."""
        self._process = await start_process(
            "up", self._command, folder=self.folder, environment=self._environment, output=self.log
        )
        await self._ready()

    async def stop(self) -> None:
        """Stop it like a user; kill it after `STOP_S`."""
        if self._process is not None:
            await self._process.stop(STOP_S)

    async def _ready(self) -> None:
        process = self._process
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while process is not None and process.running:
                    status, _ = await self.get("/readyz")
                    if status == 200:
                        return
                    await asyncio.sleep(0.2)
        output = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
        raise HeadcountError(f"`headcount up` is not ready after {READY_S:.0f} s; its output: {output}")

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a path of the API; (0, None) without a response."""
        return await asyncio.to_thread(get, f"http://127.0.0.1:{self.ports['http']}{path}")

    @property
    def mqtt_port(self) -> int:
        """The port for devices."""
        return self.ports["mqtt"]

    def roots(self) -> list[int]:
        """The process ids of the system, without descendants."""
        return [self._process.pid] if self._process else []

    async def written_history(self) -> Path:
        """Stop the history writer, which then writes its buffer (`up` restarts it); return the data folder."""
        writers = [process.pid for process, part in parts(all_processes(), self.roots()) if part == "history"]
        for writer in writers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(writer, signal.SIGTERM)
        async with asyncio.timeout(STOP_S):
            while _any_running(writers):  # noqa: ASYNC110 - they are no children of ours
                await asyncio.sleep(0.05)
        return self.data

    @property
    def secret(self) -> str:
        """The deployment's secret."""
        return (self.data / "secret").read_text().strip()

    def connect(self) -> AbstractAsyncContextManager[Connection]:
        """A connection with all rights that reconnects after every failure."""
        return connect("127.0.0.1", self.ports["nats"], self.secret)


def _any_running(pids: Sequence[int]) -> bool:
    return any(Path(f"/proc/{pid}").exists() for pid in pids)


def connect(host: str, port: int, secret: str) -> AbstractAsyncContextManager[Connection]:
    """A connection with all rights that reconnects after every failure."""
    return connected(Endpoint(((host, port),), INTERNAL, secret), "headcount bench", retry_s=0.2)


def get(url: str) -> tuple[int, Any]:
    """Status and JSON of a URL; (0, None) without a response."""
    try:
        with urllib.request.urlopen(url, timeout=3) as response:  # noqa: S310 - our own address
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, None
    except (OSError, ValueError):
        return 0, None
