"""Units as containers of one Docker Engine (API 1.41 and newer, by the package `docker`).

Only containers with this deployment's label are listed or changed. Those of an earlier scaler are taken
over; exited ones are removed, and the end of their log is logged. Only the scaler restarts containers, never
the engine. A container is read-only except for /tmp and /data, has no capabilities and cannot gain any, and
is limited in memory, CPU and processes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import docker
import docker.errors
import requests.exceptions

from headcount.errors import ScalingError
from headcount.runtime.retry import Backoff
from headcount.scaling.drivers import UNIT_ROLES, FleetUnit, UnitRole, free_name

_log = logging.getLogger(__name__)

API_VERSION = "1.41"
LABEL_ROLE, LABEL_DEPLOYMENT, LABEL_UNIT = "headcount.role", "headcount.deployment", "headcount.unit"
#: Time in addition to draining after which the engine kills a container that does not exit.
GRACE_S = 10.0
#: Concurrent calls to the engine; most of them wait for a container to stop.
MAX_CALLS = 16
ENGINE_TIMEOUT_S = 30
#: Sizes of the memory file systems: temporary files, and data with more than the free space a broker needs.
TMP, DATA_MIB = "size=64m,mode=1777", 128
LAST_LINES = 5


@dataclass(frozen=True, slots=True)
class ContainerOptions:
    """The configuration of each container."""

    deployment: str
    image: str
    host: str  # address of the engine
    environment: Mapping[str, str]
    network: str = ""
    binds: tuple[str, ...] = ()  # FROM:TO[:ro]
    user: str = ""
    memory_bytes: int = 512 << 20
    cores: Mapping[UnitRole, float] | None = None
    pids: int = 256
    drain_s: float = 20.0
    command: tuple[str, ...] = ("run",)  # before the role


class DockerDriver:
    """Brokers and workers as containers."""

    kind = "docker"

    def __init__(self, options: ContainerOptions) -> None:
        self._options = options
        self._client: Any = None
        self._threads = ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="docker")
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._backoff: dict[UnitRole, Backoff] = {role: Backoff() for role in UNIT_ROLES}
        self._not_before_s = dict.fromkeys(
            UNIT_ROLES, -math.inf
        )  # monotonic: when a container may be added again

    async def __aenter__(self) -> Self:
        self._client = await self._call("reach the engine", partial(_connect, self._options.host))
        for role in UNIT_ROLES:
            found = [unit.name for unit in await self.units(role)]
            if found:
                _log.info("took over %s", ", ".join(found))
        return self

    async def __aexit__(self, *error: object) -> None:
        """Disconnect; containers keep running for the next scaler."""
        for task in self._leaving.values():
            task.cancel()
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    async def units(self, role: UnitRole) -> list[FleetUnit]:
        """The running containers of a role; exited ones are removed."""
        units = []
        for container in await self._containers(role):
            name, state = container["Labels"].get(LABEL_UNIT, ""), container["State"]
            if not name.rpartition("-")[2].isdecimal():
                continue
            # `created` means that its start failed or was interrupted
            if state in {"created", "exited", "dead"} and name not in self._leaving:
                self._not_before_s[role] = time.monotonic() + self._backoff[role].pause_s()
                await self._remove_exited(name, container["Id"], container["Status"])
                continue
            units.append(FleetUnit(name, role, leaving=name in self._leaving or state == "removing"))
        return units

    async def add(self, role: UnitRole) -> str:
        """Create and start one more container; after unexpected exits, with growing pauses."""
        wait_s = self._not_before_s[role] - time.monotonic()
        if wait_s > 0:
            raise ScalingError(
                f"start a {role}", "the last one exited", f"The next start is in {wait_s:.1f} s"
            )
        self._backoff[role].begin()
        taken = {c["Labels"].get(LABEL_UNIT, "") for c in await self._containers(role)}
        name = free_name(role, taken | set(self._leaving))
        await self._call(f"start {name}", lambda: self._run(role, name))
        return name

    async def remove(self, role: UnitRole, name: str) -> None:
        """Send SIGTERM, later SIGKILL, and remove the container."""
        if name in self._leaving:
            return
        for container in await self._containers(role):
            if container["Labels"].get(LABEL_UNIT) == name:
                task = asyncio.create_task(self._stop(name, container["Id"]), name=f"stop {name}")
                self._leaving[name] = task
                task.add_done_callback(lambda _: self._leaving.pop(name, None))

    # --- one container -----------------------------------------------------------------------------
    def _run(self, role: UnitRole, name: str) -> None:
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
            "HEADCOUNT_INTERNAL_HOST": "0.0.0.0",
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

    def _networking(self, role: UnitRole) -> Any:
        """In a user-defined network all units of a role share the role's name, so that monitoring finds them."""
        network, client = self._options.network, self._client
        if network in {"", "bridge", "host", "none"}:
            return None
        return client.create_networking_config({network: client.create_endpoint_config(aliases=[role])})

    def _data(self) -> str:
        """The mount options of /data, which belongs to the container's user.

        `mode` alone is not enough: runc gives a tmpfs the mode of the folder that it covers.
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
            await self._call(f"stop {name}", lambda: self._client.stop(identity, timeout=patience_s))
            await self._call(f"remove {name}", lambda: self._remove(identity))
        except ScalingError as error:
            _log.warning("%s", error)  # the next step tries again
        else:
            _log.info("%s stopped", name)

    async def _remove_exited(self, name: str, identity: str, status: str) -> None:
        """Remove a container that exited unexpectedly, and log the end of its log."""
        output = await self._call(
            f"read the log of {name}", lambda: self._client.logs(identity, tail=LAST_LINES, stdout=True)
        )
        last = output.decode(errors="replace").strip().replace("\n", " | ")
        _log.warning("%s: %s; end of its log: %s", name, status, last or "empty")
        await self._call(f"remove {name}", lambda: self._remove(identity))

    def _remove(self, identity: str) -> None:
        try:
            self._client.remove_container(identity, force=True, v=True)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            if error.status_code != 409:  # it is being removed already
                raise

    async def _containers(self, role: UnitRole) -> list[dict[str, Any]]:
        labels = [f"{LABEL_DEPLOYMENT}={self._options.deployment}", f"{LABEL_ROLE}={role}"]
        found: list[dict[str, Any]] = await self._call(
            "list containers", lambda: self._client.containers(all=True, filters={"label": labels})
        )
        return found

    async def _call(self, what: str, call: Callable[[], Any]) -> Any:
        """Call the engine in a thread.

        Raises:
            ScalingError: the engine refuses or does not answer.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except docker.errors.ImageNotFound as error:
            raise ScalingError(
                what, f"no image {self._options.image!r}", "Build it, or set --image"
            ) from error
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
            explanation = getattr(error, "explanation", None) or error
            raise ScalingError(
                what,
                f"Docker Engine: {explanation}",
                "Check that the engine runs and that this user may use it",
            ) from error


def _connect(host: str) -> Any:
    """A client of the engine at this address."""
    client = docker.APIClient(base_url=host, version=API_VERSION, timeout=ENGINE_TIMEOUT_S)
    client.ping()
    return client
