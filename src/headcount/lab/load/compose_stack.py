"""The same system as containers: `deploy/compose.yaml` with its scaler, which starts brokers and workers."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import secrets
import shutil
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from headcount.errors import HeadcountError
from headcount.lab.load.up_system import connect, get
from headcount.lab.running_system import RunningSystem
from headcount.messaging.connection import Connection
from headcount.runtime.ports import free_ports
from headcount.settings.environment import process_environment

READY_S = 120.0
COMPOSE = Path("deploy/compose.yaml")


class ComposeStack(RunningSystem):
    """A stack with its own name, networks, volumes and ports, as an async context manager."""

    def __init__(self, folder: Path, site: Path, partitions: int, environment: Mapping[str, str]) -> None:
        """Prepare a stack; `environment` is for the scaler.

        Raises:
            HeadcountError: Compose, the package docker or the stack is missing.
        """
        self.folder, self.partitions = folder, partitions
        self._compose = _compose()
        self._file = COMPOSE.resolve()
        if not self._file.exists():
            raise HeadcountError(
                f"--driver docker: {COMPOSE} does not exist here; run the command in a checkout of headcount"
            )
        self._project = f"headcount-bench-{secrets.token_hex(3)}"
        self.mqtt_port, ws_port, self._http_port = free_ports(3)
        self._environment = {
            **process_environment(),
            "HEADCOUNT_SITE_FILE": str(site.resolve()),
            "HEADCOUNT_OPEN": "true",
            "HEADCOUNT_TLS": "off",
            "PARTITIONS": str(partitions),
            "DRAIN_S": environment["HEADCOUNT_DRAIN_S"],
            "MQTT_PORT": str(self.mqtt_port),
            "WS_PORT": str(ws_port),
            "HTTP_PORT": str(self._http_port),
        }
        own = {
            name: value for name, value in environment.items() if not name.endswith(("_DRIVER", "_DRAIN_S"))
        }
        self._override = folder / "scale.json"  # JSON is YAML
        self._override.write_text(json.dumps({"services": {"scale": {"environment": own}}}))
        self._engine: Any = _engine()
        self._pids: dict[str, int] = {}
        self.secret = ""

    async def start(self) -> None:
        """Start the stack without brokers and workers, which its scaler starts."""
        scale = ("--scale", "broker=0", "--scale", "count=0")
        await self._run("up", "--detach", "--no-build", "--quiet-pull", *scale)
        await self._ready()
        self.secret = (await self._run("exec", "-T", "core", "cat", "/shared/secret")).strip()

    async def _ready(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while True:
                    status, _ = await self.get("/readyz")
                    if status == 200:
                        return
                    await asyncio.sleep(0.3)
        raise HeadcountError(
            f"the stack is not ready after {READY_S:.0f} s: {await self._run('ps', '--all')}"
        )

    async def stop(self) -> None:
        """Remove the stack; its logs stay in the folder."""
        with contextlib.suppress(HeadcountError):
            (self.folder / "up.log").write_text(await self._run("logs", "--no-color"))
            await self._run("stop", "scale")
        for container in self._containers(f"headcount.deployment={self._project}"):
            await asyncio.to_thread(self._engine.remove_container, container["Id"], force=True, v=True)
        await self._run("down", "--volumes", "--timeout", "10", "--remove-orphans")

    async def _run(self, *arguments: str) -> str:
        """Run Compose; return its output.

        Raises:
            HeadcountError: it fails.
        """
        files = ("--file", str(self._file), "--file", str(self._override))
        process = await asyncio.create_subprocess_exec(
            *self._compose,
            *files,
            "--project-name",
            self._project,
            "--profile",
            "elastic",
            *arguments,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        if process.returncode:
            raise HeadcountError(f"docker compose {arguments[0]}: {err.decode(errors='replace')[-2000:]}")
        return out.decode(errors="replace")

    def _containers(self, *labels: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._engine.containers(all=True, filters={"label": list(labels)})
        return found

    # --- for a run ------------------------------------------------------------------------------------
    async def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a path of the API; (0, None) without a response."""
        return await asyncio.to_thread(get, f"http://127.0.0.1:{self._http_port}{path}")

    def connect(self) -> AbstractAsyncContextManager[Connection]:
        """A connection with all rights that reconnects after every failure."""
        core = self._containers(
            f"com.docker.compose.project={self._project}", "com.docker.compose.service=core"
        )
        address = core[0]["NetworkSettings"]["Networks"][f"{self._project}_inside"]["IPAddress"]
        return connect(address, 4222, self.secret)

    def roots(self) -> list[int]:
        """The first process of each container."""
        labels = (f"com.docker.compose.project={self._project}", f"headcount.deployment={self._project}")
        ids = [
            container["Id"]
            for label in labels
            for container in self._containers(label)
            if container["State"] == "running"
        ]
        for new in [one for one in ids if one not in self._pids]:
            with contextlib.suppress(Exception):  # it has ended meanwhile
                self._pids[new] = int(self._engine.inspect_container(new)["State"]["Pid"])
        return [self._pids[one] for one in ids if self._pids.get(one)]

    async def written_history(self) -> Path:
        """Stop the history writer, which then writes its buffer, and copy the data folder."""
        await self._run("stop", "history")
        data = self.folder / "data"
        await self._run("cp", "history:/data", str(data))
        return data


def _compose() -> list[str]:
    """The command of Docker Compose: the program or the plugin."""
    beside = Path(sys.executable).with_name("docker-compose")
    program = str(beside) if beside.exists() else shutil.which("docker-compose")
    if program:
        return [program]
    docker = shutil.which("docker")
    if docker is None:
        raise HeadcountError("--driver docker: neither docker-compose nor docker is on PATH")
    return [docker, "compose"]


def _engine() -> Any:
    """Docker Engine's API.

    Raises:
        HeadcountError: the package is missing, or no engine responds.
    """
    try:
        docker: Any = importlib.import_module("docker")
    except ImportError as error:
        raise HeadcountError("--driver docker needs a package: pip install 'headcount[docker]'") from error
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        raise HeadcountError(f"--driver docker: no engine responds: {error}") from error
    return client.api
