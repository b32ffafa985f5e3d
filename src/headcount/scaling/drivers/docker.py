"""Units as containers of one Docker Engine (API 1.41 and newer, by the package `docker`).

Only containers with our deployment's label are looked at or touched. Those that an earlier scaler left
are taken over; those that have exited are removed, and their last words logged. The engine never restarts
one: the scaler does, so that two don't. A container is read-only but for /tmp and /data, has no
capabilities and can't gain any, and is limited in memory, CPU and processes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
import docker.errors
import requests.exceptions

from headcount.errors import ScalingError
from headcount.runtime.supervisor import FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S
from headcount.scaling.drivers import ROLES, Role, Unit, free_name

_log = logging.getLogger(__name__)

API_VERSION = "1.41"
LABEL_ROLE, LABEL_DEPLOYMENT, LABEL_UNIT = "headcount.role", "headcount.deployment", "headcount.unit"
#: Beyond the time for draining, until the engine kills a container that doesn't end.
GRACE_S = 10.0
#: So many calls at the same time, most of them waiting for a container to stop.
THREADS = 16
ANSWER_S = 30
#: Memory as disk: for temporary files; for data more than the room that a broker wants to see free.
TMP, DATA_MIB = "size=64m,mode=1777", 128
LAST_LINES = 5
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class ContainerOptions:
    """How each container is made."""

    deployment: str
    image: str
    environment: Mapping[str, str]
    network: str = ""
    binds: tuple[str, ...] = ()  # FROM:TO[:ro]
    user: str = ""
    memory_bytes: int = 512 << 20
    cores: Mapping[Role, float] | None = None
    pids: int = 256
    drain_s: float = 20.0
    command: tuple[str, ...] = ("run",)  # before the role


class DockerDriver:
    """Brokers and workers as containers."""

    kind = "docker"

    def __init__(self, options: ContainerOptions) -> None:
        """Nothing is asked of the engine yet."""
        self._options = options
        self._client: Any = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="docker")
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._cpu_s: dict[str, float] = {}  # of each container, by id
        self._names: dict[str, str] = {}  # id → unit
        self._deaths: dict[Role, tuple[int, float]] = {}  # how many in a row, and when the last was found

    async def __aenter__(self) -> Self:
        """Reach the engine."""
        self._client = await self._ask("reach the engine", _connect)
        for role in ROLES:
            found = [unit.name for unit in await self.units(role)]
            if found:
                _log.info("took over %s", ", ".join(found))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go; containers go on running for the next scaler."""
        for task in self._leaving.values():
            task.cancel()
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    async def units(self, role: Role) -> list[Unit]:
        """Our containers of a role that run; what has exited is removed."""
        units = []
        for container in await self._containers(role):
            name, state = container["Labels"].get(LABEL_UNIT, ""), container["State"]
            if not name.rpartition("-")[2].isdecimal():
                continue
            # `created` is one whose start failed, or was cut off
            if state in {"created", "exited", "dead"} and name not in self._leaving:
                deaths, last_s = self._deaths.get(role, (0, 0.0))
                steady = time.monotonic() - last_s > STEADY_S
                self._deaths[role] = (1 if steady else deaths + 1), time.monotonic()
                await self._bury(name, container["Id"], container["Status"])
                continue
            units.append(Unit(name, role, leaving=name in self._leaving or state == "removing"))
        return units

    async def add(self, role: Role) -> str:
        """Create and start one more; after containers that died, with growing pauses."""
        deaths, last_s = self._deaths.get(role, (0, 0.0))
        pause_s = min(FIRST_PAUSE_S * 2 ** min(deaths, 10), LONGEST_PAUSE_S) if deaths > 1 else 0.0
        if time.monotonic() - last_s < pause_s:
            raise ScalingError(f"start a {role}", f"the last {deaths} died", f"It waits {pause_s:.1f} s")
        taken = {c["Labels"].get(LABEL_UNIT, "") for c in await self._containers(role)}
        name = free_name(role, taken | set(self._leaving))
        await self._ask(f"start {name}", lambda: self._run(role, name))
        return name

    async def remove(self, role: Role, name: str) -> None:
        """SIGTERM, by and by SIGKILL, and gone."""
        if name in self._leaving:
            return
        for container in await self._containers(role):
            if container["Labels"].get(LABEL_UNIT) == name:
                task = asyncio.create_task(self._stop(name, container["Id"]), name=f"stop {name}")
                self._leaving[name] = task
                task.add_done_callback(lambda _: self._leaving.pop(name, None))

    async def cpu_seconds(self) -> dict[str, float]:
        """By unit; a container that is gone counts as it was last seen."""
        containers = [c for role in ROLES for c in await self._containers(role) if c["State"] == "running"]
        used = await asyncio.gather(*(self._cpu_of(c["Id"]) for c in containers))
        for container, cpu_s in zip(containers, used, strict=True):
            if cpu_s is not None:
                self._cpu_s[container["Id"]] = cpu_s
                self._names[container["Id"]] = container["Labels"].get(LABEL_UNIT, "")
        totals: dict[str, float] = {}
        for identity, cpu_s in self._cpu_s.items():
            totals[self._names[identity]] = totals.get(self._names[identity], 0.0) + cpu_s
        return totals

    # --- one container -----------------------------------------------------------------------------
    def _run(self, role: Role, name: str) -> None:
        options, client = self._options, self._client
        hostname = f"{options.deployment}-{name}"
        cores = (options.cores or {}).get(role, 0.0)
        host = client.create_host_config(
            binds=list(options.binds),
            mem_limit=options.memory_bytes,
            memswap_limit=options.memory_bytes,
            nano_cpus=int(cores * 1e9) or None,
            pids_limit=options.pids,
            read_only=True,
            tmpfs={"/tmp": TMP, "/data": self._data()},  # noqa: S108  # inside the container
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            network_mode=options.network or None,
            restart_policy={"Name": "no"},
        )
        own = {
            "HEADCOUNT_NAME": name,
            "HEADCOUNT_ADVERTISE": hostname,
            "HEADCOUNT_INSIDE_HOST": "0.0.0.0",
            "HEADCOUNT_DATA": "/data",
            "HEADCOUNT_HOST": "0.0.0.0",  # inside the container
            "HEADCOUNT_DRAIN_S": f"{options.drain_s:g}",
        }
        container = client.create_container(
            options.image,
            [*options.command, role],
            name=hostname,
            hostname=hostname,
            user=options.user or None,
            environment={**options.environment, **own},
            labels={LABEL_ROLE: role, LABEL_DEPLOYMENT: options.deployment, LABEL_UNIT: name},
            host_config=host,
            networking_config=self._networking(role),
            stop_timeout=math.ceil(options.drain_s + GRACE_S),
        )
        try:
            client.start(container["Id"])
        except docker.errors.APIError:
            client.remove_container(container["Id"], force=True)
            raise

    def _networking(self, role: Role) -> Any:
        """In a network of its own names, all units of a role share the role's name: monitoring finds them by it."""
        network, client = self._options.network, self._client
        if network in {"", "bridge", "host", "none"}:
            return None
        return client.create_networking_config({network: client.create_endpoint_config(aliases=[role])})

    def _data(self) -> str:
        """The options of /data, which belongs to whom the container runs as.

        `mode` alone isn't enough: runc gives a tmpfs the mode of the folder that it covers.
        """
        user = self._options.user
        if not user:
            user = self._client.inspect_image(self._options.image)["Config"].get("User") or ""
        match = re.fullmatch(r"(\d+)(?::(\d+))?", user)
        owner = f",uid={match[1]},gid={match[2] or match[1]}" if match else ""
        return f"size={DATA_MIB}m,mode=0700{owner}"

    async def _stop(self, name: str, identity: str) -> None:
        patience_s = math.ceil(self._options.drain_s + GRACE_S)
        try:
            await self._ask(f"stop {name}", lambda: self._client.stop(identity, timeout=patience_s))
            await self._ask(f"remove {name}", lambda: self._remove(identity))
        except ScalingError as error:
            _log.warning("%s", error)  # it is found, and told again, at the next look
        else:
            _log.info("%s has ended", name)

    async def _bury(self, name: str, identity: str, status: str) -> None:
        """Remove one that has exited by itself."""
        said = await self._ask(
            f"read the log of {name}", lambda: self._client.logs(identity, tail=LAST_LINES, stdout=True)
        )
        last = said.decode(errors="replace").strip().replace("\n", " | ")
        _log.warning("%s: %s; its last words: %s", name, status, last or "none")
        await self._ask(f"remove {name}", lambda: self._remove(identity))

    def _remove(self, identity: str) -> None:
        try:
            self._client.remove_container(identity, force=True, v=True)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            if error.status_code != 409:  # somebody is removing it already
                raise

    async def _cpu_of(self, identity: str) -> float | None:
        """Its CPU seconds so far, from the kernel where we see its files, else from the engine.

        The engine's own statistics come once a second, so asking it takes up to that.
        """
        used = _cpu_of_cgroup(identity)
        if used is not None:
            return used
        try:
            stats = await self._ask(
                "read CPU", lambda: self._client.stats(identity, stream=False, one_shot=True)
            )
        except ScalingError:
            return None
        used = stats.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage")
        return None if used is None else float(used) / 1e9

    async def _containers(self, role: Role) -> list[dict[str, Any]]:
        labels = [f"{LABEL_DEPLOYMENT}={self._options.deployment}", f"{LABEL_ROLE}={role}"]
        found: list[dict[str, Any]] = await self._ask(
            "list containers", lambda: self._client.containers(all=True, filters={"label": labels})
        )
        return found

    async def _ask(self, what: str, call: Callable[[], Any]) -> Any:
        """One call to the engine, in a thread.

        Raises:
            ScalingError: the engine refuses or isn't there.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except docker.errors.ImageNotFound as error:
            raise ScalingError(
                what, f"no image {self._options.image!r}", "Build it, or name it with --image"
            ) from error
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
            explanation = getattr(error, "explanation", None) or error
            raise ScalingError(
                what, f"Docker Engine: {explanation}", "Is the engine running, and may we use it?"
            ) from error


def _cpu_of_cgroup(identity: str) -> float | None:
    """CPU seconds of a container of this machine: cgroups v1, then v2 with either of Docker's drivers."""
    try:
        return int((CGROUPS / "cpuacct" / "docker" / identity / "cpuacct.usage").read_text()) / 1e9
    except (OSError, ValueError):
        pass
    for folder in (f"docker/{identity}", f"system.slice/docker-{identity}.scope"):
        try:
            lines = (CGROUPS / folder / "cpu.stat").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition(" ")
            if key == "usage_usec" and value.isdecimal():
                return int(value) / 1e6
    return None


def _connect() -> Any:
    """A client of the engine that DOCKER_HOST names, else of the local one."""
    client = docker.APIClient(
        base_url=os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"),
        version=API_VERSION,
        timeout=ANSWER_S,
    )
    client.ping()
    return client
